# The structure record, and looking things up in one.
#
# <4I: lengths of ENVELOPE, BODY, BODYSTRUCTURE, table> and these four. The table: <I> number of rows, then a row for each
# entity in the order in which they begin: the Row struct, then encoding, media type ("text/plain") and charset, each a byte of length
# and lower-case ASCII. All integers are little-endian; offsets and lengths saturate at 2^32 - 1, the store's own bound for a message.

cdef packed struct Row:
    uint32_t header_offset
    uint32_t header_length
    uint32_t body_offset
    uint32_t body_length
    uint32_t lines
    uint32_t parent             # index of the row around this one + 1; 0: none
    uint32_t number             # among its siblings, from 1
    uint8_t kind
    uint8_t is_message          # of the first row: its marks (_mime.pxd)

cdef enum:
    HEAD_BYTES = 16
    NEARLY_FIELD_BYTES = MAX_FIELD_BYTES - 64   # a value that may have been cut, with its line, whose name counts too

KINDS = ("other", "text", "multipart", "message", "opaque")     # by Node.kind


cdef inline uint32_t saturate(uint64_t value) noexcept nogil:
    return <uint32_t>(value if value < ABSENT else ABSENT)


cdef void put_short(Buffer* out, const char* data, Py_ssize_t length) noexcept nogil:
    """A length byte and at most 255 bytes in lower case; what is not printable ASCII becomes "?"."""
    cdef Py_ssize_t i
    if length > 255:
        length = 255
    put_char(out, <char>length)
    if not reserve(out, length):
        return
    for i in range(length):
        out.data[out.size + i] = lower(data[i]) if 32 < data[i] < 127 else 63
    out.size += length


cdef void put_table(Describer* d, Buffer* text, Node* nodes, int count, uint64_t prefix) noexcept nogil:
    cdef int i
    cdef Row row
    cdef Node* node
    cdef Slice encoding
    cdef uint32_t rows = <uint32_t>count
    put(&d.out, <const char*>&rows, 4)
    for i in range(count):
        node = &nodes[i]
        row.header_offset = saturate(node.header_offset + (prefix if i else 0))
        row.header_length = saturate(node.header_length + (0 if i else prefix))
        row.body_offset = saturate(node.body_offset + prefix)
        row.body_length = saturate(node.body_length)
        row.lines = saturate(node.lines)
        row.parent = <uint32_t>(node.parent + 1)
        row.number = <uint32_t>node.number
        row.kind = node.kind
        row.is_message = node.is_message
        put(&d.out, <const char*>&row, sizeof(Row))
        encoding = encoding_of(text, node)
        if encoding.length:
            put_short(&d.out, text.data + encoding.start, encoding.length)
        else:
            put_short(&d.out, b"7bit", 4)
        d.value.size = 0
        if node.kind == OPAQUE:
            put(&d.value, b"application/octet-stream", 24)
        elif node.media_type.start != ABSENT:
            put(&d.value, text.data + node.media_type.start, node.media_type.length)
            put_char(&d.value, b"/")
            put(&d.value, text.data + node.subtype.start, node.subtype.length)
        elif node.kind == MESSAGE:
            put(&d.value, b"message/rfc822", 14)
        else:
            put(&d.value, b"text/plain", 10)
        put_short(&d.out, d.value.data, d.value.size)
        d.value.size = 0
        if node.media_type.start == ABSENT or not (
            find_parameter(text, &node.parameters, b"charset", 7, &d.value)
            or find_extended(text, &node.parameters, b"charset", 7, &d.value)
        ):
            d.value.size = 0
            if node.kind == TEXT:
                put(&d.value, b"us-ascii", 8)
        put_short(&d.out, d.value.data, d.value.size)


cdef uint8_t marks_of(Describer* d, Buffer* text, Node* root) noexcept nogil:
    """What the ENVELOPE that was just written does not show of the header."""
    cdef uint8_t marks = ROOT_MARK | (MORE_TEXT if root.repeats else 0) | (MORE_ADDRESSES if d.scratch.cut else 0)
    cdef int i
    for i in range(DATE, FIELD_COUNT):
        if not is_address_field(i) and root.fields[i].start != ABSENT and root.fields[i].length >= NEARLY_FIELD_BYTES:
            marks |= MORE_TEXT
    return marks if text.size < MAX_TEXT_BYTES else marks | MORE_TEXT | MORE_ADDRESSES


cdef bytes make_record(Structure s, uint64_t prefix):
    cdef Describer d
    cdef uint32_t head[4]
    cdef Py_ssize_t mark
    cdef uint8_t marks
    memset(&d, 0, sizeof(Describer))
    try:
        with nogil:
            memset(head, 0, HEAD_BYTES)
            put(&d.out, <const char*>head, HEAD_BYTES)
            mark = d.out.size
            put_envelope(&d, &s.text, &s.nodes[0])
            head[0] = <uint32_t>(d.out.size - mark)
            marks = marks_of(&d, &s.text, &s.nodes[0])
            mark = d.out.size
            put_body(&d, &s.text, s.nodes, False)
            head[1] = <uint32_t>(d.out.size - mark)
            mark = d.out.size
            put_body(&d, &s.text, s.nodes, True)
            head[2] = <uint32_t>(d.out.size - mark)
            mark = d.out.size
            put_table(&d, &s.text, s.nodes, s.node_count, prefix)
            head[3] = <uint32_t>(d.out.size - mark)
            if not d.out.failed:
                d.out.data[mark + ROOT_MARKS_AT] = <char>marks
        if describer_failed(&d):
            raise MemoryError
        memcpy(d.out.data, head, HEAD_BYTES)
        return d.out.data[:d.out.size]
    finally:
        release_describer(&d)


cdef bytes section_of(bytes record, int which):
    """One of the record's four parts; ValueError where the record is not one."""
    cdef const unsigned char* data = record
    cdef uint32_t head[4]
    cdef uint64_t start = HEAD_BYTES
    cdef int i
    if len(record) < HEAD_BYTES:
        raise ValueError("not a structure record: too short")
    memcpy(head, data, HEAD_BYTES)
    for i in range(which):
        start += head[i]
    if start + head[which] > <uint64_t>len(record):
        raise ValueError("not a structure record: lengths do not fit")
    return record[start:start + head[which]]


def envelope_of(bytes record not None):
    """The ENVELOPE wire bytes of a structure record, parentheses included."""
    return section_of(record, 0)


def body_of(bytes record not None):
    """The BODY wire bytes: BODYSTRUCTURE without extension data."""
    return section_of(record, 1)


def bodystructure_of(bytes record not None):
    """The BODYSTRUCTURE wire bytes."""
    return section_of(record, 2)


@cython.final
cdef class Part:
    """One entity of a message. Offsets count from the message's first byte without the prefix that a mailbox puts in front.

    `path` is IMAP's part number ("1.2", "" for the message itself); what a message/rfc822 part contains shares its path and has
    `is_message` set, as the message itself has. `kind`: text, other, multipart, message (message/rfc822), opaque. Strings are lower case.
    """

    cdef readonly str path
    cdef readonly str kind
    cdef readonly bint is_message
    cdef readonly uint64_t header_offset, header_length, body_offset, body_length, lines
    cdef readonly str encoding
    cdef readonly str content_type
    cdef readonly str charset

    def __repr__(self):
        return (
            f"Part({self.path!r}, {self.kind}, {self.content_type}, header={self.header_offset}+{self.header_length}, "
            f"body={self.body_offset}+{self.body_length}, lines={self.lines})"
        )


cdef Py_ssize_t read_row(const unsigned char* data, Py_ssize_t size, Py_ssize_t at, Row* row) except -1:
    """Reads the row at `at`; where its three strings begin. ValueError past the end."""
    if at + <Py_ssize_t>sizeof(Row) > size:
        raise ValueError("not a structure record: table is cut")
    memcpy(row, data + at, sizeof(Row))
    return at + sizeof(Row)


cdef Py_ssize_t past_string(const unsigned char* data, Py_ssize_t size, Py_ssize_t at) except -1:
    if at >= size or at + 1 + data[at] > size:
        raise ValueError("not a structure record: table is cut")
    return at + 1 + data[at]


def parts_of(bytes record not None):
    """Every entity of the message, in the order in which they begin: a list of Part."""
    cdef bytes table = section_of(record, 3)
    cdef const unsigned char* data = table
    cdef Py_ssize_t size = len(table)
    cdef Py_ssize_t at = 4
    cdef Py_ssize_t after
    cdef uint32_t count, i
    cdef Row row
    cdef Part part, above
    cdef list parts = []
    cdef list strings
    if size < 4:
        raise ValueError("not a structure record: table is cut")
    memcpy(&count, data, 4)
    memset(&row, 0, sizeof(Row))
    for i in range(count):
        at = read_row(data, size, at, &row)
        strings = []
        for _ in range(3):
            after = past_string(data, size, at)
            strings.append(table[at + 1:after].decode("ascii"))
            at = after
        if row.kind >= len(KINDS) or row.parent > i:
            raise ValueError("not a structure record: impossible row")
        part = Part.__new__(Part)
        part.kind = KINDS[row.kind]
        part.is_message = row.is_message != 0
        part.header_offset = row.header_offset
        part.header_length = row.header_length
        part.body_offset = row.body_offset
        part.body_length = row.body_length
        part.lines = row.lines
        part.encoding, part.content_type, part.charset = strings
        above = parts[row.parent - 1] if row.parent else None
        if above is None:
            part.path = ""
        elif above.kind == "message" and not above.is_message:
            part.path = above.path
        else:
            part.path = f"{above.path}.{row.number}" if above.path else str(row.number)
        parts.append(part)
    return parts


cdef int child_of(Row* rows, int count, int parent, uint32_t number) noexcept nogil:
    cdef int i
    for i in range(parent + 1, count):
        if rows[i].parent == <uint32_t>parent + 1 and rows[i].number == number:
            return i
    return -1


cdef int message_in(Row* rows, int count, int part) except -1:
    """What a message/rfc822 part contains, which only a damaged record lacks."""
    cdef int index = child_of(rows, count, part, 1)
    if index < 0:
        raise ValueError("not a structure record: impossible row")
    return index


def find_part(bytes record not None, section, uint64_t prefix_length=0):
    """Where a BODY[section] lies: (offset, length), or None where the message has no such section (RFC 3501 §6.4.5).

    `section` is a str or bytes in any case: "", "HEADER", "TEXT", or part numbers alone or with HEADER, TEXT or MIME behind; HEADER.FIELDS is
    the caller's filter over HEADER. `prefix_length` bytes logically stand in front of the message and belong to its header.
    """
    cdef bytes table = section_of(record, 3)
    cdef const unsigned char* data = table
    cdef Py_ssize_t size = len(table)
    cdef Py_ssize_t at = 4
    cdef uint32_t count
    cdef int entity = 0, found = -1, i
    cdef Row* rows = NULL
    cdef Row* row
    if isinstance(section, bytes):
        section = section.decode("ascii", "replace")
    if size < 4:
        raise ValueError("not a structure record: table is cut")
    memcpy(&count, data, 4)
    if count < 1 or count > <uint32_t>(size // sizeof(Row)):
        raise ValueError("not a structure record: impossible row count")
    rows = <Row*>realloc(NULL, count * sizeof(Row))
    if rows == NULL:
        raise MemoryError
    try:
        for i in range(<int>count):
            at = read_row(data, size, at, &rows[i])
            for _ in range(3):
                at = past_string(data, size, at)
        words = section.upper().split(".") if section else []
        what = ""
        for word in words:
            if what or not word:
                return None
            if not (word.isascii() and word.isdigit()):
                what = word
                continue
            if len(word) > 9 or int(word) == 0:
                return None
            if found >= 0:                          # deeper: into a multipart, or into a contained message
                if rows[found].kind == MULTIPART:
                    found = child_of(rows, count, found, int(word))
                    if found < 0:
                        return None
                    continue
                if rows[found].kind != MESSAGE:
                    return None
                entity = message_in(rows, count, found)
            if rows[entity].kind == MULTIPART:
                found = child_of(rows, count, entity, int(word))
            else:
                found = entity if int(word) == 1 else -1        # a message that is no multipart is its own part 1
            if found < 0:
                return None
        if what == "MIME":
            if found < 0:
                return None
            row = &rows[found]
            if found == 0:
                return (0, row.header_length + prefix_length)
            return (row.header_offset + prefix_length, row.header_length)
        if what in ("HEADER", "TEXT"):
            entity = 0
            if found >= 0:
                if rows[found].kind != MESSAGE:
                    return None
                entity = message_in(rows, count, found)
            row = &rows[entity]
            if what == "TEXT":
                return (row.body_offset + prefix_length, row.body_length)
            if entity == 0:
                return (0, row.header_length + prefix_length)
            return (row.header_offset + prefix_length, row.header_length)
        if what:
            return None
        row = &rows[found if found >= 0 else 0]
        if found < 0:
            return (0, prefix_length + <uint64_t>row.header_length + row.body_length)
        return (row.body_offset + prefix_length, row.body_length)
    finally:
        free(rows)
