# Growable C buffers, and the strings of IMAP written into them.

cdef bint reserve(Buffer* buffer, Py_ssize_t more) noexcept nogil:
    """Room for `more` bytes behind the content; False (and `failed` set) when memory is out."""
    cdef Py_ssize_t capacity = buffer.capacity
    cdef char* data
    if capacity - buffer.size >= more:
        return True
    if buffer.failed:
        return False
    if capacity == 0:
        capacity = 512
    while capacity - buffer.size < more:
        capacity *= 2
    data = <char*>realloc(buffer.data, capacity)
    if data == NULL:
        buffer.failed = True
        return False
    buffer.data = data
    buffer.capacity = capacity
    return True


cdef void put(Buffer* buffer, const char* data, Py_ssize_t length) noexcept nogil:
    if length > 0 and reserve(buffer, length):
        memcpy(buffer.data + buffer.size, data, length)
        buffer.size += length


cdef void put_char(Buffer* buffer, char character) noexcept nogil:
    if reserve(buffer, 1):
        buffer.data[buffer.size] = character
        buffer.size += 1


cdef void put_number(Buffer* buffer, uint64_t value) noexcept nogil:
    cdef char digits[20]
    cdef int i = 20
    while True:
        i -= 1
        digits[i] = <char>(48 + value % 10)
        value //= 10
        if value == 0:
            break
    put(buffer, digits + i, 20 - i)


cdef void put_again(Buffer* buffer, Py_ssize_t start, Py_ssize_t length) noexcept nogil:
    """Repeats a run of the buffer's own content."""
    if length > 0 and reserve(buffer, length):
        memcpy(buffer.data + buffer.size, buffer.data + start, length)
        buffer.size += length


cdef void release(Buffer* buffer) noexcept nogil:
    free(buffer.data)
    memset(buffer, 0, sizeof(Buffer))


cdef void put_string(Buffer* buffer, const char* data, Py_ssize_t length) noexcept nogil:
    """An IMAP `string` (RFC 3501 §9): quoted where every byte is a TEXT-CHAR, else a literal.

    CR and LF are left out, so that no header can inject a line into a response; NUL, which even a literal may not carry, becomes "?".
    """
    cdef Py_ssize_t i, start, kept = 0
    cdef bint quoted = True
    cdef char* out
    cdef uint8_t c
    for i in range(length):
        c = <uint8_t>data[i]
        if c >= 0x7F or (c < 0x20 and c != 9 and c != 10 and c != 13):
            quoted = False
        if c != 10 and c != 13:
            kept += 1
    if not quoted:
        put_char(buffer, b"{")
        put_number(buffer, kept)
        put(buffer, b"}\r\n", 3)
    if not reserve(buffer, 2 * length + 2):
        return
    start = buffer.size
    out = buffer.data + start
    if quoted:
        out[0] = b'"'
        out += 1
    for i in range(length):
        c = <uint8_t>data[i]
        if c == 10 or c == 13:
            continue
        if quoted and (c == c'"' or c == c"\\"):
            out[0] = b"\\"
            out += 1
        out[0] = <char>(c if c else 63)
        out += 1
    if quoted:
        out[0] = b'"'
        out += 1
    buffer.size = out - buffer.data


cdef void put_nil(Buffer* buffer) noexcept nogil:
    put(buffer, b"NIL", 3)
