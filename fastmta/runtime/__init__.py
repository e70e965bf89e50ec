"""Every effect that a test wants to hold: clock, randomness, log, metrics, bus, tasks, crash points."""
