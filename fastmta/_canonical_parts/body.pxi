# The canonical form of a body that arrives in pieces (RFC 6376 §3.4.3, §3.4.4).

cdef struct Walk:
    bint relaxed
    bint blank       # blanks, which count only if something of their line follows
    bint cr          # a CR, which may begin a line end
    bint something   # more than empty lines has come
    Py_ssize_t ends  # line ends, which count only if something follows
    Py_ssize_t read  # octets of the piece that have been walked through


cdef inline Py_ssize_t held(Walk* at, char* out) noexcept nogil:
    # What counts now that something follows.
    cdef Py_ssize_t size = 0
    while at.ends:
        out[size] = c'\r'
        out[size + 1] = c'\n'
        size += 2
        at.ends -= 1
    if at.blank:
        out[size] = c' '
        size += 1
        at.blank = False
    at.something = True
    return size


@cython.boundscheck(False)  # reads p[i] below n, and p[i + 1] after a test
cdef Py_ssize_t walk(Walk* at, const char* p, Py_ssize_t n, char* out) noexcept nogil:
    # Ends early where more than EMPTY_LINES line ends come to count. Each octet that is read writes one at most, those
    # held before 2 * at.ends, a blank and a CR: n + 2 * at.ends + 2 in all.
    cdef Py_ssize_t i = at.read
    cdef Py_ssize_t size = 0
    cdef const char* stops
    while i < n:
        if at.cr and p[i] == c'\n':
            at.cr = at.blank = False
            at.ends += 1
            i += 1
        elif p[i] == c'\r' and not at.cr:
            at.cr = True
            i += 1
        elif at.relaxed and is_blank(p[i]) and not at.cr:
            at.blank = True
            i += 1
        elif at.ends > EMPTY_LINES:
            break
        else:
            size += held(at, out + size)
            if at.cr:  # a bare one; what follows it is looked at by itself
                at.cr = False
                out[size] = c'\r'
                size += 1
                continue
            stops = &STOPS_RELAXED[0] if at.relaxed else &STOPS_SIMPLE[0]
            while i < n:
                if stops[<unsigned char>p[i]]:
                    # A single space between two words stays; anything else is looked at anew.
                    if p[i] != c' ' or i + 1 == n or stops[<unsigned char>p[i + 1]]:
                        break
                out[size] = p[i]
                size += 1
                i += 1
    at.read = i
    return size


@cython.final
cdef class BodyForm:
    """A body's canonical form, "simple" or "relaxed"; `emit` gets its octets in pieces, as soon as they are certain."""

    cdef Walk at
    cdef object emit

    def __init__(self, str form not None, emit):
        self.at.relaxed = form != "simple"
        self.emit = emit

    def update(self, bytes piece not None):
        """The next octets; none of them is kept."""
        cdef const char* p = PyBytes_AS_STRING(piece)
        cdef Py_ssize_t n = PyBytes_GET_SIZE(piece)
        cdef Py_ssize_t size
        cdef char* to
        cdef bytes out
        self.at.read = 0
        while self.at.read < n:
            out = PyBytes_FromStringAndSize(NULL, n - self.at.read + 2 * min(self.at.ends, EMPTY_LINES) + 2)
            to = PyBytes_AS_STRING(out)
            if n > HELD:
                with nogil:
                    size = walk(&self.at, p, n, to)
                if size:
                    self.emit(out[:size])
            else:
                size = walk(&self.at, p, n, to)
                self.give(to, size)
            if self.at.read < n:
                self.give_ends()

    def finish(self):
        """Ends the body. A last line without CRLF gets one; blanks behind it count in the simple form alone."""
        cdef bytes out
        if self.at.cr:
            self.give_ends()
            self.at.cr = False
            out = PyBytes_FromStringAndSize(NULL, 2 * self.at.ends + 2)
            self.give(PyBytes_AS_STRING(out), held(&self.at, PyBytes_AS_STRING(out)))
            self.emit(b"\r")
        if self.at.something or not self.at.relaxed:
            self.emit(b"\r\n")  # the simple form of no body is one empty line, the relaxed form is nothing

    cdef int give(self, const char* p, Py_ssize_t n) except -1:
        cdef Py_ssize_t some
        while n:
            some = min(n, SLICE)
            self.emit(PyBytes_FromStringAndSize(p, some))
            p += some
            n -= some
        return 0

    cdef int give_ends(self) except -1:
        # Something follows: all line ends that were held count, and are given out as far as they are very many.
        while self.at.ends > EMPTY_LINES:
            self.emit(b"\r\n" * EMPTY_LINES)
            self.at.ends -= EMPTY_LINES
        return 0
