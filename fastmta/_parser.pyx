"""SMTP over bytes, without effects: command lines, paths, parameters, the message's bytes, replies.

Everything here is a pure function or a small machine that gives the same result however its input was cut. It knows no
socket, clock, log or configuration. The C side is for `_session`; the Python classes wrap it for tests and clients.
The parts lie in `_parser_parts/`: command.pxi (lines, paths, parameters), data.pxi (the DATA and BDAT receivers and the
header scan), client.pxi (replies, dot-stuffing).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memchr, memcmp, memcpy, strchr, strlen

cdef extern from "<arpa/inet.h>" nogil:
    enum:
        AF_INET
        AF_INET6
        INET6_ADDRSTRLEN
    int inet_pton(int family, const char* text, void* address)

from fastmta.model.errors import ProtocolViolation
from fastmta.model.limits import (
    SMTP_DOMAIN_BYTES,
    SMTP_LOCAL_PART_BYTES,
    SMTP_PATH_BYTES,
    SMTP_REPLY_BYTES,
    SMTP_REPLY_LINE_BYTES,
)
from fastmta.model.reply import Reply

cdef Py_ssize_t REPLY_LINE_BYTES = SMTP_REPLY_LINE_BYTES
cdef Py_ssize_t REPLY_BYTES = SMTP_REPLY_BYTES
cdef Py_ssize_t LOCAL_PART_BYTES = SMTP_LOCAL_PART_BYTES
cdef Py_ssize_t DOMAIN_BYTES = SMTP_DOMAIN_BYTES
cdef Py_ssize_t PATH_BYTES = SMTP_PATH_BYTES

include "_parser_parts/client.pxi"
include "_parser_parts/command.pxi"
include "_parser_parts/data.pxi"
