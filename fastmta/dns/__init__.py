"""Name resolution: the only place that imports dnspython."""
