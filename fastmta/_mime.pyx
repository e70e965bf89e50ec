"""MIME structure of a message, found while its bytes pass by: ENVELOPE, BODY and BODYSTRUCTURE wire bytes, and where each part lies.

`Structure` is a push parser: feed it in any pieces, then `finish` gives the *structure record* that the store keeps
beside the message:

    <4I lengths> ENVELOPE BODY BODYSTRUCTURE part-table        (RFC 3501 §7.4.2, RFC 9051 §7.5.2)

Invariants:
- The record depends on the bytes alone, never on how they were cut into feeds.
- Every input gives a valid record: what cannot be understood, or passes a bound, is an opaque leaf.
- Memory is bounded by LIMITS whatever the message's size; nothing recurses; time is linear.
- Feeding touches no Python object and needs no GIL.

Lines end in LF with or without CR, so a message kept with bare newlines has its structure too. Offsets are those of the bytes
fed. Left to others: what to do with a record (store, imap), and decisions by content (policy).
"""

import binascii
import codecs
import re

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcmp, memcpy, memset

cdef enum:
    # Mirrored in model/limits.py, which says why; a test compares them.
    MAX_DEPTH = 100             # nesting of multipart and message/rfc822; BOUNDARY_DEPTH is the same
    MAX_PARTS = 1000            # nodes; the last one takes all the rest
    MAX_PARAMETERS = 100        # of one Content-Type or Content-Disposition
    MAX_SECTIONS = 16           # of one RFC 2231 parameter that is needed decoded: boundary and charset
    MAX_ADDRESSES = 5000        # of one address list
    MAX_LINE_BYTES = 65536      # of one header line that are looked at
    MAX_FIELD_BYTES = 65536     # kept of one unfolded field
    MAX_TEXT_BYTES = 524288     # kept of all fields of a message
    MAX_BOUNDARY_BYTES = 200    # RFC 2046 §5.1.1 allows 70
    MAX_WORD_BYTES = 4096       # of an encoded word's text
    DELIMITER_BYTES = 256       # of a line that decide whether it is a delimiter
    ABSENT = 0xFFFFFFFF

cdef enum:                      # Structure.mode
    HEADER, BODY_LINE_START, BODY_LINE, DELIMITER_TAIL

cdef enum:                      # Node.kind
    LEAF, TEXT, MULTIPART, MESSAGE, OPAQUE

cdef enum:                      # Node.fields; those from DATE on count only in a message's header
    CONTENT_TYPE, ENCODING, CONTENT_ID, DESCRIPTION, MD5, DISPOSITION, LANGUAGE, LOCATION
    DATE, SUBJECT, FROM, SENDER, REPLY_TO, TO, CC, BCC, IN_REPLY_TO, MESSAGE_ID

LIMITS = {
    "depth": MAX_DEPTH,
    "parts": MAX_PARTS,
    "parameters": MAX_PARAMETERS,
    "sections": MAX_SECTIONS,
    "addresses": MAX_ADDRESSES,
    "line_bytes": MAX_LINE_BYTES,
    "field_bytes": MAX_FIELD_BYTES,
    "text_bytes": MAX_TEXT_BYTES,
    "boundary_bytes": MAX_BOUNDARY_BYTES,
    "word_bytes": MAX_WORD_BYTES,
}

include "_mime_parts/buffer.pxi"
include "_mime_parts/syntax.pxi"
include "_mime_parts/address.pxi"
include "_mime_parts/scan.pxi"
include "_mime_parts/describe.pxi"
include "_mime_parts/record.pxi"
include "_mime_parts/charset.pxi"
include "_mime_parts/text.pxi"
include "_mime_parts/stream.pxi"
