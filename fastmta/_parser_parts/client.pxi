# The client's side: replies of a next hop, and dot-stuffing of what goes out.

cdef inline bint _is_digit(uint8_t c) noexcept nogil:
    return 48 <= c <= 57


cdef Py_ssize_t _enhanced_length(const char* p, Py_ssize_t n, char digit) noexcept nogil:
    # The length of an enhanced status code "d.ddd.ddd" at p (RFC 2034 §4), or 0; its class must be the reply's.
    cdef Py_ssize_t i = 2, run
    cdef int part
    if n < 5 or p[0] != digit or p[1] != c'.':
        return 0
    for part in range(2):
        run = 0
        while i < n and run < 4 and _is_digit(<uint8_t>p[i]):
            i += 1
            run += 1
        if run == 0 or run > 3:
            return 0
        if part == 0:
            if i >= n or p[i] != c'.':
                return 0
            i += 1
    if i < n and p[i] != c' ':
        return 0
    return i


cdef str _printable(const char* p, Py_ssize_t n):
    # Peer bytes as text that is safe in a log or a DSN: bad UTF-8 and control bytes become \xNN.
    cdef str text = p[:n].decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() else f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}" for c in text])


cdef class ReplyParser:
    """Turns the bytes of a server into replies (RFC 5321 §4.2); tolerates a bare LF, since peers send it.

    Raises ProtocolViolation for what is no reply, and past the bounds of model/limits.py; the connection is then of no use.
    """

    cdef bytearray _pending
    cdef list _lines
    cdef Py_ssize_t _size     # of the reply that has begun; 0: none has
    cdef Py_ssize_t _passes   # so many more replies are only counted
    cdef int _code
    cdef bint _is_passed      # the reply that has begun
    cdef str _enhanced
    cdef readonly Py_ssize_t passed

    def __cinit__(self):
        self._pending = bytearray()
        self._lines = []
        self._enhanced = ""

    @property
    def is_idle(self) -> bool:
        """Whether everything fed was whole replies: anything left over before STARTTLS is an injection."""
        return not self._pending and self._size == 0

    def feed(self, const uint8_t[::1] data not None, Py_ssize_t passes=0) -> list:
        """Takes the next bytes; gives every reply that they complete, in order.

        The first `passes` of them are only counted, in `passed`, as long as they are positive: for who asks for no more than
        that. From the first other reply on all are given.
        """
        cdef list out = []
        cdef Py_ssize_t n = data.shape[0]
        cdef const char* p
        cdef const char* end
        cdef const char* lf
        self._passes = passes
        self.passed = 0
        if n == 0:
            return out
        p = <const char*>&data[0]
        end = p + n
        while p < end:
            lf = <const char*>memchr(p, c'\n', end - p)
            if lf == NULL:
                if len(self._pending) + (end - p) > REPLY_LINE_BYTES:
                    raise ProtocolViolation("a reply line is too long")
                self._pending += p[:end - p]
                break
            if self._pending:
                self._pending += p[:lf - p]
                self._line(self._pending, len(self._pending), out)
                self._pending.clear()
            else:
                self._line(p, lf - p, out)
            p = lf + 1
        return out

    cdef int _line(self, const char* p, Py_ssize_t n, list out) except -1:
        cdef int code
        cdef Py_ssize_t lead
        cdef bint first = self._size == 0
        cdef bint last
        cdef str text
        if n > 0 and p[n - 1] == c'\r':
            n -= 1
        if n > REPLY_LINE_BYTES:
            raise ProtocolViolation("a reply line is too long")
        self._size += n + 2
        if self._size > REPLY_BYTES:
            raise ProtocolViolation("a reply is too long")
        if (n < 3 or not c'2' <= p[0] <= c'5' or not _is_digit(<uint8_t>p[1]) or not _is_digit(<uint8_t>p[2])
                or (n > 3 and p[3] != c' ' and p[3] != c'-')):
            raise ProtocolViolation(f"not a reply: {_printable(p, min(n, 80))}")
        code = (p[0] - 48) * 100 + (p[1] - 48) * 10 + p[2] - 48
        last = n == 3 or p[3] == c' '
        if not first and code != self._code:
            raise ProtocolViolation(f"a multiline reply changes its code from {self._code} to {code}")
        self._code = code
        if first:
            self._is_passed = self._passes > 0 and code < 300
        if self._is_passed:
            if last:
                self.passed += 1
                self._passes -= 1
                self._size = 0
            return 0
        self._passes = 0
        p += min(n, 4)
        n -= min(n, 4)
        lead = _enhanced_length(p, n, 48 + code // 100)
        if lead:
            if not self._lines:
                self._enhanced = p[:lead].decode("ascii")
            p += min(n, lead + 1)
            n -= min(n, lead + 1)
        text = _printable(p, n)
        self._lines.append(text)
        if last:
            out.append(Reply(code, self._enhanced, text if len(self._lines) == 1 else "\n".join(self._lines)))
            self._lines = []
            self._enhanced = ""
            self._size = 0
        return 0


def stuff(const uint8_t[::1] data not None, bint at_line_start):
    """Doubles the dot at the start of each line (RFC 5321 §4.5.2): (stuffed bytes, whether the next byte starts a line).

    A line starts after LF, so also after a bare one: a reader that takes it for the end of a line finds no end of data.
    """
    cdef Py_ssize_t n = data.shape[0]
    cdef Py_ssize_t dots = 0
    cdef const char* start
    cdef const char* p
    cdef const char* end
    cdef const char* lf
    cdef char* out
    cdef bytes result
    if n == 0:
        return b"", at_line_start
    start = <const char*>&data[0]
    end = start + n
    if at_line_start and start[0] == c'.':
        dots = 1
    p = start
    while True:
        p = <const char*>memchr(p, c'\n', end - p)
        if p == NULL:
            break
        p += 1
        if p == end:
            break
        dots += p[0] == c'.'
    result = PyBytes_FromStringAndSize(NULL, n + dots)
    out = PyBytes_AS_STRING(result)
    p = start
    if at_line_start and p[0] == c'.':
        out[0] = c'.'
        out += 1
    while p < end:
        lf = <const char*>memchr(p, c'\n', end - p)
        if lf == NULL:
            memcpy(out, p, end - p)
            break
        memcpy(out, p, lf + 1 - p)
        out += lf + 1 - p
        p = lf + 1
        if p < end and p[0] == c'.':
            out[0] = c'.'
            out += 1
    return result, (end - 1)[0] == c'\n'


def normalize(const uint8_t[::1] data not None, bint after_cr):
    """Makes every line of a piece of message end in CRLF: (bytes, whether the piece ended in a CR that is still owed).

    A bare LF becomes CRLF and a bare CR a space, as Postfix's cleanup does. Feed the flag back with the next piece; at
    the end an owed CR is a bare one: append b" ". For a body with HAS_BARE_NEWLINE before `stuff`, and for import.
    """
    cdef Py_ssize_t n = data.shape[0]
    cdef Py_ssize_t i
    cdef Py_ssize_t size = 0
    cdef uint8_t c
    cdef bytes result = PyBytes_FromStringAndSize(NULL, 2 * n + 1)
    cdef char* out = PyBytes_AS_STRING(result)
    # Each input byte writes at most two bytes, and an owed CR one more: 2n + 1 bounds `size`.
    for i in range(n):
        c = data[i]
        if c == c'\n':
            out[size] = c'\r'
            out[size + 1] = c'\n'
            size += 2
            after_cr = False
            continue
        if after_cr:
            out[size] = c' '
            size += 1
        after_cr = c == c'\r'
        if not after_cr:
            out[size] = c
            size += 1
    return result[:size], after_cr
