# Functions on a Connection: a submitted message's Bcc and Resent-Bcc are not passed on (RFC 5322 §3.6.3).

cdef enum:
    FIELD_KEPT = 0
    FIELD_NAME = 1     # of the present line the name is not whole yet: it lies in `held`
    FIELD_DROPPED = 2


cdef int _blind(const char* p, Py_ssize_t n) noexcept:
    # Whether a header line that begins so is a Bcc or Resent-Bcc field: 1 yes, 0 no, -1 it may become one. p[i] is
    # read below n only.
    cdef Py_ssize_t i = 0
    while i < n and p[i] != c':' and p[i] != c' ' and p[i] != c'\t':
        i += 1
    if i == n:
        if n <= 3 and equals_nocase(p, n, b"BCC", n) or n <= 10 and equals_nocase(p, n, b"RESENT-BCC", n):
            return -1
        return 0
    if not (equals_nocase(p, i, b"BCC", 3) or equals_nocase(p, i, b"RESENT-BCC", 10)):
        return 0
    while i < n and (p[i] == c' ' or p[i] == c'\t'):
        i += 1
    if i == n:
        return -1 if n < HELD_BYTES else 0
    return p[i] == c':'


cdef int _keep_seen(Connection self, const char* p, Py_ssize_t n) except -1:
    # Keeps a piece of the header without its blind fields, in as few runs as they leave. `at` is the line that is
    # looked at, `start` what has not been kept yet: start <= at <= n.
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t at = 0
    cdef const char* lf
    cdef int blind
    if self.field == FIELD_NAME:  # of an earlier piece: octet by octet until it is decided
        while at < n:
            self.held[self.held_size] = p[at]
            self.held_size += 1
            at += 1
            blind = _blind(self.held, self.held_size)
            if blind >= 0:
                self.field = FIELD_DROPPED if blind else FIELD_KEPT
                break
        if self.field == FIELD_NAME:
            return 0
        if self.field == FIELD_DROPPED:
            self.held_size = 0
        _keep_held(self)
        start = at
        # The line goes on, unless the octet that decided was its end.
        self.line_begins = p[at - 1] == c'\n'
    while at < n:
        if self.line_begins:
            if p[at] != c' ' and p[at] != c'\t':  # else it goes on as its field (RFC 5322 §2.2.3)
                if self.field == FIELD_DROPPED:
                    start = at
                blind = _blind(p + at, min(n - at, <Py_ssize_t>HELD_BYTES))
                if blind < 0:
                    _keep(self, p + start, at - start)
                    memcpy(self.held, p + at, n - at)
                    self.held_size = n - at
                    self.field = FIELD_NAME
                    return 0
                if blind:
                    _keep(self, p + start, at - start)
                self.field = FIELD_DROPPED if blind else FIELD_KEPT
            self.line_begins = False
        lf = <const char*>memchr(p + at, c'\n', n - at)
        self.line_begins = lf != NULL
        at = lf - p + 1 if lf != NULL else n
        if self.field == FIELD_DROPPED:
            start = at
    return _keep(self, p + start, n - start)


cdef int _keep_held(Connection self) except -1:
    # What looked like the beginning of a blind field and was none, or the header has ended with it.
    cdef Py_ssize_t n = self.held_size
    self.held_size = 0
    if self.field == FIELD_NAME:
        self.field = FIELD_KEPT
    return _keep(self, self.held, n) if n else 0
