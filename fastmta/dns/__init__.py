"""Name resolution for delivery: the only place that imports dnspython."""
