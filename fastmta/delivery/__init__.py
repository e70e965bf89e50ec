"""Routing, the owner of next hops, and the transports."""
