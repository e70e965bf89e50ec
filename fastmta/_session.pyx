"""The SMTP fast path: the receive loop of one connection, and a message's way from DATA to its commit, in C.

A `Connection` is the protocol object of a connection and the state that smtp/session.Rules works on. MAIL, RCPT, DATA,
BDAT and QUIT of a plain client are handled here; every other command, parameter and error is the rules'. What
may follow what is smtp/transitions.TRANSITIONS, given as `table`: there is no copy of it here.

Invariants: all replies of one event leave in one `transport.write`, in the order of the commands; while `waiting` is
set nothing is parsed, so a command behind a dot is not seen before the commit has been answered; a 250 for a message
is written only by `unit_done` of a unit that is COMMITTED; no pointer outlives the call that was given its bytes.

Left to others: units and who carries them out (_unit), MIME structure (_mime), tasks and TLS (smtp/server.py).
The parts lie in `_session_parts/`: service.pxi, connection.pxi (the socket's side), command.pxi (commands),
message.pxi (the message's bytes), blind.pxi (Bcc), accept.pxi (its posting and the answer).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcpy

from fastmta._intake cimport QUEUE_IT, REPORT_IT, Body, Posting, Recipient, Target, Teller, Text
from fastmta._mime cimport Structure
from fastmta._parser cimport (
    DATA_END,
    DATA_MORE,
    DATA_RUN,
    VERB_AUTH,
    VERB_BDAT,
    VERB_BURL,
    VERB_DATA,
    VERB_EHLO,
    VERB_EXPN,
    VERB_HELO,
    VERB_HELP,
    VERB_HTTP,
    VERB_LHLO,
    VERB_MAIL,
    VERB_NOOP,
    VERB_QUIT,
    VERB_RCPT,
    VERB_RSET,
    VERB_UNKNOWN,
    VERB_VRFY,
    VERBS,
    DataState,
    HeaderScan,
    Parameter,
    Path,
    data_begin,
    data_next,
    data_normalize,
    equals_nocase,
    find_control,
    is_utf8,
    next_parameter,
    parse_decimal,
    parse_path,
    parse_verb,
)
from fastmta._unit cimport Engine, Unit, Waiter

from fastmta.model.envelope import (
    HAS_BARE_NEWLINE,
    NO_FINAL_CRLF,
    Envelope,
    QueuedTarget,
    Resolution,
)
from fastmta.model.errors import StorageFailure, TemporaryFailure
from fastmta.model.limits import (
    LINE_SKIP_BYTES,
    SMTP_COMMAND_LINE_BYTES,
    SMTP_DISCARD_BYTES,
    SMTP_LINGER_S,
    SMTP_MIN_DATA_RATE,
    SMTP_RESOLUTIONS,
    SMTP_SASL_LINE_BYTES,
    SMTP_UPLOAD_FREE_BYTES,
    SMTP_UPLOAD_STEP_BYTES,
    SMTP_WAITING_BYTES,
)
from fastmta.model.reply import Reply
from fastmta.model.stages import AHEAD, COUNTED, Stage

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_PEEK
        MSG_DONTWAIT
    ssize_t recv(int fd, void* buffer, size_t length, int flags)

cdef enum:  # smtp/transitions.State
    CONNECTED = 0
    GREETED = 1
    IN_MAIL = 2
    IN_RCPT = 3
    IN_DATA = 4
    IN_BDAT = 5
    IN_AUTH = 6
    NO_TRANSITION = 255

cdef enum:  # why a connection does not parse
    WAIT_COMMIT = 1
    WAIT_TASK = 2
    WAIT_WRITE = 4   # the peer does not read
    WAIT_BLOB = 8    # the store has too many of our bytes in memory
    WAIT_TLS = 16
    WAIT_DELAY = 32  # smtpd_error_sleep_time
    WAIT_TURN = 64   # other sessions have theirs
    WAIT_CHECK = 128  # somebody was asked about what the client said
    WAIT_ANSWER = WAIT_TASK | WAIT_CHECK

cdef enum:  # model.stages
    ASK_CONNECT = 1
    ASK_HELO = 2
    ASK_AUTH = 4
    ASK_MAIL = 8
    ASK_RCPT = 16
    ASK_DATA = 32
    ASK_END = 64
    ASK_LIMITS = 128
    TELL_AHEAD = 256
    RELAYS_AS_KNOWN = 0
    RELAYS = 1

cdef enum:  # what is worked on without a look at the turn: an ordinary client never sends more in one go
    FREE_LINES = 4
    FREE_BYTES = 16384

cdef enum:  # why a message that is being received will be refused
    FAIL_NONE = 0
    FAIL_BARE = 1
    FAIL_SIZE = 2
    FAIL_STORAGE = 3
    FAIL_DISCARD = 4  # a chunk that was refused beforehand: the reply has been given
    FAIL_UPLOADS = 5  # too much is under way from its address or of its account

cdef enum:
    BARE_REJECT = 0
    BARE_NORMALIZE = 1
    BARE_KEEP = 2
    BIT_BARE = 16
    BIT_NO_FINAL_CRLF = 8

BARE_MODES = {"reject": BARE_REJECT, "normalize": BARE_NORMALIZE, "no": BARE_KEEP}
assert (HAS_BARE_NEWLINE, NO_FINAL_CRLF) == (BIT_BARE, BIT_NO_FINAL_CRLF)
assert [1 << each for each in Stage] == [ASK_CONNECT, ASK_HELO, ASK_AUTH, ASK_MAIL, ASK_RCPT, ASK_DATA, ASK_END]
assert (COUNTED, AHEAD) == (ASK_LIMITS, TELL_AHEAD)
cdef Py_ssize_t LINE_BYTES = SMTP_COMMAND_LINE_BYTES
cdef Py_ssize_t SASL_LINE_BYTES = SMTP_SASL_LINE_BYTES
cdef Py_ssize_t WAITING_BYTES = SMTP_WAITING_BYTES
cdef Py_ssize_t DISCARD_BYTES = SMTP_DISCARD_BYTES
cdef Py_ssize_t SKIP_BYTES = LINE_SKIP_BYTES
cdef int64_t LINGER_S = SMTP_LINGER_S
cdef int64_t MIN_DATA_RATE = SMTP_MIN_DATA_RATE
cdef int64_t UPLOAD_FREE_BYTES = SMTP_UPLOAD_FREE_BYTES
cdef int64_t UPLOAD_STEP_BYTES = SMTP_UPLOAD_STEP_BYTES
cdef Py_ssize_t RESOLUTIONS = SMTP_RESOLUTIONS
cdef object ACCEPTED = Reply(250, "2.1.5", "Ok")
cdef object GO_ON = Reply(354, "", "End data with <CR><LF>.<CR><LF>")
cdef dict MAILBOX_REFUSALS = {
    "quota": Reply(452, "4.2.2", "Mailbox is full"),
    "missing": Reply(550, "5.1.1", "The mailbox is gone"),
    "limit": Reply(452, "4.2.2", "Mailbox is full"),
    "state": Reply(451, "4.3.0", "The mailbox is not available now"),
}

include "_intake_parts/text.pxi"
include "_session_parts/service.pxi"
include "_session_parts/connection.pxi"
include "_session_parts/command.pxi"
include "_session_parts/message.pxi"
include "_session_parts/blind.pxi"
include "_session_parts/accept.pxi"
