# Lexical parts of RFC 5322 and RFC 2045 headers. All work on unfolded values, between two pointers.

cdef inline bint is_space(char c) noexcept nogil:
    return c == 32 or c == 9 or c == 13 or c == 10


cdef inline char lower(char c) noexcept nogil:
    return c | 0x20 if 65 <= c <= 90 else c


cdef bint same(const char* data, const char* lower_name, Py_ssize_t length) noexcept nogil:
    """Equal but for ASCII case; `lower_name` is in lower case and of `length` bytes."""
    cdef Py_ssize_t i
    for i in range(length):
        if lower(data[i]) != lower_name[i]:
            return False
    return True


cdef const char* skip_comment(const char* p, const char* end, Buffer* content) noexcept nogil:
    """Past a comment that begins at `p`; its unescaped text replaces `content` where that is given. An unclosed one ends with the value."""
    cdef int depth = 0
    if content != NULL:
        content.size = 0
    while p < end:
        if p[0] == c"(":
            depth += 1
            if content != NULL and depth > 1:
                put_char(content, p[0])
        elif p[0] == c")":
            depth -= 1
            if depth == 0:
                return p + 1
            if content != NULL:
                put_char(content, p[0])
        else:
            if p[0] == c"\\" and p + 1 < end:
                p += 1
            if content != NULL:
                put_char(content, p[0])
        p += 1
    return end


cdef const char* skip_space(const char* p, const char* end, Buffer* comment) noexcept nogil:
    """Past white space and comments (CFWS)."""
    while p < end:
        if is_space(p[0]):
            p += 1
        elif p[0] == c"(":
            p = skip_comment(p, end, comment)
        else:
            break
    return p


cdef const char* take_quoted(const char* p, const char* end, Buffer* content) noexcept nogil:
    """Past a quoted string that begins at `p`; its unescaped text is added to `content`. An unclosed one ends with the value."""
    cdef const char* start
    p += 1
    while p < end:
        start = p
        while p < end and p[0] != c'"' and p[0] != c"\\":
            p += 1
        put(content, start, p - start)
        if p == end:
            break
        if p[0] == c'"':
            return p + 1
        p += 1
        if p < end:
            put_char(content, p[0])
            p += 1
    return end


cdef inline bint ends_token(char c) noexcept nogil:
    return c == c";" or c == c"=" or c == c"/" or c == c"," or c == c'"' or c == c"(" or is_space(c)


cdef const char* take_token(const char* p, const char* end) noexcept nogil:
    """Past a MIME token (RFC 2045 §5.1), read generously: only what would end one for every reader ends it."""
    while p < end and not ends_token(p[0]):
        p += 1
    return p


cdef const char* take_value(const char* p, const char* end, Buffer* value) noexcept nogil:
    """Past a parameter's value, token or quoted string, which replaces `value`. In a token "/" and "=" do no harm, and senders write them."""
    cdef const char* start = p
    value.size = 0
    if p < end and p[0] == c'"':
        return take_quoted(p, end, value)
    while p < end and p[0] != c";" and p[0] != c"(" and p[0] != c'"' and not is_space(p[0]):
        p += 1
    put(value, start, p - start)
    return p


cdef const char* next_parameter(const char* p, const char* end, Slice* name, const char* base, Buffer* value) noexcept nogil:
    """Past the next `; name=value` from `p` on, or NULL where there is none. What is no parameter is passed over."""
    cdef const char* start
    while True:
        while p < end and p[0] != c";":
            if p[0] == c'"':
                value.size = 0
                p = take_quoted(p, end, value)
            elif p[0] == c"(":
                p = skip_comment(p, end, NULL)
            else:
                p += 1
        if p >= end:
            return NULL
        p = skip_space(p + 1, end, NULL)
        start = p
        p = take_token(p, end)
        if p == start:
            continue
        name.start = <uint32_t>(start - base)
        name.length = <uint32_t>(p - start)
        p = skip_space(p, end, NULL)
        if p < end and p[0] == c"=":
            p = skip_space(p + 1, end, NULL)
            return take_value(p, end, value)


cdef int field_of(const char* name, Py_ssize_t length, bint is_message) noexcept nogil:
    """The Node.fields index of a header field's name, or -1."""
    if length > 8 and same(name, b"content-", 8):
        name += 8
        length -= 8
        if length == 4:
            return CONTENT_TYPE if same(name, b"type", 4) else -1
        if length == 17:
            return ENCODING if same(name, b"transfer-encoding", 17) else -1
        if length == 2:
            return CONTENT_ID if same(name, b"id", 2) else -1
        if length == 11:
            if same(name, b"description", 11):
                return DESCRIPTION
            return DISPOSITION if same(name, b"disposition", 11) else -1
        if length == 3:
            return MD5 if same(name, b"md5", 3) else -1
        if length == 8:
            if same(name, b"language", 8):
                return LANGUAGE
            return LOCATION if same(name, b"location", 8) else -1
        return -1
    if not is_message:
        return -1
    if length == 2:
        if same(name, b"to", 2):
            return TO
        return CC if same(name, b"cc", 2) else -1
    if length == 3:
        return BCC if same(name, b"bcc", 3) else -1
    if length == 4:
        if same(name, b"from", 4):
            return FROM
        return DATE if same(name, b"date", 4) else -1
    if length == 6:
        return SENDER if same(name, b"sender", 6) else -1
    if length == 7:
        return SUBJECT if same(name, b"subject", 7) else -1
    if length == 8:
        return REPLY_TO if same(name, b"reply-to", 8) else -1
    if length == 10:
        return MESSAGE_ID if same(name, b"message-id", 10) else -1
    if length == 11:
        return IN_REPLY_TO if same(name, b"in-reply-to", 11) else -1
    return -1


cdef inline bint is_address_field(int field) noexcept nogil:
    return FROM <= field <= BCC


cdef bint slice_is(Buffer* text, Slice* slice, const char* lower_name, Py_ssize_t length) noexcept nogil:
    return slice.start != ABSENT and slice.length == <uint32_t>length and same(text.data + slice.start, lower_name, length)


cdef void read_media_type(Buffer* text, Node* node) noexcept nogil:
    """Fills in media_type, subtype and parameters; they stay ABSENT where Content-Type is missing or malformed (RFC 2045 §5.2)."""
    cdef Slice* value = &node.fields[CONTENT_TYPE]
    cdef const char* p
    cdef const char* end
    cdef const char* start
    cdef const char* slash
    if value.start == ABSENT:
        return
    start = skip_space(text.data + value.start, text.data + value.start + value.length, NULL)
    end = text.data + value.start + value.length
    p = take_token(start, end)
    slash = skip_space(p, end, NULL)
    if p == start or slash >= end or slash[0] != c"/":
        return
    node.media_type.length = <uint32_t>(p - start)
    slash = skip_space(slash + 1, end, NULL)
    p = take_token(slash, end)
    if p == slash:
        return
    node.media_type.start = <uint32_t>(start - text.data)
    node.subtype.start = <uint32_t>(slash - text.data)
    node.subtype.length = <uint32_t>(p - slash)
    node.parameters.start = <uint32_t>(p - text.data)
    node.parameters.length = <uint32_t>(end - p)


cdef bint find_parameter(Buffer* text, Slice* parameters, const char* lower_name, Py_ssize_t length, Buffer* value) noexcept nogil:
    """The first parameter of that name, unescaped, into `value`."""
    cdef const char* p
    cdef const char* end
    cdef Slice name
    cdef int count = 0
    if parameters.start == ABSENT:
        return False
    p = text.data + parameters.start
    end = p + parameters.length
    while count < MAX_PARAMETERS:
        p = next_parameter(p, end, &name, text.data, value)
        if p == NULL:
            break
        if slice_is(text, &name, lower_name, length):
            return True
        count += 1
    return False


cdef int find_section_of(
    Buffer* text, Slice* parameters, const char* lower_name, Py_ssize_t length, int section, Buffer* value
) noexcept nogil:
    """The parameter `name*n` (0) or `name*n*` (1) with n = section; for section 0 `name*` (2) too. -1 where there is none."""
    cdef const char* p = text.data + parameters.start
    cdef const char* end = p + parameters.length
    cdef const char* name
    cdef Slice found
    cdef Py_ssize_t at
    cdef int count = 0, number
    while count < MAX_PARAMETERS:
        p = next_parameter(p, end, &found, text.data, value)
        if p == NULL:
            break
        count += 1
        name = text.data + found.start
        at = length + 1
        if <Py_ssize_t>found.length < at or name[length] != c"*" or not same(name, lower_name, length):
            continue
        if <Py_ssize_t>found.length == at:
            if section == 0:
                return 2
            continue
        number = 0
        while at < <Py_ssize_t>found.length and at < length + 4 and 48 <= name[at] and name[at] <= 57:
            number = number * 10 + name[at] - 48
            at += 1
        if at == length + 1 or number != section:
            continue
        if at == <Py_ssize_t>found.length:
            return 0
        if at + 1 == <Py_ssize_t>found.length and name[at] == c"*":
            return 1
    return -1


cdef inline int hex_digit(char c) noexcept nogil:
    if 48 <= c and c <= 57:
        return c - 48
    c = lower(c)
    return c - 87 if 97 <= c and c <= 102 else -1


cdef void put_unquoted(Buffer* out, const char* p, const char* end) noexcept nogil:
    """Percent-encoded octets, decoded."""
    while p < end:
        if p[0] == c"%" and end - p > 2 and hex_digit(p[1]) >= 0 and hex_digit(p[2]) >= 0:
            put_char(out, <char>(hex_digit(p[1]) * 16 + hex_digit(p[2])))
            p += 3
        else:
            put_char(out, p[0])
            p += 1


cdef bint find_extended(Buffer* text, Slice* parameters, const char* lower_name, Py_ssize_t length, Buffer* value) noexcept nogil:
    """A parameter in one of RFC 2231's forms (name*, name*0, name*0*...), its sections joined and decoded, without its charset's name."""
    cdef Buffer one
    cdef const char* p
    cdef const char* quote
    cdef const char* end
    cdef int section = 0, form
    value.size = 0
    if parameters.start == ABSENT or memchr(text.data + parameters.start, 42, parameters.length) == NULL:
        return False
    memset(&one, 0, sizeof(Buffer))
    while section < MAX_SECTIONS:
        form = find_section_of(text, parameters, lower_name, length, section, &one)
        if form < 0:
            break
        p = one.data
        end = p + one.size
        if form == 0:
            put(value, p, one.size)
        elif one.size:
            if section == 0:
                quote = <const char*>memchr(p, 39, end - p)
                if quote != NULL:
                    quote = <const char*>memchr(quote + 1, 39, end - quote - 1)
                    p = p if quote == NULL else quote + 1
            put_unquoted(value, p, end)
        section += 1
        if form == 2:
            break
    release(&one)
    return section > 0


cdef bint take_boundary(Buffer* text, Node* node, Slice* boundary) noexcept nogil:
    """A multipart's boundary, unescaped and without trailing white space, put behind `text`; False where there is none."""
    cdef Buffer value
    cdef Py_ssize_t length = 0
    memset(&value, 0, sizeof(Buffer))
    if (find_parameter(text, &node.parameters, b"boundary", 8, &value)
            or find_extended(text, &node.parameters, b"boundary", 8, &value)):
        length = value.size if value.size < MAX_BOUNDARY_BYTES else MAX_BOUNDARY_BYTES
        while length > 0 and is_space(value.data[length - 1]):
            length -= 1
        boundary.start = <uint32_t>text.size
        boundary.length = <uint32_t>length
        put(text, value.data, length)
    release(&value)
    return length > 0 and not text.failed
