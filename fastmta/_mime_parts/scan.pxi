# The push parser. One state machine over lines: header lines are collected whole (to a bound), of body lines only the
# beginning of one that starts with "-" is, and only while a multipart is open. Everything else is one memchr a line.

@cython.final
cdef class Structure:
    """The structure of one message, from its bytes in order. Not thread-safe; `clear` makes it ready for another message."""

    def __cinit__(self):
        self.clear()

    def __dealloc__(self):
        release(&self.text)
        release(&self.carry)
        free(self.nodes)

    cpdef clear(self):
        """Forgets the message; keeps the memory."""
        self.text.size = 0
        self.carry.size = 0
        self.text.failed = self.carry.failed = self.failed = False
        self.node_count = 0
        self.boundary_count = 0
        self.part_follows = self.after_cr = False
        self.eol = 0
        self.line_start = self.newlines = self.size = 0
        self.current = self.new_node(-1, 0, True)
        self.mode = HEADER
        self.field = -1

    def feed(self, data):
        """Takes the next bytes of the message, any bytes-like object; nothing of it is kept."""
        cdef const unsigned char[::1] view = data
        if view.shape[0]:
            self.feed_c(<const char*>&view[0], view.shape[0])

    cdef int feed_c(self, const char* data, Py_ssize_t length) noexcept nogil:
        """Takes the next `length` bytes. Cannot fail: memory that is out is `finish`'s to report."""
        if length > 0 and self.current >= 0:
            self.scan(data, data + length)
            self.size += length
        return 0

    cdef int scan(self, const char* data, const char* end) noexcept nogil:
        cdef const char* p = data
        while p < end:
            if self.mode == HEADER:
                p = self.take_header_line(data, p, end)
            elif self.mode == BODY_LINE_START:
                p = self.take_body_start(data, p, end)
            else:
                p = self.skip_body(data, p, end)
        return 0

    cdef const char* skip_body(self, const char* data, const char* p, const char* end) noexcept nogil:
        """Counts lines until one needs a look. p < end on entry, so every p[0] and (q - 1)[0] below is inside the input or guarded."""
        cdef const char* q
        cdef bint cr
        while True:
            q = <const char*>memchr(p, 10, end - p)
            if q == NULL:
                self.after_cr = (end - 1)[0] == 13
                return end
            cr = (q - 1)[0] == 13 if q > p else self.after_cr
            self.after_cr = False
            p = q + 1
            if self.mode == DELIMITER_TAIL or p == end or (p[0] == c"-" and self.boundary_count):
                self.mode = BODY_LINE_START if self.mode == BODY_LINE else self.mode
                self.line_ended(self.size + (p - data), cr)
                return p
            self.newlines += 1

    cdef int line_ended(self, uint64_t next_line, bint cr) noexcept nogil:
        """A line of a body ended before `next_line`; a part whose delimiter it was begins there."""
        self.newlines += 1
        self.eol = 2 if cr else 1
        self.line_start = next_line
        self.after_cr = False
        self.carry.size = 0
        if self.mode == DELIMITER_TAIL:
            self.mode = BODY_LINE_START
        if self.part_follows:
            self.part_follows = False
            self.start_part(next_line)
        return 0

    cdef const char* take_body_start(self, const char* data, const char* p, const char* end) noexcept nogil:
        """Decides about a body line from at most its first DELIMITER_BYTES whether it is a delimiter."""
        cdef Py_ssize_t room = DELIMITER_BYTES - self.carry.size
        cdef Py_ssize_t length = end - p if end - p < room else room
        cdef const char* q
        cdef const char* line = p
        if not self.carry.size and (p[0] != c"-" or not self.boundary_count):
            self.mode = BODY_LINE
            return p
        q = <const char*>memchr(p, 10, length)
        if q != NULL:
            length = q - p
        elif length < room:
            put(&self.carry, p, length)
            return end
        p += length
        if self.carry.size:
            put(&self.carry, line, length)
            line = self.carry.data
            length = self.carry.size
        self.mode = DELIMITER_TAIL if self.take_delimiter(line, length) else BODY_LINE
        self.after_cr = length > 0 and line[length - 1] == 13
        self.carry.size = 0
        return p                                    # at the LF, or in the middle of the line

    cdef const char* take_header_line(self, const char* data, const char* p, const char* end) noexcept nogil:
        """Collects a header line's first MAX_LINE_BYTES and hands it on at its LF."""
        cdef const char* q = <const char*>memchr(p, 10, end - p)
        cdef const char* line = p
        cdef Py_ssize_t length = (q if q != NULL else end) - p
        cdef Py_ssize_t room = MAX_LINE_BYTES - self.carry.size
        cdef uint64_t whole
        cdef uint64_t next_line
        cdef bint cr = self.after_cr
        if length > 0:
            cr = p[length - 1] == 13
        if q == NULL or self.carry.size:
            put(&self.carry, p, length if length < room else room)
            line = self.carry.data
        if q == NULL:
            self.after_cr = cr
            return end
        next_line = self.size + (q + 1 - data)
        whole = next_line - self.line_start - 1 - cr
        length = MAX_LINE_BYTES if whole > MAX_LINE_BYTES else <Py_ssize_t>whole
        if self.carry.failed:
            length = min(length, self.carry.size)
        self.header_line(line, length, next_line)
        self.line_ended(next_line, cr)
        return q + 1

    cdef int header_line(self, const char* line, Py_ssize_t length, uint64_t next_line) noexcept nogil:
        """One line of a header without its line end."""
        cdef const char* colon
        cdef Py_ssize_t name_length
        cdef Node* node
        cdef Slice* slot
        if length == 0:
            self.newlines += 1                      # the empty line is the header's, so it is counted before the body begins
            self.end_header(next_line)
            self.newlines -= 1
            return 0
        if line[0] == c"-" and self.boundary_count and self.take_delimiter(
            line, length if length < DELIMITER_BYTES else DELIMITER_BYTES
        ):
            self.mode = BODY_LINE_START
            return 0
        if line[0] == c" " or line[0] == c"\t":
            if self.field >= 0:
                self.add_value(line, length)
            return 0
        self.field = -1
        colon = <const char*>memchr(line, c":", length)
        if colon == NULL:
            return 0
        name_length = colon - line
        while name_length > 0 and is_space(line[name_length - 1]):
            name_length -= 1
        node = &self.nodes[self.current]
        self.field = field_of(line, name_length, node.is_message)
        if self.field < 0:
            return 0
        slot = &node.fields[self.field]
        if slot.start == ABSENT:
            slot.start = <uint32_t>self.text.size
            slot.length = 0
        elif is_address_field(self.field):
            # Several such fields are read as one list: else a forger picks which of them each reader sees.
            if slot.start + slot.length != <uint32_t>self.text.size:
                if self.text.size + slot.length > MAX_TEXT_BYTES or not reserve(&self.text, slot.length):
                    self.field = -1
                    return 0
                put_again(&self.text, slot.start, slot.length)
                slot.start = <uint32_t>(self.text.size - slot.length)
            self.add_value(b",", 1)
        else:
            if self.field >= DATE:
                node.repeats = True
            self.field = -1                         # the first one counts
            return 0
        self.add_value(colon + 1, length - (colon + 1 - line))
        return 0

    cdef int add_value(self, const char* value, Py_ssize_t length) noexcept nogil:
        """Adds to the current field's value, which is the last thing in self.text, as far as the bounds allow."""
        cdef Slice* slot = &self.nodes[self.current].fields[self.field]
        cdef Py_ssize_t room = MAX_FIELD_BYTES - <Py_ssize_t>slot.length
        if room > MAX_TEXT_BYTES - self.text.size:
            room = MAX_TEXT_BYTES - self.text.size
        if length > room:
            length = room
        if length > 0 and reserve(&self.text, length):
            put(&self.text, value, length)
            slot.length += <uint32_t>length
        return 0

    cdef int new_node(self, int parent, uint64_t offset, bint is_message) noexcept nogil:
        """Adds an entity that begins at `offset`; its index, or -1 when memory is out. The caller has checked MAX_PARTS."""
        cdef int index = self.node_count
        cdef int i, capacity
        cdef Node* node
        cdef Node* above
        if index == self.node_capacity:
            capacity = 4 if index == 0 else 2 * index
            node = <Node*>realloc(self.nodes, capacity * sizeof(Node))
            if node == NULL:
                self.failed = True
                return -1
            self.nodes = node
            self.node_capacity = capacity
        node = &self.nodes[index]
        memset(node, 0, sizeof(Node))
        node.parent = parent
        node.first_child = node.last_child = node.next_sibling = -1
        node.is_message = is_message
        node.header_offset = node.body_offset = offset
        node.number = 1
        for i in range(FIELD_COUNT):
            node.fields[i].start = ABSENT
        node.media_type.start = node.subtype.start = node.parameters.start = ABSENT
        if parent >= 0:
            above = &self.nodes[parent]
            node.depth = above.depth + 1
            if above.last_child < 0:
                above.first_child = index
            else:
                node.number = self.nodes[above.last_child].number + 1
                self.nodes[above.last_child].next_sibling = index
            above.last_child = index
            node.in_digest = above.kind == MULTIPART and slice_is(&self.text, &above.subtype, b"digest", 6)
        self.node_count += 1
        return index

    cdef int start_part(self, uint64_t offset) noexcept nogil:
        """A part of the multipart self.current begins."""
        cdef int index = self.new_node(self.current, offset, False)
        self.field = -1
        if index < 0:
            self.boundary_count = 0
            return 0
        self.current = index
        self.mode = HEADER
        if self.node_count >= MAX_PARTS:
            self.boundary_count = 0                 # the last part takes all the rest
        return 0

    cdef int end_header(self, uint64_t body_offset) noexcept nogil:
        """The current header's empty line ended before `body_offset`."""
        cdef Node* node = &self.nodes[self.current]
        cdef int inner
        node.header_done = True
        node.header_length = body_offset - node.header_offset
        node.body_offset = body_offset
        node.lines = self.newlines
        self.field = -1
        self.mode = BODY_LINE_START
        self.classify(self.current)
        if self.nodes[self.current].kind == MESSAGE:
            inner = self.new_node(self.current, body_offset, True)
            if inner < 0:
                self.nodes[self.current].kind = OPAQUE
                return 0
            self.current = inner
            self.mode = HEADER
        return 0

    cdef int classify(self, int index) noexcept nogil:
        """Decides by Content-Type, default and bounds what a node is; opens a multipart's boundary."""
        cdef Node* node = &self.nodes[index]
        cdef Slice boundary
        cdef bint full = node.depth >= MAX_DEPTH or self.node_count >= MAX_PARTS
        read_media_type(&self.text, node)
        if node.media_type.start == ABSENT:
            node.kind = TEXT if not node.in_digest else OPAQUE if full else MESSAGE
        elif slice_is(&self.text, &node.media_type, b"multipart", 9):
            if full or self.boundary_count >= BOUNDARY_DEPTH:
                node.kind = OPAQUE
            elif not take_boundary(&self.text, node, &boundary):
                node.kind = TEXT                    # no boundary, no parts: shown as what it is to a reader
                node.media_type.start = ABSENT
            else:
                node.kind = MULTIPART
                self.boundaries[self.boundary_count].node = index
                self.boundaries[self.boundary_count].value = boundary
                self.boundary_count += 1
        elif slice_is(&self.text, &node.media_type, b"message", 7) and slice_is(&self.text, &node.subtype, b"rfc822", 6):
            node.kind = OPAQUE if full else MESSAGE
        elif slice_is(&self.text, &node.media_type, b"text", 4):
            node.kind = TEXT
        else:
            node.kind = LEAF
        return 0

    cdef bint take_delimiter(self, const char* line, Py_ssize_t length) noexcept nogil:
        """If the line is a delimiter of an open multipart: closes what it ends, and makes that multipart current.

        The line need only begin with the boundary (RFC 2046 §5.1.1); of several that fit, the longest counts, unless one is exact:
        Dovecot's rule, which keeps "foo" and "foo--" apart.
        """
        cdef int i, best = -1
        cdef Slice* value
        cdef Py_ssize_t size
        cdef bint dashes
        cdef uint64_t end
        while length > 0 and is_space(line[length - 1]):
            length -= 1
        if length < 3 or line[1] != c"-":
            return False
        line += 2
        length -= 2
        dashes = length >= 2 and line[length - 1] == c"-" and line[length - 2] == c"-"
        for i in range(self.boundary_count - 1, -1, -1):
            value = &self.boundaries[i].value
            size = value.length
            if size > length or memcmp(line, self.text.data + value.start, size) != 0:
                continue
            if best < 0 or size > <Py_ssize_t>self.boundaries[best].value.length:
                best = i
                if size == length or (dashes and size == length - 2):
                    break
        if best < 0:
            return False
        size = self.boundaries[best].value.length
        end = self.line_start - self.eol
        self.close_below(self.boundaries[best].node, end, self.newlines - (1 if self.eol else 0))
        self.current = self.boundaries[best].node
        self.part_follows = not (length >= size + 2 and line[size] == c"-" and line[size + 1] == c"-")
        self.boundary_count = best + 1 if self.part_follows else best
        self.field = -1
        return True

    cdef int close_below(self, int ancestor, uint64_t end, uint64_t newlines) noexcept nogil:
        """Closes the current node and those around it, up to `ancestor`, which stays open."""
        cdef int index = self.current
        while index >= 0 and index != ancestor:
            self.close_node(index, end, newlines)
            index = self.nodes[index].parent
        return 0

    cdef int close_node(self, int index, uint64_t end, uint64_t newlines) noexcept nogil:
        cdef Node* node = &self.nodes[index]
        cdef int inner
        if not node.header_done:
            # The header ended without an empty line, so there is no body.
            node.header_done = True
            node.header_length = end - node.header_offset if end > node.header_offset else 0
            node.body_offset = node.header_offset + node.header_length
            self.classify(index)
            if self.nodes[index].kind == MESSAGE:
                inner = self.new_node(index, self.nodes[index].body_offset, True)
                if inner < 0:
                    self.nodes[index].kind = OPAQUE
                else:
                    self.nodes[inner].header_done = True
                    self.nodes[inner].kind = TEXT
            return 0
        if end > node.body_offset:
            node.body_length = end - node.body_offset
            node.lines = newlines - node.lines
            return 0
        node.lines = 0
        if node.header_offset <= end < node.body_offset:
            # The header's empty line ends with the delimiter's line end (RFC 2046 §5.1.1), so it has none.
            node.header_length = end - node.header_offset
            node.body_offset = end
        return 0

    cdef int close_all(self) noexcept nogil:
        """The message has ended."""
        cdef Py_ssize_t length = self.carry.size
        if length and self.mode == HEADER:
            self.header_line(self.carry.data, length, self.size)
        elif length and self.mode == BODY_LINE_START:
            self.take_delimiter(self.carry.data, length)
        self.carry.size = 0
        if self.part_follows:
            self.part_follows = False
            self.start_part(self.size)
        if self.current >= 0:
            self.close_below(-1, self.size, self.newlines)
        return 0

    cdef int put_in_front(self, const char* data, Py_ssize_t length, bint all_of_it) noexcept nogil:
        """Fields that are known only when the message has ended: they count before those that came, or instead of them all.

        Only what ENVELOPE shows can change so: the fields that say what the body is belong to the body.
        """
        cdef Slice came[FIELD_COUNT]
        cdef Slice* slot
        cdef const char* end = data + length
        cdef const char* q
        cdef Py_ssize_t line
        cdef int i
        self.current = 0
        self.boundary_count = 0
        self.field = -1
        memcpy(came, self.nodes[0].fields, sizeof(came))
        for i in range(FIELD_COUNT):
            self.nodes[0].fields[i].start = ABSENT
        if all_of_it:
            self.nodes[0].repeats = False
        while data < end:
            q = <const char*>memchr(data, 10, end - data)
            if q == NULL:
                q = end
            line = q - data
            if line and data[line - 1] == 13:
                line -= 1
            if line == 0:
                break
            self.header_line(data, line if line < MAX_LINE_BYTES else MAX_LINE_BYTES, 0)
            data = q + 1
        for i in range(FIELD_COUNT):
            slot = &self.nodes[0].fields[i]
            if i < DATE or (slot.start == ABSENT and not all_of_it):
                slot[0] = came[i]
            elif came[i].start == ABSENT or all_of_it:
                continue
            elif not is_address_field(i):
                self.nodes[0].repeats = True
            else:
                if self.text.size + slot.length + came[i].length + 1 > MAX_TEXT_BYTES:
                    continue
                if not reserve(&self.text, slot.length + came[i].length + 1):
                    continue
                put_again(&self.text, slot.start, slot.length)
                slot.start = <uint32_t>(self.text.size - slot.length)
                put(&self.text, b",", 1)
                put_again(&self.text, came[i].start, came[i].length)
                slot.length += came[i].length + 1
        return 0

    cpdef bytes finish(self, uint64_t prefix_length=0, bytes head=None, uint64_t cut=0, bytes header=None):
        """Ends the message and gives its structure record; the object is then clear for the next one.

        Offsets count from the first byte fed, or, where `prefix_length` is given, from as many bytes before it: they then hold
        for a message that has such a prefix in front, within its header. `head` are fields that stand in front, too, and are
        read. Of the header that was fed, `cut` bytes are not shown; `header` is then all of it as it is shown, head and all.
        """
        try:
            self.close_all()
            if head:
                prefix_length += len(head)
            if header is not None:
                prefix_length -= cut  # an offset modulo 2^64, added to those behind the header
                self.put_in_front(header, len(header), True)
            elif head:
                self.put_in_front(head, len(head), False)
            if self.failed or self.text.failed or self.carry.failed:
                raise MemoryError
            return make_record(self, prefix_length)
        finally:
            self.clear()
