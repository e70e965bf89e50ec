# Bytes put together without an object for each piece.

cdef int _reserve(Text* text, Py_ssize_t n) except -1:
    cdef Py_ssize_t capacity
    cdef char* data
    if text.capacity - text.size >= n:
        return 0
    capacity = max(text.capacity * 2, text.size + n, 1024)
    data = <char*>realloc(text.data, capacity)
    if data == NULL:
        raise MemoryError()
    text.data = data
    text.capacity = capacity
    return 0


cdef int _put(Text* text, const char* p, Py_ssize_t n) except -1:
    if n == 0:
        return 0
    _reserve(text, n)
    memcpy(text.data + text.size, p, n)
    text.size += n
    return 0


cdef inline int _put_bytes(Text* text, bytes piece) except -1:
    return _put(text, PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))


cdef int _put_number(Text* text, int64_t value) except -1:
    cdef char digits[24]
    cdef Py_ssize_t i = 24
    cdef bint negative = value < 0
    if negative:
        value = -value
    while True:
        i -= 1
        digits[i] = <char>(48 + value % 10)
        value //= 10
        if value == 0:
            break
    if negative:
        i -= 1
        digits[i] = c'-'
    return _put(text, digits + i, 24 - i)


cdef int _put_digits(Text* text, int64_t value, int n) except -1:
    # The last n digits of a number that is not negative, zeros in front; n <= 8.
    cdef char digits[8]
    cdef int i = n
    while i > 0:
        i -= 1
        digits[i] = <char>(48 + value % 10)
        value //= 10
    return _put(text, digits, n)


cdef int _put_seconds(Text* text, double seconds) except -1:
    # With three digits behind the point.
    cdef int64_t milliseconds = <int64_t>(seconds * 1000 + 0.5) if seconds > 0 else 0
    _put_number(text, milliseconds // 1000)
    _put(text, b".", 1)
    return _put_digits(text, milliseconds, 3)


cdef const char* QUEUE_ID_ALPHABET = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"  # model/ids.py's


cdef int _put_queue_id(Text* text, uint64_t queue_id) except -1:
    # model/ids.queue_id_text, whose text is at least 12 characters; tests hold the two together.
    cdef char digits[16]
    cdef Py_ssize_t i = 16
    while queue_id or i > 4:
        i -= 1
        digits[i] = QUEUE_ID_ALPHABET[queue_id % 52]
        queue_id //= 52
    return _put(text, digits + i, 16 - i)


cdef int _put_json_str(Text* text, str piece) except -1:
    cdef Py_ssize_t n
    cdef const char* p = PyUnicode_AsUTF8AndSize(piece, &n)
    return _put_json(text, p, n)


cdef int _put_json(Text* text, const char* p, Py_ssize_t n) except -1:
    # A peer's bytes inside a JSON string: printable ASCII as it is, the rest escaped so that no line can be forged.
    cdef const char* hexadecimal = "0123456789abcdef"
    cdef Py_ssize_t i
    cdef uint8_t c
    _reserve(text, 5 * n)
    for i in range(n):
        c = <uint8_t>p[i]
        if c == c'"' or c == c'\\':
            text.data[text.size] = c'\\'
            text.data[text.size + 1] = c
            text.size += 2
        elif 32 <= c < 127:
            text.data[text.size] = c
            text.size += 1
        else:
            text.data[text.size] = c'\\'
            text.data[text.size + 1] = c'\\'
            text.data[text.size + 2] = c'x'
            text.data[text.size + 3] = hexadecimal[c >> 4]
            text.data[text.size + 4] = hexadecimal[c & 15]
            text.size += 5
    return 0
