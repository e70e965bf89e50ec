# Response encoding, LIST patterns, and the masks of SEARCH.


cpdef bytes quoted(bytes text):
    """A string of a response: quoted where it may be (RFC 3501 §9 quoted), else a literal."""
    cdef Py_ssize_t n = PyBytes_GET_SIZE(text)
    cdef const char* p = PyBytes_AS_STRING(text)
    cdef Py_ssize_t i
    cdef bint plain = True
    if n > 1024:
        return b"{%d}\r\n%b" % (n, text)
    for i in range(n):
        if not CLASS[<uint8_t>p[i]] & QUOTABLE:
            if p[i] != c'"' and p[i] != c'\\':
                return b"{%d}\r\n%b" % (n, text)
            plain = False
    if not plain:
        text = text.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'"%b"' % text


cpdef bytes astring(bytes text):
    """A mailbox name of a response: an atom where it may be, else quoted() (RFC 3501 §9 astring)."""
    cdef Py_ssize_t n = PyBytes_GET_SIZE(text)
    cdef const char* p = PyBytes_AS_STRING(text)
    cdef Py_ssize_t i
    for i in range(n):
        if not CLASS[<uint8_t>p[i]] & ASTRING:
            return quoted(text)
    if n == 0 or text.upper() == b"NIL":
        return quoted(text)
    return text


cpdef bint list_match(str pattern, str name):
    """Whether a LIST pattern matches: "*" any characters, "%" any but "/" (RFC 3501 §6.3.8). O(len(pattern) * len(name))."""
    cdef Py_ssize_t n = len(name)
    cdef Py_ssize_t i
    cdef bint diagonal, before
    cdef Py_UCS4 c
    cdef Py_ssize_t plain = 0
    for c in pattern:
        plain += c != u'*' and c != u'%'
    if plain > n:
        return False  # each takes a character of the name: a pattern of any length costs the name's square at most
    # row[i]: the pattern so far matches the first i characters of the name
    cdef uint8_t* row = <uint8_t*>malloc(n + 1)
    if row == NULL:
        raise MemoryError
    try:
        row[0] = 1
        for i in range(1, n + 1):
            row[i] = 0
        for c in pattern:
            if c == u'*' or c == u'%':
                for i in range(1, n + 1):
                    if row[i - 1] and (c == u'*' or name[i - 1] != u'/'):
                        row[i] = 1
            else:
                diagonal = row[0]
                row[0] = 0
                for i in range(1, n + 1):
                    before = row[i]
                    row[i] = diagonal and name[i - 1] == c
                    diagonal = before
        return row[n]
    finally:
        free(row)


# A mask is a bytes object of one octet a message, 0 or 1, in the order of the arrays it was made from.

def mask_flags(array.array flags, uint32_t wanted, uint32_t unwanted) -> bytes:
    """Messages that have all of `wanted` and none of `unwanted`."""
    cdef Py_ssize_t n = len(flags)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, n)
    cdef uint8_t* o = <uint8_t*>PyBytes_AS_STRING(out)
    cdef uint32_t* f = <uint32_t*>flags.data.as_voidptr
    cdef Py_ssize_t i
    for i in range(n):
        o[i] = (f[i] & wanted) == wanted and (f[i] & unwanted) == 0
    return out


def mask_between(array.array numbers, int64_t low, int64_t high) -> bytes:
    """Messages whose number lies in low..high, both included."""
    cdef Py_ssize_t n = len(numbers)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, n)
    cdef uint8_t* o = <uint8_t*>PyBytes_AS_STRING(out)
    cdef uint32_t* v = <uint32_t*>numbers.data.as_voidptr
    cdef Py_ssize_t i
    for i in range(n):
        o[i] = low <= v[i] <= high
    return out


def mask_members(array.array numbers, array.array members) -> bytes:
    """Messages whose number is in `members`; both ascend."""
    cdef Py_ssize_t n = len(numbers)
    cdef Py_ssize_t m = len(members)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, n)
    cdef uint8_t* o = <uint8_t*>PyBytes_AS_STRING(out)
    cdef uint32_t* v = <uint32_t*>numbers.data.as_voidptr
    cdef uint32_t* w = <uint32_t*>members.data.as_voidptr
    cdef Py_ssize_t i
    cdef Py_ssize_t k = 0
    for i in range(n):
        while k < m and w[k] < v[i]:
            k += 1
        o[i] = k < m and w[k] == v[i]
    return out


def mask_combine(bytes a, bytes b, int operation) -> bytes:
    """operation 0: a and b; 1: a or b; 2: a without b. Both of one length."""
    cdef Py_ssize_t n = min(PyBytes_GET_SIZE(a), PyBytes_GET_SIZE(b))
    cdef bytes out = PyBytes_FromStringAndSize(NULL, n)
    cdef uint8_t* o = <uint8_t*>PyBytes_AS_STRING(out)
    cdef const uint8_t* x = <const uint8_t*>PyBytes_AS_STRING(a)
    cdef const uint8_t* y = <const uint8_t*>PyBytes_AS_STRING(b)
    cdef Py_ssize_t i
    if operation == 0:
        for i in range(n):
            o[i] = x[i] & y[i]
    elif operation == 1:
        for i in range(n):
            o[i] = x[i] | y[i]
    else:
        for i in range(n):
            o[i] = x[i] & (1 - y[i])
    return out


def mask_select(bytes mask, array.array numbers) -> array.array:
    """The numbers whose mask is set."""
    cdef array.array out = array.clone(U32, 0, False)
    cdef Py_ssize_t n = min(PyBytes_GET_SIZE(mask), <Py_ssize_t>len(numbers))
    cdef const uint8_t* m = <const uint8_t*>PyBytes_AS_STRING(mask)
    cdef uint32_t* v = <uint32_t*>numbers.data.as_voidptr
    cdef uint32_t* o
    cdef Py_ssize_t i
    cdef Py_ssize_t k = 0
    array.resize(out, n)
    o = <uint32_t*>out.data.as_voidptr
    for i in range(n):
        if m[i]:
            o[k] = v[i]
            k += 1
    array.resize(out, k)
    return out


def numbers_line(array.array numbers) -> bytes:
    """b" 2 84 882": the numbers of a SEARCH response, each with a space before it."""
    cdef Py_ssize_t n = len(numbers)
    cdef uint32_t* v = <uint32_t*>numbers.data.as_voidptr
    cdef bytes out = PyBytes_FromStringAndSize(NULL, n * 11)
    cdef char* o = PyBytes_AS_STRING(out)
    cdef Py_ssize_t i
    cdef Py_ssize_t k = 0
    cdef char digits[10]
    cdef int d
    cdef uint32_t value
    for i in range(n):
        o[k] = c' '
        k += 1
        value = v[i]
        d = 0
        while True:
            digits[d] = <char>(c'0' + value % 10)
            value //= 10
            d += 1
            if value == 0:
                break
        while d:
            d -= 1
            o[k] = digits[d]
            k += 1
    return out[:k]


cpdef Py_ssize_t first_without(array.array flags, uint32_t bit):
    """The index of the first message that lacks a flag, or -1 (UNSEEN, RFC 3501 §6.3.1)."""
    cdef uint32_t* f = <uint32_t*>flags.data.as_voidptr
    cdef Py_ssize_t i
    for i in range(len(flags)):
        if not f[i] & bit:
            return i
    return -1
