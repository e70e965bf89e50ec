"""HTTP: metrics, health; and the control socket."""
