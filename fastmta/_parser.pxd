from libc.stdint cimport int64_t, uint8_t, uint32_t

# Verbs; the numbers index the transition table.
cdef enum Verb:
    VERB_UNKNOWN = 0
    VERB_EHLO = 1
    VERB_HELO = 2
    VERB_LHLO = 3
    VERB_MAIL = 4
    VERB_RCPT = 5
    VERB_DATA = 6
    VERB_BDAT = 7
    VERB_RSET = 8
    VERB_NOOP = 9
    VERB_QUIT = 10
    VERB_VRFY = 11
    VERB_EXPN = 12
    VERB_HELP = 13
    VERB_STARTTLS = 14
    VERB_AUTH = 15
    VERB_XCLIENT = 16
    VERB_XFORWARD = 17
    VERB_BURL = 18
    VERB_HTTP = 19  # a request line of another protocol: the session ends
    VERBS = 20

cdef enum PathError:
    PATH_OK = 0
    PATH_SYNTAX = 1
    PATH_TOO_LONG = 2

# Offsets are relative to the pointer that was given to parse_path.
cdef struct Path:
    Py_ssize_t start         # of the mailbox, source route dropped; start == end: the null path
    Py_ssize_t end
    Py_ssize_t at            # of the "@" before the domain, -1: "<postmaster>" alone
    Py_ssize_t after         # the first byte behind ">"
    bint quoted              # the local part is a quoted string
    bint utf8                # octets over 127, valid UTF-8

cdef struct Parameter:
    Py_ssize_t name
    Py_ssize_t name_end
    Py_ssize_t value         # value == value_end and no "=": has_value is false
    Py_ssize_t value_end
    bint has_value

cdef int parse_verb(const char* p, Py_ssize_t n, Py_ssize_t* args) noexcept nogil
cdef int parse_path(const char* p, Py_ssize_t n, bint forward, Path* out) noexcept nogil
# 1: one more parameter, *at moved behind it; 0: the line ends; -1: syntax
cdef int next_parameter(const char* p, Py_ssize_t n, Py_ssize_t* at, Parameter* out) noexcept nogil
cdef bint equals_nocase(const char* p, Py_ssize_t n, const char* upper, Py_ssize_t m) noexcept nogil
cdef int64_t parse_decimal(const char* p, Py_ssize_t n) noexcept nogil  # -1: no number, or more than 18 digits
cdef Py_ssize_t find_control(const char* p, Py_ssize_t n) noexcept nogil  # of the first octet below 32 or 127, else -1
cdef bint is_utf8(const uint8_t* p, Py_ssize_t n) noexcept nogil

cdef enum DataStep:
    DATA_MORE = 0            # everything was taken
    DATA_RUN = 1             # *run, *length belong to the message
    DATA_END = 2             # CRLF.CRLF was taken; the rest is the next command's

cdef struct DataState:
    int state
    uint32_t bits            # arrival bits of model/envelope.py
    Py_ssize_t line          # octets of the present line so far

cdef void data_begin(DataState* state) noexcept nogil
# Without `dots` a line's first dot is an octet like others and nothing ends the data (BDAT).
cdef int data_next(
    DataState* state, const char** at, const char* end, const char** run, Py_ssize_t* length, bint dots
) noexcept nogil
# The same with line ends normalised, into out (room for 2n + 2): *at moves; *size is what was written.
cdef int data_normalize(DataState* state, const char** at, const char* end, char* out, Py_ssize_t* size) noexcept nogil

cdef enum:
    HEADER_NAME_BYTES = 16
    MESSAGE_ID_BYTES = 512     # kept of a Message-ID's line; RFC 5322 §2.1.1 has 998 for any, people write 100

cdef class HeaderScan:
    cdef int _state
    cdef Py_ssize_t _name_length
    cdef char _name[HEADER_NAME_BYTES]
    cdef readonly Py_ssize_t lines
    cdef readonly Py_ssize_t received
    cdef readonly bint has_date
    cdef readonly bint has_message_id
    cdef readonly bint has_from
    cdef readonly bint ended_by_blank
    cdef char _id[MESSAGE_ID_BYTES]    # the first Message-ID as it came
    cdef Py_ssize_t _id_size
    cdef bint _id_follows              # its name's line had nothing behind the colon
    cdef bytearray delivered_to

    cdef void begin(self) noexcept
    cdef bint done(self) noexcept
    cdef Py_ssize_t feed_c(self, const char* p, Py_ssize_t n) except -2
    cdef bint _named(self, const char* upper, Py_ssize_t length) noexcept
    cdef void _take_id(self, const char* p, Py_ssize_t n) noexcept
    cdef int _classify(self) except -1
    cpdef bytes message_id(self)
    cpdef list delivered_to_addresses(self)
