# The fields of a header section.

cdef inline bint is_blank(char c) noexcept nogil:
    return c == c' ' or c == c'\t'


cdef inline bint is_space(char c) noexcept nogil:
    # Folding white space as tag lists have it.
    return c == c' ' or c == c'\t' or c == c'\r' or c == c'\n'


@cython.final
@cython.freelist(64)
cdef class Field:
    """One header field: its name in lower case, and all its octets with folds and the final CRLF."""

    cdef readonly bytes name
    cdef readonly bytes raw
    cdef object known  # the tags, or why there are none, once somebody has asked

    def __init__(self, bytes name not None, bytes raw not None):
        self.name = name
        self.raw = raw

    @property
    def value(self):
        """What follows the colon, folded as it came."""
        cdef Py_ssize_t at = value_of(self.raw)
        return PyBytes_FromStringAndSize(PyBytes_AS_STRING(self.raw) + at, PyBytes_GET_SIZE(self.raw) - at)

    @property
    def tags(self):
        """The value as a tag list, read once; nobody changes it. Raises TagError."""
        cdef Py_ssize_t at
        if self.known is None:
            at = value_of(self.raw)
            try:
                self.known = tags_of(PyBytes_AS_STRING(self.raw) + at, PyBytes_GET_SIZE(self.raw) - at)
            except TagError as error:
                self.known = str(error)
        if isinstance(self.known, dict):
            return self.known
        raise TagError(self.known)

    def __eq__(self, other):
        if not isinstance(other, Field):
            return NotImplemented
        return self.name == (<Field>other).name and self.raw == (<Field>other).raw

    def __hash__(self):
        return hash((self.name, self.raw))

    def __repr__(self):
        return f"Field({self.name!r}, {self.raw!r})"


cdef Py_ssize_t value_of(bytes raw) noexcept:
    # Where what follows the colon begins; its end where there is none.
    cdef const char* p = PyBytes_AS_STRING(raw)
    cdef const char* colon = <const char*>memchr(p, c':', PyBytes_GET_SIZE(raw))
    return PyBytes_GET_SIZE(raw) if colon == NULL else colon - p + 1


@cython.boundscheck(False)  # `i` stays below `n`, and the name that is made has as many octets as were looked at
cdef Field field_of(const char* p, Py_ssize_t n):
    # Visible characters, then blanks, then the colon; else what stands there is no field and has no name.
    cdef Field made = Field.__new__(Field)
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t length
    cdef char* name
    made.raw = PyBytes_FromStringAndSize(p, n)
    while i < n and c'!' <= p[i] <= c'~' and p[i] != c':':
        i += 1
    length = i
    while i < n and is_blank(p[i]):
        i += 1
    if length == 0 or i == n or p[i] != c':':
        made.name = b""
        return made
    made.name = PyBytes_FromStringAndSize(NULL, length)
    name = PyBytes_AS_STRING(made.name)
    for i in range(length):
        name[i] = p[i] + 32 if c'A' <= p[i] <= c'Z' else p[i]
    return made


@cython.boundscheck(False)  # `at` < `n` wherever it is looked at; one further only after a test against `n`
def parse_fields(bytes header not None):
    """The fields of a header section, top down (RFC 5322 §2.2). Raises HeaderTooLong."""
    cdef const char* p = PyBytes_AS_STRING(header)
    cdef Py_ssize_t n = PyBytes_GET_SIZE(header)
    cdef Py_ssize_t begin = 0
    cdef Py_ssize_t at = 0
    cdef const char* found
    cdef list fields = []
    if n > MOST_HEADER:
        raise HeaderTooLong(f"the header has {n} octets, over {MOST_HEADER}")
    while at < n:
        found = <const char*>memchr(p + at, c'\n', n - at)
        if found == NULL:
            break
        at = found - p + 1
        if at - begin < 2 or p[at - 2] != c'\r' or (at < n and is_blank(p[at])):
            continue
        if len(fields) >= MOST_FIELDS:
            raise HeaderTooLong(f"the header has more than {MOST_FIELDS} fields")
        fields.append(field_of(p + begin, at - begin))
        begin = at
    if begin < n:
        fields.append(field_of(p + begin, n - begin))
    return tuple(fields)


def with_names(fields, frozenset names not None):
    """The fields of those names, top down."""
    cdef Field field
    cdef list found = []
    for field in fields:
        if field.name in names:
            found.append(field)
    return found


def with_name(fields, bytes name not None):
    """The fields of that name, top down."""
    cdef Field field
    cdef list found = []
    for field in fields:
        if field.name == name:
            found.append(field)
    return found
