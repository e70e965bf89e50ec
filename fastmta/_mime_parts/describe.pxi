# From nodes to the wire bytes of RFC 3501 §7.4.2.

cdef struct Describer:
    Buffer out
    Buffer value
    Buffer values               # of a parameter list
    AddressScratch scratch


cdef struct Parameter:
    Slice name                  # of Structure.text
    Slice value                 # of Describer.values
    uint32_t base               # length of the name without RFC 2231's marks
    int section
    bint extended


cdef void release_describer(Describer* d) noexcept nogil:
    release(&d.out)
    release(&d.value)
    release(&d.values)
    release(&d.scratch.words)
    release(&d.scratch.name)
    release(&d.scratch.route)
    release(&d.scratch.host)
    release(&d.scratch.comment)


cdef bint describer_failed(Describer* d) noexcept nogil:
    return (
        d.out.failed or d.value.failed or d.values.failed or d.scratch.words.failed or d.scratch.name.failed
        or d.scratch.route.failed or d.scratch.host.failed or d.scratch.comment.failed
    )


cdef void put_field(Buffer* out, Buffer* text, Slice* field) noexcept nogil:
    """An nstring: NIL where the field is absent, else its value without the white space around it."""
    cdef const char* p
    cdef Py_ssize_t length = field.length
    if field.start == ABSENT:
        put_nil(out)
        return
    p = text.data + field.start
    while length > 0 and is_space(p[0]):
        p += 1
        length -= 1
    while length > 0 and is_space(p[length - 1]):
        length -= 1
    put_string(out, p, length)


cdef void put_address_field(Describer* d, Buffer* text, Slice* field) noexcept nogil:
    cdef const char* p
    cdef Py_ssize_t length = field.length
    if field.start == ABSENT:
        put_nil(&d.out)
        return
    p = text.data + field.start
    if length >= MAX_FIELD_BYTES:                   # cut by the bound: its last address is not whole
        d.scratch.cut = True
        while length > 0 and p[length - 1] != c",":
            length -= 1
    put_addresses(&d.out, p, p + length, &d.scratch)


cdef void put_address_or(Describer* d, Buffer* text, Slice* field, Py_ssize_t start, Py_ssize_t length) noexcept nogil:
    """A Sender or Reply-To; where it names nobody, the From list at `start` again (RFC 3501 §7.4.2)."""
    cdef Py_ssize_t begin = d.out.size
    put_address_field(d, text, field)
    if d.out.size == begin + 3:
        d.out.size = begin
        put_again(&d.out, start, length)


cdef void put_envelope(Describer* d, Buffer* text, Node* node) noexcept nogil:
    cdef Slice* fields = node.fields
    cdef Py_ssize_t start, length
    put_char(&d.out, b"(")
    put_field(&d.out, text, &fields[DATE])
    put_char(&d.out, b" ")
    put_field(&d.out, text, &fields[SUBJECT])
    put_char(&d.out, b" ")
    start = d.out.size
    put_address_field(d, text, &fields[FROM])
    length = d.out.size - start
    put_char(&d.out, b" ")
    put_address_or(d, text, &fields[SENDER], start, length)
    put_char(&d.out, b" ")
    put_address_or(d, text, &fields[REPLY_TO], start, length)
    put_char(&d.out, b" ")
    put_address_field(d, text, &fields[TO])
    put_char(&d.out, b" ")
    put_address_field(d, text, &fields[CC])
    put_char(&d.out, b" ")
    put_address_field(d, text, &fields[BCC])
    put_char(&d.out, b" ")
    put_field(&d.out, text, &fields[IN_REPLY_TO])
    put_char(&d.out, b" ")
    put_field(&d.out, text, &fields[MESSAGE_ID])
    put_char(&d.out, b")")


cdef void split_name(const char* text, Parameter* parameter) noexcept nogil:
    """Reads a name of RFC 2231's forms `name*`, `name*n` and `name*n*`: base length, section number (-1: none), extended or not."""
    cdef const char* name = text + parameter.name.start
    cdef Py_ssize_t length = parameter.name.length
    cdef Py_ssize_t i
    cdef int number = 0
    parameter.section = -1
    parameter.base = parameter.name.length
    parameter.extended = length > 1 and name[length - 1] == c"*"
    if parameter.extended:
        length -= 1
    i = length
    while i > 0 and length - i < 4 and 48 <= name[i - 1] <= 57:
        i -= 1
    if i == length or i < 2 or name[i - 1] != c"*":
        return
    parameter.base = <uint32_t>(i - 1)
    while i < length:
        number = number * 10 + name[i] - 48
        i += 1
    parameter.section = number


cdef int find_section(const char* text, Parameter* parameters, int count, int like, int section) noexcept nogil:
    """The parameter that is section `section` of the same base name as the one at `like`, or -1."""
    cdef int i
    cdef Py_ssize_t k
    cdef Parameter* one = &parameters[like]
    for i in range(count):
        if parameters[i].section != section or parameters[i].base != one.base:
            continue
        k = 0
        while k < one.base and lower(text[parameters[i].name.start + k]) == lower(text[one.name.start + k]):
            k += 1
        if k == one.base:
            return i
    return -1


cdef void put_joined(Describer* d, const char* text, Parameter* parameters, int count, int like) noexcept nogil:
    """Name and joined value of a parameter sent in sections (RFC 2231 §6: a server should join them). Where one section is percent-encoded
    the whole is, so a "%" of a section that is not must be encoded too."""
    cdef bint extended = False
    cdef int section = 0
    cdef int i
    cdef Py_ssize_t k
    cdef Parameter* one = &parameters[like]
    cdef char c
    while True:
        i = find_section(text, parameters, count, like, section)
        if i < 0:
            break
        extended = extended or parameters[i].extended
        section += 1
    d.value.size = 0
    put(&d.value, text + one.name.start, one.base)
    if extended:
        put_char(&d.value, b"*")
    put_string(&d.out, d.value.data, d.value.size)
    put_char(&d.out, b" ")
    d.value.size = 0
    for section in range(section):
        i = find_section(text, parameters, count, like, section)
        if not extended or parameters[i].extended:
            put(&d.value, d.values.data + parameters[i].value.start, parameters[i].value.length)
            continue
        for k in range(parameters[i].value.length):
            c = d.values.data[parameters[i].value.start + k]
            put_char(&d.value, c)
            if c == c"%":
                put(&d.value, b"25", 2)
    put_string(&d.out, d.value.data, d.value.size)


cdef void put_parameters(Describer* d, Buffer* text, const char* p, const char* end, bint needs_charset) noexcept nogil:
    """`("name" "value" ...)`, as sent but for RFC 2231's sections, which are joined; or NIL."""
    cdef Parameter parameters[MAX_PARAMETERS]
    cdef Parameter* one
    cdef int count = 0, i
    cdef bint empty = True
    d.values.size = 0
    while count < MAX_PARAMETERS:
        one = &parameters[count]
        p = next_parameter(p, end, &one.name, text.data, &d.value)
        if p == NULL:
            break
        split_name(text.data, one)
        one.value.start = <uint32_t>d.values.size
        one.value.length = <uint32_t>d.value.size
        put(&d.values, d.value.data, d.value.size)
        if d.values.failed:
            return
        if needs_charset and one.name.length >= 7 and same(text.data + one.name.start, b"charset", 7) and (
            one.name.length == 7 or text.data[one.name.start + 7] == c"*"
        ):
            needs_charset = False
        count += 1
    for i in range(count):
        one = &parameters[i]
        if one.section >= 0 and find_section(text.data, parameters, count, i, 0) >= 0:
            if find_section(text.data, parameters, count, i, 0) == i:
                put_char(&d.out, b"(" if empty else b" ")
                put_joined(d, text.data, parameters, count, i)
                empty = False
            continue
        put_char(&d.out, b"(" if empty else b" ")
        put_string(&d.out, text.data + one.name.start, one.name.length)
        put_char(&d.out, b" ")
        put_string(&d.out, d.values.data + one.value.start, one.value.length)
        empty = False
    if needs_charset:
        put_char(&d.out, b"(" if empty else b" ")
        put(&d.out, b'"charset" "us-ascii"', 20)
        empty = False
    if empty:
        put_nil(&d.out)
    else:
        put_char(&d.out, b")")


cdef void put_media_parameters(Describer* d, Buffer* text, Node* node) noexcept nogil:
    cdef const char* p = NULL
    cdef Py_ssize_t length = 0
    if node.media_type.start != ABSENT:
        p = text.data + node.parameters.start
        length = node.parameters.length
    put_parameters(d, text, p, p + length, node.kind == TEXT)


cdef void put_disposition(Describer* d, Buffer* text, Slice* field) noexcept nogil:
    cdef const char* p
    cdef const char* end
    cdef const char* start
    if field.start == ABSENT:
        put_nil(&d.out)
        return
    end = text.data + field.start + field.length
    start = skip_space(text.data + field.start, end, NULL)
    p = take_token(start, end)
    if p == start:
        put_nil(&d.out)
        return
    put_char(&d.out, b"(")
    put_string(&d.out, start, p - start)
    put_char(&d.out, b" ")
    put_parameters(d, text, p, end, False)
    put_char(&d.out, b")")


cdef void put_languages(Buffer* out, Buffer* text, Slice* field) noexcept nogil:
    """Content-Language's tags (RFC 3282) as a list, or NIL."""
    cdef const char* p
    cdef const char* end
    cdef const char* start
    cdef int count = 0
    if field.start != ABSENT:
        p = text.data + field.start
        end = p + field.length
        while count < MAX_PARAMETERS:
            while p < end and (ends_token(p[0])):
                p = skip_comment(p, end, NULL) if p[0] == c"(" else p + 1
            if p >= end:
                break
            start = p
            p = take_token(p, end)
            put_char(out, b"(" if count == 0 else b" ")
            put_string(out, start, p - start)
            count += 1
    if count:
        put_char(out, b")")
    else:
        put_nil(out)


cdef Slice encoding_of(Buffer* text, Node* node) noexcept nogil:
    """Content-Transfer-Encoding's token; length 0 where there is none."""
    cdef Slice found
    cdef Slice* field = &node.fields[ENCODING]
    cdef const char* start
    cdef const char* end
    found.start = found.length = 0
    if field.start != ABSENT:
        end = text.data + field.start + field.length
        start = skip_space(text.data + field.start, end, NULL)
        found.start = <uint32_t>(start - text.data)
        found.length = <uint32_t>(take_token(start, end) - start)
    return found


cdef void open_body(Describer* d, Buffer* text, Node* node) noexcept nogil:
    """A leaf's description, or a message/rfc822's as far as its envelope, without the closing parenthesis."""
    cdef Slice encoding = encoding_of(text, node)
    cdef Buffer* out = &d.out
    put_char(out, b"(")
    if node.kind == OPAQUE:
        put(out, b'"application" "octet-stream" NIL', 32)
    else:
        if node.media_type.start != ABSENT:
            put_string(out, text.data + node.media_type.start, node.media_type.length)
            put_char(out, b" ")
            put_string(out, text.data + node.subtype.start, node.subtype.length)
        elif node.kind == MESSAGE:
            put(out, b'"message" "rfc822"', 18)
        else:
            put(out, b'"text" "plain"', 14)
        put_char(out, b" ")
        put_media_parameters(d, text, node)
    put_char(out, b" ")
    put_field(out, text, &node.fields[CONTENT_ID])
    put_char(out, b" ")
    put_field(out, text, &node.fields[DESCRIPTION])
    put_char(out, b" ")
    if encoding.length:
        put_string(out, text.data + encoding.start, encoding.length)
    else:
        put(out, b'"7bit"', 6)
    put_char(out, b" ")
    put_number(out, node.body_length)
    if node.kind == TEXT:
        put_char(out, b" ")
        put_number(out, node.lines)


cdef void close_body(Describer* d, Buffer* text, Node* node, bint extended) noexcept nogil:
    """What stands behind a node's children, and the closing parenthesis."""
    cdef Buffer* out = &d.out
    if node.kind == MULTIPART:
        put_char(out, b" ")
        put_string(out, text.data + node.subtype.start, node.subtype.length)
    elif node.kind == MESSAGE:
        put_char(out, b" ")
        put_number(out, node.lines)
    if extended:
        put_char(out, b" ")
        if node.kind == MULTIPART:
            put_media_parameters(d, text, node)
        else:
            put_field(out, text, &node.fields[MD5])
        put_char(out, b" ")
        put_disposition(d, text, &node.fields[DISPOSITION])
        put_char(out, b" ")
        put_languages(out, text, &node.fields[LANGUAGE])
        put_char(out, b" ")
        put_field(out, text, &node.fields[LOCATION])
    put_char(out, b")")


cdef void put_body(Describer* d, Buffer* text, Node* nodes, bint extended) noexcept nogil:
    """BODY or BODYSTRUCTURE of the whole message: a walk over the tree by its links, without recursion."""
    cdef int index = 0
    cdef Node* node
    while True:
        node = &nodes[index]
        if node.kind == MULTIPART:
            put_char(&d.out, b"(")
            if node.first_child < 0:                # the grammar wants a part; Dovecot shows the same empty one
                put(&d.out, b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0', 57)
                if extended:
                    put(&d.out, b" NIL NIL NIL NIL", 16)
                put_char(&d.out, b")")
        else:
            open_body(d, text, node)
            if node.kind == MESSAGE:
                put_char(&d.out, b" ")
                put_envelope(d, text, &nodes[node.first_child])
                put_char(&d.out, b" ")
        if node.first_child >= 0:
            index = node.first_child
            continue
        while True:
            close_body(d, text, node, extended)
            if node.next_sibling >= 0:
                index = node.next_sibling
                break
            if node.parent < 0:
                return
            node = &nodes[node.parent]
