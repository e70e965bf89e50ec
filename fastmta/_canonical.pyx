"""A message as its signatures see it: header fields with every octet, tag lists, signatures, and the canonical forms that
are hashed (RFC 5322 §2.2; RFC 6376 §3.2, §3.4, §3.5, §3.7).

Pure functions over bytes, and one small machine for a body that arrives in pieces. Compiled because every message from
outside passes here several times, octet by octet: docs/adr/0280.

Invariants: nothing is read beyond the octets that were given, nor written beyond a buffer whose size is their bound; all
work is linear in them; a piece of a body of more than HELD octets is walked through without the interpreter's lock.
Left to others: the hash, the keys, what a result is called (fastmta/authentication).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.string cimport memchr, memcpy, memset

import re

from binascii import Error as BinasciiError
from binascii import a2b_base64

from fastmta.model.limits import (
    ARC_SETS,
    AUTHENTICATED_FIELDS,
    AUTHENTICATED_HEADER_BYTES,
    DKIM_FIELD_BYTES,
    DKIM_SIGNED_NAMES,
    DKIM_TAGS,
)

cdef enum:
    HELD = 16384           # octets of a piece of a body that are walked through with the interpreter's lock
    SLICE = 2047           # given out at once of such a piece: hashlib gives the lock up for more, and a thread takes it
    EMPTY_LINES = 1 << 14  # given out at once

cdef char STOPS_SIMPLE[256]   # where a run of octets that mean themselves ends
cdef char STOPS_RELAXED[256]
memset(STOPS_SIMPLE, 0, 256)
memset(STOPS_RELAXED, 0, 256)
STOPS_SIMPLE[<int>c'\r'] = STOPS_RELAXED[<int>c'\r'] = STOPS_RELAXED[<int>c' '] = STOPS_RELAXED[<int>c'\t'] = 1

cdef Py_ssize_t MOST_HEADER = AUTHENTICATED_HEADER_BYTES
cdef Py_ssize_t MOST_FIELDS = AUTHENTICATED_FIELDS
cdef Py_ssize_t MOST_LIST = DKIM_FIELD_BYTES
cdef Py_ssize_t MOST_TAGS = DKIM_TAGS
cdef Py_ssize_t MOST_NAMES = DKIM_SIGNED_NAMES
cdef int MOST_SETS = ARC_SETS
cdef object QUOTED = re.compile(rb"=([0-9A-Fa-f]{2})")


class HeaderTooLong(ValueError):
    """The header section is over AUTHENTICATED_HEADER_BYTES or _FIELDS: nothing in it is believed."""


class TagError(ValueError):
    """The list is not of the form that the RFC gives it."""


include "_canonical_parts/field.pxi"
include "_canonical_parts/tags.pxi"
include "_canonical_parts/forms.pxi"
include "_canonical_parts/body.pxi"
include "_canonical_parts/signature.pxi"
