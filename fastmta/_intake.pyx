"""The one intake: how new mail, whoever brings it, becomes operations of a unit, and what is told of it afterwards.

A `Posting` is an envelope over a `Body`. `to` gives it recipients, `write` puts its operations into a unit, which may
hold others' too, and `committed` gives the answers once that unit has been. Several Postings may share a body.

It knows: a mailbox gets a message once; what has been here before loops; lanes and dates; the record of a queued
recipient; the counters; the log's lines. Whoever needs more than filing (a report of success) goes by the hop `local:`.
Every recipient's fate is told through a `Teller`, after the commit: log and metrics read it there.

Left to others: the message's bytes, the resolution of addresses, replies. Parts: text.pxi (bytes put together),
lines.pxi (lines that wait to be written), event.pxi and teller.pxi (events), posting.pxi (units).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport abs, free, realloc
from libc.string cimport memcpy

import msgspec

from fastmta._unit cimport Blob, Unit

from fastmta.model.envelope import NOTIFY_SUCCESS, Lane, LocalTarget, RecipientState, RecipientTail
from fastmta.model.ids import queue_id_text
from fastmta.model.limits import (
    LANE_BULK_BYTES,
    LANE_BULK_RECIPIENTS,
    LANE_SMALL_BYTES,
    LANE_SMALL_RECIPIENTS,
    LOG_RECIPIENTS,
)

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    struct tm:
        int tm_sec
        int tm_min
        int tm_hour
        int tm_mday
        int tm_mon
        int tm_year
        int tm_wday
        long tm_gmtoff
    tm* localtime_r(const time_t* instant, tm* out)
    tm* gmtime_r(const time_t* instant, tm* out)

QUEUE = QUEUE_IT
REPORT = REPORT_IT
REFUSE = REFUSE_UNIT
cdef bytes LOCAL_HOP = b"local:"
cdef bytes LOOP_HOP = b"error:5.4.6 mail forwarding loop"
cdef int ACTIVE = int(RecipientState.ACTIVE)
cdef int HELD = int(RecipientState.HELD)
cdef int LANES[3]
LANES[:] = [int(Lane.SMALL), int(Lane.NORMAL), int(Lane.BULK)]
cdef Py_ssize_t LOGGED = LOG_RECIPIENTS
cdef Py_ssize_t SMALL_RECIPIENTS = LANE_SMALL_RECIPIENTS
cdef Py_ssize_t BULK_RECIPIENTS = LANE_BULK_RECIPIENTS
cdef uint64_t SMALL_BYTES = LANE_SMALL_BYTES
cdef uint64_t BULK_BYTES = LANE_BULK_BYTES
cdef int SUCCESS = NOTIFY_SUCCESS
cdef object encode = msgspec.msgpack.Encoder().encode
cdef object encode_json = msgspec.json.Encoder().encode

include "_intake_parts/text.pxi"
include "_intake_parts/lines.pxi"
include "_intake_parts/event.pxi"
include "_intake_parts/teller.pxi"
include "_intake_parts/posting.pxi"
