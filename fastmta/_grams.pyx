"""Segments of the text index: which of some messages hold which runs of three characters (docs/adr/0200).

A *gram* is three characters that follow each other in a text whose case is folded, with the field it stands in: the
message's header, or everything behind it. ASCII has a number for each three; all others share 2^21 by a hash. So a segment
tells in which messages a word may be; that it is there, the search finds out by looking.

    head | uids of the messages | uids left out | the blocks' first grams and places | blocks

A block holds grams in order, each with the messages that have it, and ends with its sum. Numbers are little-endian.

Invariants: a segment depends on what was added alone; whatever is read is checked by its sum first, so damage is told and
never read as absence; nothing here keeps the interpreter while it works.
Left to others: where segments lie, what a message's text is, who may build (fastmta/index).
"""

cimport cython
from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset
from posix.types cimport off_t

from array import array

cdef extern from "Python.h":
    int PyUnicode_KIND(object text)
    void* PyUnicode_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    uint32_t PyUnicode_READ(int kind, void* data, Py_ssize_t index) nogil

cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int fd, void* buffer, size_t count, off_t offset)

cdef enum:
    MAGIC = 0x31474D46          # "FMG1"
    WIDE = 1 << 21              # of a gram: not of ASCII alone
    BEHIND = 1 << 22            # of a gram: it stands behind the message's header
    GRAMS = 1 << 23
    ALL_DOCS = 65535            # messages of a segment
    WORDS = 1024                # of 64 bits, one for each of them
    BLOCK_BYTES = 2048          # of a block, at least, where more follow
    PICKED = 12                 # grams of a word that are looked up
    SOURCES = 64                # segments merged in one go

MAX_DOCS = ALL_DOCS

include "_grams_parts/segment.pxi"
include "_grams_parts/build.pxi"
include "_grams_parts/find.pxi"
include "_grams_parts/merge.pxi"
