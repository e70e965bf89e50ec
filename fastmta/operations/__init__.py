"""What an administrator can do: one typed function each. The command line is one of its faces."""
