# Canonical forms of header fields (RFC 6376 §3.4.1, §3.4.2), and what of a header a signature covers.

@cython.boundscheck(False)  # reads below `n` only; writes at most as many octets as it reads
cdef Py_ssize_t relax(const char* p, Py_ssize_t n, char* out) noexcept nogil:
    # A value unfolded, each run of blanks one space, none at its ends.
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t size = 0
    cdef bint blank = False
    cdef const char* stops = &STOPS_RELAXED[0]
    while n and (p[n - 1] == c'\r' or p[n - 1] == c'\n'):
        n -= 1
    while i < n:
        if is_blank(p[i]):
            blank = True
        elif p[i] == c'\r' and i + 2 < n and p[i + 1] == c'\n' and is_blank(p[i + 2]):
            blank = True
            i += 2
        else:
            if blank and size:
                out[size] = c' '
                size += 1
            blank = False
            out[size] = p[i]  # a CR that ends no line is one too
            size += 1
            i += 1
            while i < n and not stops[<unsigned char>p[i]]:
                out[size] = p[i]
                size += 1
                i += 1
            continue
        i += 1
    return size


cdef Py_ssize_t room_of(Field field) except -1:
    # No form of the field is longer.
    return PyBytes_GET_SIZE(field.name) + PyBytes_GET_SIZE(field.raw) + 3


cdef Py_ssize_t put_relaxed(Field field, const char* value, Py_ssize_t n, char* out) noexcept:
    # `value` may be shorter than the field's own. Writes room_of(field) octets at most.
    cdef Py_ssize_t size = PyBytes_GET_SIZE(field.name)
    memcpy(out, PyBytes_AS_STRING(field.name), size)
    out[size] = c':'
    size += 1
    size += relax(value, n, out + size)
    out[size] = c'\r'
    out[size + 1] = c'\n'
    return size + 2


@cython.boundscheck(False)  # p[n - 2] only where n >= 2
cdef bint ends_line(const char* p, Py_ssize_t n) noexcept nogil:
    return n >= 2 and p[n - 2] == c'\r' and p[n - 1] == c'\n'


cdef Py_ssize_t put_field(Field field, bint relaxed, char* out) noexcept:
    cdef const char* p = PyBytes_AS_STRING(field.raw)
    cdef Py_ssize_t n = PyBytes_GET_SIZE(field.raw)
    cdef Py_ssize_t at
    if relaxed:
        at = value_of(field.raw)
        return put_relaxed(field, p + at, n - at, out)
    memcpy(out, p, n)
    if ends_line(p, n):
        return n
    out[n] = c'\r'
    out[n + 1] = c'\n'
    return n + 2


@cython.boundscheck(False)  # `at` < `n` wherever it is looked at
cdef Py_ssize_t signature_value(const char* p, Py_ssize_t n, Py_ssize_t* end) noexcept nogil:
    # Where the value of b= begins in a tag list, and where it ends; -1 where there is no b=.
    cdef const char* found
    cdef Py_ssize_t at = 0
    while True:
        while at < n and is_space(p[at]):
            at += 1
        if at < n and p[at] == c'b':
            at += 1
            while at < n and is_space(p[at]):
                at += 1
            if at < n and p[at] == c'=':
                at += 1
                found = <const char*>memchr(p + at, c';', n - at)
                end[0] = n if found == NULL else found - p
                return at
        found = <const char*>memchr(p + at, c';', n - at)
        if found == NULL:
            return -1
        at = found - p + 1


@cython.boundscheck(False)  # p[at - 1] only where at > 0
cdef Py_ssize_t put_unsigned(Field own, bint relaxed, char* out) except -1:
    # A signature's field as it stands in its own hash: without the value of b= and without its CRLF. Writes
    # room_of(own) octets at most.
    cdef const char* p = PyBytes_AS_STRING(own.raw)
    cdef Py_ssize_t n = PyBytes_GET_SIZE(own.raw)
    cdef Py_ssize_t at = value_of(own.raw)
    cdef Py_ssize_t end = 0
    cdef Py_ssize_t begin
    cdef Py_ssize_t size
    cdef bytes less
    if at == 0 or p[at - 1] != c':':
        raise ValueError("a signature's field has no colon")
    begin = signature_value(p + at, n - at, &end)
    if begin < 0:
        begin = end = n - at
    less = PyBytes_FromStringAndSize(NULL, n)
    memcpy(PyBytes_AS_STRING(less), p, at + begin)
    memcpy(PyBytes_AS_STRING(less) + at + begin, p + at + end, n - at - end)
    size = n - (end - begin)
    p = PyBytes_AS_STRING(less)
    if relaxed:
        return put_relaxed(own, p + at, size - at, out) - 2
    memcpy(out, p, size)
    return size - 2 if ends_line(p, size) else size


def canonical_field(Field field not None, str form not None):
    """One field with its CRLF, in the form "simple" or "relaxed"."""
    cdef bytes out = PyBytes_FromStringAndSize(NULL, room_of(field))
    cdef Py_ssize_t size = put_field(field, form != "simple", PyBytes_AS_STRING(out))
    return out[:size]


def unsigned_form(Field own not None, str form not None):
    """A signature's field as it stands in its own hash (§3.7)."""
    cdef bytes out = PyBytes_FromStringAndSize(NULL, room_of(own))
    cdef Py_ssize_t size = put_unsigned(own, form != "simple", PyBytes_AS_STRING(out))
    return out[:size]


def signed_fields(fields, names):
    """The fields that a signature's `names` stand for: each name takes the lowest that is not taken yet (§5.4.2)."""
    return taken_fields(fields, [name.lower() for name in names])


cdef list taken_fields(object fields, list wanted):
    cdef dict left = {}
    cdef list taken = []
    cdef bytes name
    cdef Field field
    cdef object those
    for name in wanted:
        if name:
            left[name] = None
    for field in fields:
        if field.name in left:
            those = left[field.name]
            if those is None:
                left[field.name] = [field]
            else:
                (<list>those).append(field)
    for name in wanted:
        those = left.get(name)
        if those:
            taken.append((<list>those).pop())
    return taken


def header_form(fields, names, str form not None, Field own):
    """What a signature over `names` (in lower case) hashes (§3.7): those fields and, last, its own (None: no further)."""
    return joined(taken_fields(fields, list(names)), form, own)


def joined(list fields not None, str form not None, Field own):
    """The canonical forms of fields one after the other, and of a signature's own field without b= and CRLF."""
    cdef Field field
    cdef Py_ssize_t room = 0 if own is None else room_of(own)
    cdef Py_ssize_t size = 0
    cdef bytes out
    cdef bint relaxed = form != "simple"
    for field in fields:
        room += room_of(field)
    out = PyBytes_FromStringAndSize(NULL, room)
    for field in fields:
        size += put_field(field, relaxed, PyBytes_AS_STRING(out) + size)
    if own is not None:
        size += put_unsigned(own, relaxed, PyBytes_AS_STRING(out) + size)
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(out), size)
