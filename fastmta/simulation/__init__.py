"""The Internet in a box: the real delivery over a store in memory, a clock that jumps, and servers made of rules."""
