"""Values without effects: addresses, envelopes, replies, flags, identifiers, limits and errors."""
