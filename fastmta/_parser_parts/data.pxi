# The message's bytes: the receiver of DATA, arrival bits, and the scan of the header.

cdef enum:
    BIT_DOT_LINE = 1
    BIT_8BIT = 2
    BIT_LONG_LINE = 4
    BIT_NO_FINAL_CRLF = 8
    BIT_BARE = 16
    BIT_NUL = 32
    LINE_LIMIT = 998

cdef enum:
    AT_LINE = 0      # the last octets were CRLF, or there were none
    IN_LINE = 1
    AFTER_CR = 2     # in a line whose last octet is CR
    AFTER_DOT = 3    # CRLF "."; the dot has not been given out
    AFTER_DOT_CR = 4
    AT_BARE_LINE = 5  # normalising only: behind a bare LF

cdef const char* _CR = "\r"


cdef void data_begin(DataState* state) noexcept nogil:
    state.state = AT_LINE
    state.bits = 0
    state.line = 0


cdef Py_ssize_t _count_cr(DataState* state, const uint8_t* p, Py_ssize_t n) noexcept nogil:
    # One pass that the compiler vectorises: counts CR and notes NUL and octets over 127.
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t k
    cdef Py_ssize_t total = 0
    cdef uint8_t high = 0
    cdef uint8_t low = 255
    cdef uint8_t crs
    while i < n:
        crs = 0
        if n - i >= 240:  # at most 240 a block, so the eight-bit sum holds
            for k in range(240):
                high |= p[i + k]
                low = p[i + k] if p[i + k] < low else low
                crs += p[i + k] == 13
            i += 240
        else:
            while i < n:
                high |= p[i]
                low = p[i] if p[i] < low else low
                crs += p[i] == 13
                i += 1
        total += crs
    if n and low == 0:
        state.bits |= BIT_NUL
    if high & 128:
        state.bits |= BIT_8BIT
    return total


cdef int data_next(
    DataState* state, const char** at, const char* end, const char** run, Py_ssize_t* length, bint dots
) noexcept nogil:
    # A run ends where a dot is taken out, at the end of data, or where the input ends; so most messages of one read
    # are one run. Each call either moves *at or gives a run or ends, so callers that loop make progress.
    cdef const char* q = at[0]
    cdef const char* start = q
    cdef const char* lf
    cdef Py_ssize_t pairs = 0  # CRs of this run that stand before an LF, or may yet
    if q == end:
        return DATA_MORE
    if state.state == AFTER_DOT_CR:
        if q[0] == c'\n':
            at[0] = q + 1
            return DATA_END
        state.bits |= BIT_BARE
        state.state = AFTER_CR
        state.line = 1
        run[0] = _CR
        length[0] = 1
        return DATA_RUN
    while q < end:
        if state.state == AT_LINE and q[0] == c'.':
            if not dots:
                state.bits |= BIT_DOT_LINE
            elif q > start:
                break
            else:
                state.state = AFTER_DOT
                q += 1
                start = q
                if q == end:
                    break
        if state.state == AFTER_DOT:  # only as the first step of a call: q == start
            if q[0] == c'\r':
                if q + 1 == end:
                    state.state = AFTER_DOT_CR
                    at[0] = end
                    return DATA_MORE
                if q[1] == c'\n':
                    at[0] = q + 2
                    return DATA_END
            elif q[0] == c'.':
                state.bits |= BIT_DOT_LINE
            state.state = IN_LINE
        lf = <const char*>memchr(q, c'\n', end - q)
        if lf == NULL:
            if state.state == AFTER_CR:
                state.bits |= BIT_BARE
            state.line += end - q
            state.state = IN_LINE
            if (end - 1)[0] == c'\r':
                state.state = AFTER_CR
                pairs += 1
            q = end
        elif lf == q:
            if state.state == AFTER_CR:
                if state.line - 1 > LINE_LIMIT:
                    state.bits |= BIT_LONG_LINE
                state.state = AT_LINE
                state.line = 0
            else:
                state.bits |= BIT_BARE
                state.state = IN_LINE
                state.line += 1
            q += 1
        else:
            if state.state == AFTER_CR:
                state.bits |= BIT_BARE
            state.line += lf - q
            if (lf - 1)[0] == c'\r':
                pairs += 1
                if state.line - 1 > LINE_LIMIT:
                    state.bits |= BIT_LONG_LINE
                state.state = AT_LINE
                state.line = 0
            else:
                state.bits |= BIT_BARE
                state.state = IN_LINE
                state.line += 1
            q = lf + 1
    if state.line - (state.state == AFTER_CR) > LINE_LIMIT:  # of the line that is not ended yet
        state.bits |= BIT_LONG_LINE
    at[0] = q
    if q == start:
        return DATA_MORE
    if _count_cr(state, <const uint8_t*>start, q - start) != pairs:
        state.bits |= BIT_BARE
    run[0] = start
    length[0] = q - start
    return DATA_RUN


cdef inline void _put(DataState* state, char* out, Py_ssize_t* size, uint8_t c) noexcept nogil:
    if state.line == 0 and c == c'.':
        state.bits |= BIT_DOT_LINE
    if c >= 128:
        state.bits |= BIT_8BIT
    elif c == 0:
        state.bits |= BIT_NUL
    out[size[0]] = c
    size[0] += 1
    state.line += 1
    if state.line > LINE_LIMIT:
        state.bits |= BIT_LONG_LINE


cdef inline void _put_crlf(DataState* state, char* out, Py_ssize_t* size, int line_state) noexcept nogil:
    out[size[0]] = c'\r'
    out[size[0] + 1] = c'\n'
    size[0] += 2
    state.line = 0
    state.state = line_state


cdef int data_normalize(
    DataState* state, const char** at, const char* end, char* out, Py_ssize_t* size
) noexcept nogil:
    # Octet by octet, for smtpd_forbid_bare_newline = normalize alone. A bare LF ends a line, whose dot is taken out
    # as Postfix does; a bare CR becomes a space. Only CRLF.CRLF ends the data. At most two octets go out for one.
    cdef const char* q = at[0]
    cdef uint8_t c
    size[0] = 0
    while q < end:
        c = <uint8_t>q[0]
        q += 1
        if state.state == AFTER_DOT_CR:
            if c == c'\n':
                at[0] = q
                return DATA_END
            state.state = AFTER_CR
        elif state.state == AT_LINE and c == c'.':
            state.state = AFTER_DOT
            continue
        elif state.state == AT_BARE_LINE and c == c'.':
            state.state = IN_LINE
            continue
        elif state.state == AFTER_DOT:
            if c == c'\r':
                state.state = AFTER_DOT_CR
                continue
            state.state = IN_LINE
        if state.state == AFTER_CR:
            if c == c'\n':
                _put_crlf(state, out, size, AT_LINE)
                continue
            _put(state, out, size, c' ')
        if c == c'\r':
            state.state = AFTER_CR
        elif c == c'\n':
            _put_crlf(state, out, size, AT_BARE_LINE)
        else:
            _put(state, out, size, c)
            state.state = IN_LINE
    at[0] = q
    return DATA_MORE


cdef class DataReceiver:
    """The bytes between 354 and the final dot, cut anywhere: the Python face of data_next and data_normalize.

    `normalize` converts line ends; without it bytes stay as they came and `bits` tells of a bare CR or LF.
    """

    cdef DataState _state
    cdef bint _normalize
    cdef bint _dots

    def __cinit__(self, bint normalize=False, bint dots=True):
        data_begin(&self._state)
        self._normalize = normalize
        self._dots = dots

    @property
    def bits(self) -> int:
        return self._state.bits

    @property
    def at_line_start(self) -> bool:
        """Whether the bytes so far end in CRLF, or there were none."""
        return self._state.state == AT_LINE

    def feed(self, bytes data not None):
        """(message bytes found, octets of `data` that belong to the message and its end, whether the end was seen)."""
        cdef const char* start = data
        cdef const char* p = start
        cdef const char* end = p + len(data)
        cdef const char* run
        cdef Py_ssize_t length
        cdef bytes out
        cdef list parts = []
        cdef int step
        if self._normalize:
            out = PyBytes_FromStringAndSize(NULL, 2 * len(data) + 2)
            step = data_normalize(&self._state, &p, end, PyBytes_AS_STRING(out), &length)
            return out[:length], p - start, step == DATA_END
        while True:
            step = data_next(&self._state, &p, end, &run, &length, self._dots)
            if step != DATA_RUN:
                return b"".join(parts), p - start, step == DATA_END
            parts.append(run[:length])


cdef enum:
    LINE_BEGINS = 0
    IN_NAME = 1
    NAME_SPACE = 2   # white space behind the name: a colon must follow
    IN_VALUE = 3     # of a Delivered-To
    SKIP_LINE = 4
    HEADER_ENDED = 5
    IN_ID = 6        # of the first Message-ID, whose value may stand in the line below its name
    DELIVERED_TO_BYTES = 32768  # kept of all Delivered-To values together


@cython.final
cdef class HeaderScan:
    def __cinit__(self):
        self.begin()

    cdef void begin(self) noexcept:
        self._state = LINE_BEGINS
        self._name_length = 0
        self._id_size = 0
        self._id_follows = False
        self.lines = 0
        self.received = 0
        self.has_date = self.has_message_id = self.has_from = self.ended_by_blank = False
        self.delivered_to = None

    cdef bint done(self) noexcept:
        return self._state == HEADER_ENDED

    cdef Py_ssize_t feed_c(self, const char* p, Py_ssize_t n) except -2:
        cdef Py_ssize_t i = 0
        cdef Py_ssize_t line = -1  # where the present line begins, if in this piece
        cdef const char* lf
        cdef uint8_t c
        while i < n and self._state != HEADER_ENDED:
            c = <uint8_t>p[i]
            if self._state == LINE_BEGINS:
                line = i
                if c == c'\r' or c == c'\n':
                    self._state = HEADER_ENDED
                    self.ended_by_blank = True
                    return i
                self.lines += 1
                self._name_length = 0
                if c == c' ' or c == c'\t':
                    if self.lines == 1:
                        self._state = HEADER_ENDED
                        return i
                    self._state = IN_ID if self._id_follows else SKIP_LINE
                else:
                    self._state = IN_NAME
                self._id_follows = False
            elif self._state == IN_NAME or self._state == NAME_SPACE:
                if c == c':' and self._name_length > 0:
                    self._classify()
                    i += 1
                elif c == c' ' or c == c'\t':
                    self._state = NAME_SPACE
                    i += 1
                elif self._state == IN_NAME and 33 <= c <= 126:
                    if self._name_length < HEADER_NAME_BYTES:
                        self._name[self._name_length] = _upper(c)
                    self._name_length += 1
                    i += 1
                elif self.lines == 1 and self._named("FROM", 4) or self._named(">FROM", 5):
                    self._state = SKIP_LINE  # an mbox separator, as some programs leave it on top
                else:
                    self._state = HEADER_ENDED  # no header field: the body begins without its empty line
                    return line
            else:
                lf = <const char*>memchr(p + i, c'\n', n - i)
                if self._state == IN_VALUE:
                    if len(self.delivered_to) < DELIVERED_TO_BYTES:
                        self.delivered_to += p[i:(lf - p + 1 if lf != NULL else n)]
                elif self._state == IN_ID:
                    self._take_id(p + i, (lf - p if lf != NULL else n) - i)
                    self._id_follows = lf != NULL and self._id_size == 0
                if lf == NULL:
                    return -1
                self._state = LINE_BEGINS
                i = lf - p + 1
        return -1

    cdef bint _named(self, const char* upper, Py_ssize_t length) noexcept:
        return self._name_length == length and memcmp(self._name, upper, length) == 0

    cdef void _take_id(self, const char* p, Py_ssize_t n) noexcept:
        # Without the white space round it; what is over the bound is dropped.
        while n > 0 and self._id_size == 0 and (p[0] == c' ' or p[0] == c'\t' or p[0] == c'\r'):
            p += 1
            n -= 1
        n = min(n, MESSAGE_ID_BYTES - self._id_size)
        memcpy(self._id + self._id_size, p, n)
        self._id_size += n

    cdef int _classify(self) except -1:
        self._state = SKIP_LINE
        if self._named("RECEIVED", 8):
            self.received += 1
        elif self._named("DELIVERED-TO", 12):
            self._state = IN_VALUE
            if self.delivered_to is None:
                self.delivered_to = bytearray()
        elif self._named("DATE", 4):
            self.has_date = True
        elif self._named("MESSAGE-ID", 10):
            if not self.has_message_id:
                self._state = IN_ID
            self.has_message_id = True
        elif self._named("FROM", 4):
            self.has_from = True
        return 0

    def feed(self, bytes data not None):
        """The offset at which the header ends (its empty line, or a line that is no field), or -1.

        -1 with `is_done` set: it ended at a line that began in an earlier piece.
        """
        return self.feed_c(data, len(data))

    @property
    def is_done(self):
        return self.done()

    cpdef bytes message_id(self):
        """The value of the first Message-ID field, as far as MESSAGE_ID_BYTES of it; b"" where there is none."""
        cdef Py_ssize_t n = self._id_size
        while n > 0 and (self._id[n - 1] == c'\r' or self._id[n - 1] == c' ' or self._id[n - 1] == c'\t'):
            n -= 1
        return PyBytes_FromStringAndSize(self._id, n)

    cpdef list delivered_to_addresses(self):
        """The values of the Delivered-To fields seen, lower case."""
        if self.delivered_to is None:
            return []
        return [line.strip().lower() for line in bytes(self.delivered_to).split(b"\n") if line.strip()]
