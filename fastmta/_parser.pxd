from libc.stdint cimport uint8_t
