# Framing: bytes in any pieces become whole commands, with their literals in place, or a streamed APPEND literal.

cdef enum:
    E_NEED_MORE = 0
    E_COMMAND = 1  # .command: a whole command, "tag NAME ... {n}\r\n<n octets> ...", without its last CRLF
    E_LITERAL = 2  # a synchronising literal was announced and fits: the caller sends a continuation request
    E_APPEND = 3  # APPEND or REPLACE announced a literal: .command from behind the last streamed one, .literal_size, _sync
    E_DATA = 4  # .data: a piece of the streamed literal (memoryview; valid until the next call)
    E_APPEND_END = 5  # .command: what stood behind the last streamed literal
    E_LINE = 6  # .command: the one raw line that expect_line() asked for
    E_LINE_TOO_LONG = 7  # the command or line passed its limit; it is being discarded up to its end
    E_LITERAL_TOO_BIG = 8  # refused unread; a "{n+}" of reasonable size is being skipped, with the rest of its command
    E_FATAL = 9  # a "{n+}" or a line so large that skipping it is not worth it: say BYE and close

NEED_MORE = E_NEED_MORE
COMMAND = E_COMMAND
LITERAL = E_LITERAL
APPEND = E_APPEND
DATA = E_DATA
APPEND_END = E_APPEND_END
LINE = E_LINE
LINE_TOO_LONG = E_LINE_TOO_LONG
LITERAL_TOO_BIG = E_LITERAL_TOO_BIG
FATAL = E_FATAL

cdef enum:
    S_LINE = 0
    S_LITERAL = 1    # literal octets of an ordinary command, into the buffer
    S_ASK = 2        # a literal of an upload waits for the caller's verdict
    S_STREAM = 3
    S_SKIP = 4       # octets of a refused "{n+}"
    S_DISCARD = 5    # the rest of a refused command, up to its end
    S_RAW = 6

cdef enum:
    MAX_LITERAL_DIGITS = 10


cdef class CommandParser:
    """A push parser: feed() bytes as they come, then take next() until NEED_MORE.

    command_bytes bounds one command with its literals, literal_bytes one literal of it, skip_bytes what is read and
    dropped of a refused "{n+}". All three may be changed between commands (they grow at login). ID has a bound of its own
    where that is larger: id_bytes. line_bytes is what is read and dropped of a line over its limit, before E_FATAL: no line
    is read for ever.
    """

    cdef readonly bytes command
    cdef readonly object data
    cdef readonly uint64_t literal_size
    cdef readonly bint literal_sync
    cdef public Py_ssize_t command_bytes
    cdef public Py_ssize_t literal_bytes
    cdef public Py_ssize_t id_bytes
    cdef public uint64_t skip_bytes
    cdef Py_ssize_t line_bytes
    cdef bytes pending
    cdef Py_ssize_t position
    cdef char* buffer
    cdef Py_ssize_t used
    cdef Py_ssize_t capacity
    cdef uint64_t remaining
    cdef int state
    cdef Py_ssize_t skipped  # of the line that is being discarded
    cdef bint behind_stream
    cdef Py_ssize_t literal_stop

    def __cinit__(self, Py_ssize_t command_bytes, Py_ssize_t literal_bytes, uint64_t skip_bytes=0,
                  Py_ssize_t line_bytes=1 << 20):
        self.line_bytes = line_bytes
        self.command_bytes = command_bytes
        self.literal_bytes = literal_bytes
        self.skip_bytes = skip_bytes
        self.buffer = NULL
        self.used = 0
        self.capacity = 0
        self.state = S_LINE

    def __dealloc__(self):
        free(self.buffer)

    cpdef feed(self, bytes data):
        """Adds input. The parser keeps a reference to `data` until it is consumed; the caller stops reading while it waits."""
        if self.pending is None or self.position >= PyBytes_GET_SIZE(self.pending):
            self.pending = data
        else:
            self.pending = self.pending[self.position:] + data
        self.position = 0

    cpdef bint idle(self):
        """True when nothing of a command has come yet."""
        return self.pending is None and self.used == 0 and self.state in (S_LINE, S_RAW) and not self.behind_stream

    @property
    def empty(self):
        """True when all that was fed has been consumed: next() has nothing more to tell."""
        return self.pending is None

    cpdef clear(self):
        """Forgets all input, read and unread (STARTTLS, RFC 3501 §6.2.1)."""
        self.pending = None
        self.command = None
        self.data = None
        self._release()
        self.state = S_LINE
        self.behind_stream = False

    cpdef bytes take_rest(self):
        """What was fed and is not read yet: it is the caller's again."""
        cdef bytes rest = b"" if self.pending is None else self.pending[self.position:]
        self.pending = None
        return rest

    cpdef forget(self):
        """Drops the reference to the last command's bytes, so that an idle session holds none."""
        self.command = None
        self.data = None

    cpdef expect_line(self):
        """The next line is handed over raw (a SASL response, DONE): no literals in it."""
        self.state = S_RAW

    cpdef accept(self):
        """After APPEND: the literal is a message, or a part of one, and is streamed as DATA."""
        self._release()
        self.remaining = self.literal_size
        self.state = S_STREAM
        self.behind_stream = True

    cpdef int inline(self) except -1:
        """After APPEND: the literal is an argument like those of other commands, within their limits; the event that follows.

        It stands in .command of the next event, with all that did before it.
        """
        cdef int event
        self.state = S_LINE
        event = self._argument(1 if self.literal_sync else 2)
        return E_NEED_MORE if event < 0 else event

    cpdef refuse(self):
        """After APPEND: the literal is not taken. "{n+}" is skipped, "{n}" never comes."""
        self._release()
        self._refused()

    cpdef abandon(self):
        """In the middle of a streamed literal: the rest of it and of its command is dropped."""
        self.behind_stream = False
        self.state = S_SKIP

    cdef int _refused(self) noexcept:
        self.behind_stream = False
        if self.literal_sync:
            self.state = S_LINE
        else:
            self.remaining = self.literal_size
            self.state = S_SKIP
        return 0

    cdef int _release(self) noexcept:
        free(self.buffer)
        self.buffer = NULL
        self.used = self.capacity = 0
        self.literal_stop = 0
        return 0

    cdef int _add(self, const char* data, Py_ssize_t n) except -1:
        cdef Py_ssize_t wanted = self.used + n
        cdef char* grown
        if wanted > self.capacity:
            wanted = max(wanted, min(self.capacity * 2, self.command_bytes), 128)
            grown = <char*>realloc(self.buffer, wanted)
            if grown == NULL:
                raise MemoryError
            self.buffer = grown
            self.capacity = wanted
        if n:  # nothing may be there yet to add nothing to
            memcpy(self.buffer + self.used, data, n)
        self.used += n
        return 0

    cdef int _done(self):
        if self.pending is not None and self.position >= PyBytes_GET_SIZE(self.pending):
            self.pending = None
            self.position = 0
        return 0

    cpdef int next(self) except -1:
        """The next event; see the constants. Reads nothing while an APPEND waits for accept(), inline() or refuse()."""
        cdef int event
        while True:
            if self.state == S_STREAM and self.remaining == 0:
                self.state = S_LINE
            elif self.state == S_SKIP and self.remaining == 0:
                self.state = S_DISCARD
                self.skipped = 0
            if self.pending is None or self.state == S_ASK:
                return E_NEED_MORE
            if self.state == S_LINE or self.state == S_RAW or self.state == S_DISCARD:
                event = self._line()
            else:
                event = self._octets()
            self._done()
            if event >= 0:
                return event

    cdef int _octets(self) except -2:
        """Literal octets; -1: no event yet."""
        cdef Py_ssize_t left = PyBytes_GET_SIZE(self.pending) - self.position
        cdef Py_ssize_t take = left if <uint64_t>left < self.remaining else <Py_ssize_t>self.remaining
        cdef Py_ssize_t begin = self.position
        self.position += take
        self.remaining -= <uint64_t>take
        if self.state == S_STREAM:
            self.data = memoryview(self.pending)[begin:begin + take]
            return E_DATA
        if self.state == S_LITERAL:
            self._add(PyBytes_AS_STRING(self.pending) + begin, take)
            if self.remaining == 0:
                self.state = S_LINE
        return -1

    cdef int _line(self) except -2:
        """A line, or a part of one; -1: no event yet."""
        cdef const char* base = PyBytes_AS_STRING(self.pending) + self.position
        cdef Py_ssize_t left = PyBytes_GET_SIZE(self.pending) - self.position
        cdef const char* newline = <const char*>memchr(base, c'\n', left)
        cdef Py_ssize_t n = left if newline == NULL else newline - base
        cdef int kind
        if self.state == S_DISCARD:
            return self._discard(base, left, newline)
        if self.used + n > self.command_bytes and self.used + n > self._bound(base, n):
            # The limit is checked before anything is kept; the tag of what was kept names the refused command.
            self.command = self._head(base, n)
            self._release()
            self.behind_stream = False
            self.state = S_DISCARD
            self.skipped = 0
            return E_LINE_TOO_LONG
        self.position += n
        if newline == NULL:
            self._add(base, n)
            return -1
        self.position += 1
        if self.used == 0:
            if n and base[n - 1] == c'\r':
                n -= 1
            if self.state == S_RAW or not (n and base[n - 1] == c'}'):
                return self._whole(PyBytes_FromStringAndSize(base, n))
        self._add(base, n)
        # A CR that belongs to a literal's octets is the literal's own.
        if self.used > self.literal_stop and self.buffer[self.used - 1] == c'\r':
            self.used -= 1
        if self.state != S_RAW:
            kind = self._announced(self.buffer, self.used)
            if kind:
                return self._literal(kind)
        cdef bytes command = PyBytes_FromStringAndSize(self.buffer, self.used)
        self._release()
        return self._whole(command)

    cdef int _whole(self, bytes command):
        self.command = command
        if self.state == S_RAW:
            self.state = S_LINE
            return E_LINE
        if self.behind_stream:
            self.behind_stream = False
            return E_APPEND_END
        return E_COMMAND

    cdef Py_ssize_t _bound(self, const char* base, Py_ssize_t n):
        """command_bytes, or id_bytes where the command is ID, which may be long before login too (RFC 2971 §3.3)."""
        if self.state == S_LINE and not self.behind_stream and self._head(base, n).upper().split(b" ", 2)[1:2] == [b"ID"]:
            return max(self.command_bytes, self.id_bytes)
        return self.command_bytes

    cdef bytes _head(self, const char* base, Py_ssize_t n):
        """The first octets of a command that is too long: enough for its tag."""
        if self.used:
            return PyBytes_FromStringAndSize(self.buffer, min(self.used, 128))
        return PyBytes_FromStringAndSize(base, min(n, 128))

    cdef int _discard(self, const char* base, Py_ssize_t left, const char* newline) except -2:
        """Drops up to the end of a refused command. A "{n+}" inside it is dropped too; its tail is kept to see that."""
        cdef Py_ssize_t n = left if newline == NULL else newline - base
        cdef Py_ssize_t keep = min(n, 16)
        cdef int kind
        self.position += n + (newline != NULL)
        if keep < 16 and self.used:
            if self.used + keep > 64:
                memcpy(self.buffer, self.buffer + self.used - 16, 16)
                self.used = 16
        else:
            self.used = 0
        self._add(base + n - keep, keep)
        self.skipped += n
        if self.skipped > self.line_bytes:
            self.command = b""
            return E_FATAL
        if newline == NULL:
            return -1
        if self.used and self.buffer[self.used - 1] == c'\r':
            self.used -= 1
        kind = self._announced(self.buffer, self.used)
        self._release()
        if kind == 2:
            if self.literal_size > self.skip_bytes:
                return E_FATAL
            self.remaining = self.literal_size
            self.state = S_SKIP
        elif kind == 3 and not self.literal_sync:
            return E_FATAL
        else:
            self.state = S_LINE
        return -1

    cdef int _announced(self, const char* line, Py_ssize_t n) noexcept:
        """0: no literal at the line's end; 1: "{n}"; 2: "{n+}"; 3: a number over 32 bits. Sets literal_size, literal_sync."""
        cdef Py_ssize_t i = n - 1
        cdef uint64_t value = 0
        cdef Py_ssize_t first
        cdef bint huge
        if n < 3 or line[i] != c'}':
            return 0
        i -= 1
        self.literal_sync = line[i] != c'+'
        if not self.literal_sync:
            i -= 1
        first = i
        while i >= 0 and c'0' <= line[i] <= c'9':
            i -= 1
        if i < 0 or i == first or line[i] != c'{':
            return 0
        huge = first - i > MAX_LITERAL_DIGITS
        self.literal_size = 0xFFFFFFFF
        if not huge:
            for first in range(i + 1, first + 1):
                value = value * 10 + <uint64_t>(line[first] - c'0')
            huge = value > 0xFFFFFFFF
            self.literal_size = value
        if huge:
            return 3
        return 1 if self.literal_sync else 2

    cdef bint _is_upload(self) noexcept:
        """Whether the command's literals may be messages: APPEND, REPLACE, UID REPLACE, and more of them behind one."""
        cdef Py_ssize_t i = 0
        if self.behind_stream:
            return True
        while i < self.used and self.buffer[i] != c' ':
            i += 1
        i += 1
        if self._stands(i, b"UID ", 4):
            return self._stands(i + 4, b"REPLACE ", 8)
        return self._stands(i, b"APPEND ", 7) or self._stands(i, b"REPLACE ", 8)

    cdef bint _stands(self, Py_ssize_t at, const char* word, Py_ssize_t n) noexcept:
        """Whether letters stand in the buffer, in any case, and a space behind them; `word` has n octets, the space too."""
        cdef Py_ssize_t k
        if at + n > self.used:
            return False
        for k in range(n - 1):
            if self.buffer[at + k] & 0xDF != word[k]:
                return False
        return self.buffer[at + n - 1] == c' '

    cdef int _literal(self, int kind) except -2:
        if kind != 3 and self._is_upload():
            self.command = PyBytes_FromStringAndSize(self.buffer, self.used)
            self.state = S_ASK
            return E_APPEND
        return self._argument(kind)

    cdef int _argument(self, int kind) except -2:
        if kind == 3 or self.literal_size > <uint64_t>self.literal_bytes or (
            <uint64_t>self.used + self.literal_size + 2 > <uint64_t>self.command_bytes
            and <uint64_t>self.used + self.literal_size + 2 > <uint64_t>self._bound(self.buffer, 0)
        ):
            self.command = PyBytes_FromStringAndSize(self.buffer, min(self.used, 128))
            self._release()
            if not self.literal_sync and (kind == 3 or self.literal_size > self.skip_bytes):
                return E_FATAL
            self._refused()
            return E_LITERAL_TOO_BIG
        self._add(b"\r\n", 2)
        self.remaining = self.literal_size
        self.literal_stop = self.used + <Py_ssize_t>self.literal_size
        self.state = S_LITERAL if self.remaining else S_LINE
        return E_LITERAL if kind == 1 else -1
