# cython: freethreading_compatible=False
"""IMAP on the wire: command framing with literals, argument cursor, sequence sets, uid maps, FETCH and other responses, masks.

Invariants: every buffer is bounded by a limit that the caller gave; an announced literal is compared with its limit before
a byte is allocated for it; no pointer outlives the bytes object that owns it. Leaves to others: what a command means
(fastmta/imap/commands), and everything that waits.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython cimport array
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort, realloc
from libc.string cimport memchr, memcmp, memcpy, memset

from fastmta._mime cimport MORE_TEXT, ROOT_MARKS_AT
from fastmta._unit cimport Beginning, Buffer, ROWS, Row, RowSink, RowSource, buffer_add, buffer_free, buffer_room

import array as _array_module

_U32 = _array_module.array("I")
cdef array.array U32 = _U32


class BadSyntax(Exception):
    """The peer's command breaks the grammar of RFC 3501 §9; the text may be shown to it."""


# Character classes of RFC 3501 §9, one byte each, filled in once below.
cdef uint8_t CLASS[256]
cdef enum:
    ATOM = 1         # ATOM-CHAR
    ASTRING = 2      # ASTRING-CHAR: ATOM-CHAR or "]"
    LIST = 4         # list-char: ASTRING-CHAR or a wildcard
    TAG = 8          # ASTRING-CHAR except "+"
    QUOTABLE = 16    # may stand inside a quoted string as it is, on output
    DIGIT = 32
    WORD = 64        # letters, digits, "." and "-": names of FETCH items and sections


cdef int _fill_classes() noexcept:
    cdef int c, bits
    cdef bint special
    for c in range(256):
        bits = 0
        if 0x20 < c < 0x7F:
            special = c in (c'(', c')', c'{', c'%', c'*', c'"', c'\\')
            if not special:
                bits |= ASTRING | LIST
                if c != c']':
                    bits |= ATOM
                if c != c'+':
                    bits |= TAG
            elif c == c'%' or c == c'*':
                bits |= LIST
            if c'0' <= c <= c'9':
                bits |= DIGIT | WORD
            elif c'a' <= (c | 32) <= c'z' or c == c'.' or c == c'-':
                bits |= WORD
        if 0x20 <= c < 0x7F and c != c'"' and c != c'\\':
            bits |= QUOTABLE
        CLASS[c] = <uint8_t>bits
    return 0


_fill_classes()

include "_imap_parts/framing.pxi"
include "_imap_parts/cursor.pxi"
include "_imap_parts/sets.pxi"
include "_imap_parts/encode.pxi"
include "_imap_parts/envelope.pxi"
include "_imap_parts/fetch.pxi"
