# Lists of tag=value pairs, as DKIM signatures, key records and ARC sets have them (RFC 6376 §3.2).

cdef inline bint is_any_space(char c) noexcept nogil:
    return c == c' ' or c'\t' <= c <= c'\r'


cdef inline bint is_letter(char c) noexcept nogil:
    return c'a' <= (c | 32) <= c'z'


@cython.boundscheck(False)  # reads p[i] for i < n, and i + 1 and i + 2 after a test; writes no more octets than it reads
cdef Py_ssize_t unfold(const char* p, Py_ssize_t n, char* out) noexcept nogil:
    # Each CRLF in front of a blank goes.
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t size = 0
    while i < n:
        if p[i] == c'\r' and i + 2 < n and p[i + 1] == c'\n' and is_blank(p[i + 2]):
            i += 2
        out[size] = p[i]
        size += 1
        i += 1
    return size


@cython.boundscheck(False)  # `at` and `end` stay within 0..n, and every octet that is read is below `end`
cdef dict tags_of(const char* p, Py_ssize_t n):
    cdef dict tags = {}
    cdef bytes flat
    cdef const char* found
    cdef Py_ssize_t begin = 0
    cdef Py_ssize_t at, end, name_end, count
    cdef str name
    if n > MOST_LIST:
        raise TagError("the list is too long")
    if memchr(p, c'\r', n) != NULL:
        flat = PyBytes_FromStringAndSize(NULL, n)
        n = unfold(p, n, PyBytes_AS_STRING(flat))
        p = PyBytes_AS_STRING(flat)
    while n and is_space(p[n - 1]):
        n -= 1
    while begin < n and is_space(p[begin]):
        begin += 1
    count = 1
    at = begin
    while at < n:
        found = <const char*>memchr(p + at, c';', n - at)
        if found == NULL:
            break
        count += 1
        at = found - p + 1
    # One semicolon may end the list; what follows the last one is `at`..`n`, and white space there ends it too.
    while at < n and is_any_space(p[at]):
        at += 1
    if at == n:
        count -= 1
    if count > MOST_TAGS:
        raise TagError("the list has too many tags")
    at = begin
    for _ in range(count):
        found = <const char*>memchr(p + at, c';', n - at)
        end = n if found == NULL else found - p
        while at < end and is_any_space(p[at]):
            at += 1
        begin = at
        if at == end or not is_letter(p[at]):
            raise TagError("a part is no tag=value")
        while at < end and (is_letter(p[at]) or c'0' <= p[at] <= c'9' or p[at] == c'_'):
            at += 1
        name_end = at
        while at < end and is_any_space(p[at]):
            at += 1
        if at == end or p[at] != c'=':
            raise TagError("a part is no tag=value")
        name = PyUnicode_DecodeASCII(p + begin, name_end - begin, NULL)
        if name in tags:
            raise TagError(f"the tag {name}= stands twice")
        at += 1
        name_end = end
        while at < end and is_space(p[at]):
            at += 1
        while name_end > at and is_space(p[name_end - 1]):
            name_end -= 1
        tags[name] = PyBytes_FromStringAndSize(p + at, name_end - at)
        at = end + 1 if end < n else n
    return tags


def parse_tags(bytes raw not None):
    """The pairs in their order, values without white space around them. A tag that stands twice is an error."""
    return tags_of(PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw))


@cython.boundscheck(False)  # `i` < `n`; `size` <= `i`
def without_spaces(bytes value not None):
    """A value in which folding white space means nothing."""
    cdef const char* p = PyBytes_AS_STRING(value)
    cdef Py_ssize_t n = PyBytes_GET_SIZE(value)
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t size
    cdef bytes made
    cdef char* out
    while i < n and not is_space(p[i]):
        i += 1
    if i == n:
        return value
    made = PyBytes_FromStringAndSize(NULL, n)
    out = PyBytes_AS_STRING(made)
    memcpy(out, p, i)
    size = i
    while i < n:
        if not is_space(p[i]):
            out[size] = p[i]
            size += 1
        i += 1
    return PyBytes_FromStringAndSize(out, size)
