# The cursor: one whole command's bytes, read argument by argument by the grammar of RFC 3501 §9.


cdef class Cursor:
    """Reads one command. Every method either consumes what it names or raises BadSyntax; offsets only, no token objects."""

    cdef bytes owner
    cdef const char* text
    cdef Py_ssize_t position
    cdef Py_ssize_t size
    cdef int depth
    cdef int max_depth

    def __cinit__(self, bytes command, int max_depth=32):
        self.owner = command
        self.text = PyBytes_AS_STRING(command)
        self.size = PyBytes_GET_SIZE(command)
        self.position = 0
        self.depth = 0
        self.max_depth = max_depth

    cdef inline int _peek(self) noexcept:
        return <uint8_t>self.text[self.position] if self.position < self.size else -1

    cdef bytes _span(self, int wanted, str what):
        # position stays below size, which is the length of the owned bytes
        cdef Py_ssize_t begin = self.position
        cdef Py_ssize_t i = begin
        while i < self.size and CLASS[<uint8_t>self.text[i]] & wanted:
            i += 1
        if i == begin:
            raise BadSyntax(f"{what} expected")
        self.position = i
        return PyBytes_FromStringAndSize(self.text + begin, i - begin)

    cpdef bytes tag(self):
        return self._span(TAG, "Tag")

    cpdef bytes atom(self):
        """An atom in upper case: command names, items, search keys."""
        return self._span(ATOM, "Atom").upper()

    cpdef bytes raw_atom(self):
        """An atom as it stands."""
        return self._span(ATOM, "Atom")

    cpdef bytes word(self):
        """Letters, digits, "." and "-", in upper case: the name of a FETCH item or of a section's part."""
        return self._span(WORD, "Name").upper()

    cdef inline Py_ssize_t _behind_spaces(self) noexcept:
        """Where the spaces here end: clients send two of them at times, and Dovecot takes them."""
        cdef Py_ssize_t i = self.position
        while i < self.size and self.text[i] == 0x20:
            i += 1
        return i

    cpdef int sp(self) except -1:
        if self._peek() != 0x20:
            raise BadSyntax("Space expected" if self.position < self.size else "Missing argument")
        self.position = self._behind_spaces()
        return 0

    cpdef bint try_sp(self):
        """Consumes spaces if they are there and something follows them."""
        cdef Py_ssize_t behind = self._behind_spaces()
        if self.position < behind < self.size:
            self.position = behind
            return True
        return False

    cpdef bint at(self, int character):
        """Whether the next octet is this one; consumes nothing."""
        return self._peek() == character

    cpdef bint take(self, int character):
        """Consumes the next octet if it is this one."""
        if self._peek() == character:
            self.position += 1
            return True
        return False

    cpdef bint take_text(self, bytes text):
        """Consumes these octets, in upper case, if they stand here in any case."""
        cdef Py_ssize_t n = PyBytes_GET_SIZE(text)
        if n > self.size - self.position or self.owner[self.position:self.position + n].upper() != text:
            return False
        self.position += n
        return True

    cpdef int open(self) except -1:
        """An opening parenthesis; nesting is bounded."""
        if not self.take(c'('):
            raise BadSyntax("Parenthesis expected")
        self.depth += 1
        if self.depth > self.max_depth:
            raise BadSyntax("Too many nested parentheses")
        return 0

    cpdef bint try_open(self):
        if self._peek() != c'(':
            return False
        self.open()
        return True

    cpdef bint try_close(self):
        if self._peek() == c')' and self.depth > 0:
            self.position += 1
            self.depth -= 1
            return True
        return False

    cpdef int close(self) except -1:
        if not self.try_close():
            raise BadSyntax("Closing parenthesis expected")
        return 0

    cpdef int end(self) except -1:
        """The command ends here; spaces before its end are forgiven."""
        while self.position < self.size and self.text[self.position] == c' ':
            self.position += 1
        if self.position < self.size:
            raise BadSyntax("Unexpected extra argument")
        return 0

    cpdef bint at_end(self):
        return self.position >= self.size

    cpdef bytes rest(self):
        """All that is left, unparsed."""
        cdef bytes out = PyBytes_FromStringAndSize(self.text + self.position, self.size - self.position)
        self.position = self.size
        return out

    cpdef bint at_string(self):
        cdef int c = self._peek()
        return c == c'"' or c == c'{'

    cpdef bint announcement(self) except -1:
        """Consumes "{n}" or "{n+}", with "~" before it for a literal8, of a literal that has not come yet: the end of
        what there is of the command. False where none begins here.
        """
        cdef Py_ssize_t begin = self.position
        self.take(c'~')
        if self.at_announced():
            self.position = self.size
            return True
        if self._peek() == c'{':
            raise BadSyntax("Literal expected")
        self.position = begin
        return False

    cpdef bint at_announced(self):
        """Whether "{n}" or "{n+}" stands here at the command's end: the announcement of a literal that has not come yet."""
        cdef Py_ssize_t i = self.position + 1
        if self._peek() != c'{' or i >= self.size or not CLASS[<uint8_t>self.text[i]] & DIGIT:
            return False
        while i < self.size and CLASS[<uint8_t>self.text[i]] & DIGIT:
            i += 1
        if i < self.size and self.text[i] == c'+':
            i += 1
        return i + 1 == self.size and self.text[i] == c'}'

    cpdef bytes string(self):
        """A quoted string or a literal."""
        cdef int c = self._peek()
        if c == c'"':
            return self._quoted()
        if c == c'{':
            return self._literal()
        raise BadSyntax("String expected")

    cpdef bytes astring(self):
        if self.at_string():
            return self.string()
        return self._span(ASTRING, "String")

    cpdef bytes list_mailbox(self):
        if self.at_string():
            return self.string()
        return self._span(LIST, "Mailbox pattern")

    cpdef object nstring(self):
        """A string, or None for NIL."""
        if self.at_string():
            return self.string()
        if self.atom() != b"NIL":
            raise BadSyntax("String or NIL expected")
        return None

    cdef bytes _quoted(self):
        cdef Py_ssize_t begin = self.position + 1
        cdef Py_ssize_t i = begin
        cdef bint escaped = False
        cdef uint8_t c
        while i < self.size:
            c = <uint8_t>self.text[i]
            if c == c'"':
                break
            if c == c'\\':
                i += 1
                escaped = True
                if i >= self.size or (self.text[i] != c'"' and self.text[i] != c'\\'):
                    raise BadSyntax("Only \\\" and \\\\ may be escaped in a quoted string")
            elif c == 0 or c == c'\r' or c == c'\n':
                raise BadSyntax("Control character in a quoted string")
            i += 1
        if i >= self.size:
            raise BadSyntax("Missing '\"'")
        self.position = i + 1
        cdef bytes out = PyBytes_FromStringAndSize(self.text + begin, i - begin)
        if escaped:
            # Every backslash here is followed by a quote or a backslash, so pairs can be undone one by one.
            out = _unescape(out)
        return out

    cdef bytes _literal(self):
        cdef Py_ssize_t i = self.position + 1
        cdef Py_ssize_t n = 0
        cdef Py_ssize_t digits = 0
        while i < self.size and CLASS[<uint8_t>self.text[i]] & DIGIT and digits < 10:
            n = n * 10 + (self.text[i] - c'0')
            i += 1
            digits += 1
        if i < self.size and self.text[i] == c'+':
            i += 1
        if digits == 0 or i + 3 > self.size or memcmp(self.text + i, b"}\r\n", 3) != 0 or n > self.size - i - 3:
            raise BadSyntax("Literal expected")
        i += 3
        if n and memchr(self.text + i, 0, n) != NULL:
            raise BadSyntax("NUL in a literal")
        self.position = i + n
        return PyBytes_FromStringAndSize(self.text + i, n)

    cpdef unsigned int number(self) except? 0xFFFFFFFF:
        """A 32-bit number (RFC 3501 §9 number)."""
        cdef uint64_t value = 0
        cdef Py_ssize_t begin = self.position
        while self.position < self.size and CLASS[<uint8_t>self.text[self.position]] & DIGIT:
            value = value * 10 + <uint64_t>(self.text[self.position] - c'0')
            if value > 0xFFFFFFFF:
                raise BadSyntax("Number too large")
            self.position += 1
        if self.position == begin:
            raise BadSyntax("Number expected")
        return <unsigned int>value

    cpdef object modseq(self):
        """A mod-sequence: a number of 63 bits, 0 included (RFC 7162 §7 mod-sequence-valzer)."""
        cdef uint64_t value = 0
        cdef Py_ssize_t begin = self.position
        while self.position < self.size and CLASS[<uint8_t>self.text[self.position]] & DIGIT:
            if self.position - begin >= 19:  # nineteen digits are below 2^64, so nothing overflows before the test
                raise BadSyntax("Number too large")
            value = value * 10 + <uint64_t>(self.text[self.position] - c'0')
            self.position += 1
        if self.position == begin:
            raise BadSyntax("Number expected")
        if value > 0x7FFFFFFFFFFFFFFF:
            raise BadSyntax("Number too large")
        return value

    cpdef bint at_set(self):
        """Whether a sequence set begins here: a digit or "*"."""
        cdef int c = self._peek()
        return c >= 0 and (CLASS[c] & DIGIT or c == c'*')

    cpdef array.array sequence_set(self):
        """Pairs low, high as array('I'); 0 stands for "*". RFC 3501 §9 sequence-set."""
        cdef array.array out = array.clone(U32, 0, False)
        cdef uint32_t pair[2]
        while True:
            pair[0] = self._seq_number()
            pair[1] = pair[0]
            if self.take(c':'):
                pair[1] = self._seq_number()
            array.extend_buffer(out, <char*>pair, 2)
            if not self.take(c','):
                break
        return out

    cdef unsigned int _seq_number(self) except? 0xFFFFFFFF:
        cdef unsigned int value
        if self.take(c'*'):
            return 0
        value = self.number()
        if value == 0:
            raise BadSyntax("Message numbers begin with 1")
        return value

    cpdef bytes flag(self):
        """One flag or keyword, as it stands; a leading backslash is kept."""
        if self.take(c'\\'):
            return b"\\" + self._span(ATOM, "Flag")
        return self._span(ATOM, "Flag")

    cpdef list flag_list(self):
        """A parenthesized flag list, perhaps empty."""
        cdef list out = []
        self.open()
        if self.try_close():
            return out
        while True:
            out.append(self.flag())
            if self.try_close():
                return out
            self.sp()


cdef bytes _unescape(bytes text):
    cdef Py_ssize_t n = PyBytes_GET_SIZE(text)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, n)
    cdef const char* source = PyBytes_AS_STRING(text)
    cdef char* target = PyBytes_AS_STRING(out)
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t k = 0
    while i < n:
        if source[i] == c'\\' and i + 1 < n:
            i += 1
        target[k] = source[i]
        i += 1
        k += 1
    return out[:k]
