# A segment made of texts.

cdef inline uint32_t gram_of(uint32_t a, uint32_t b, uint32_t c) noexcept nogil:
    cdef uint64_t h
    if (a | b | c) < 128:
        return a << 14 | b << 7 | c
    h = (<uint64_t>a << 42 | <uint64_t>b << 21 | c) * 0x9E3779B97F4A7C15u
    return WIDE | <uint32_t>(h >> 43)


@cython.final
cdef class Builder:
    """Messages of one mailbox, in order of their uids, on their way into a segment."""

    cdef uint8_t* seen              # a bit for each gram: those of the message under way
    cdef uint32_t* grams            # of all messages, one message behind the other
    cdef size_t count, room
    cdef uint32_t* ends             # of each message's grams
    cdef readonly object uids
    cdef readonly object skipped

    def __cinit__(self):
        self.seen = <uint8_t*>calloc(GRAMS // 8, 1)
        self.ends = <uint32_t*>malloc(ALL_DOCS * sizeof(uint32_t))
        if self.seen == NULL or self.ends == NULL:
            raise MemoryError
        self.uids = array("I")
        self.skipped = array("I")

    def __dealloc__(self):
        free(self.seen)
        free(self.grams)
        free(self.ends)

    @property
    def pairs(self):
        """Grams so far, each once a message: four bytes of memory, and sixteen while the segment is made."""
        return self.count

    def skip(self, uint32_t uid):
        """A message that is not in the segment, and has to be looked through."""
        self.skipped.append(uid)

    def add(self, uint32_t uid, list headers not None, list behind not None):
        """A message by its texts, whose case is folded: no word reaches from one into the next."""
        cdef size_t start = self.count, i
        cdef Py_ssize_t docs = len(self.uids)
        cdef int failed = 0
        if docs >= ALL_DOCS:
            raise ValueError("a segment is full")
        for text in headers:
            failed |= self.take(text, 0)
        for text in behind:
            failed |= self.take(text, BEHIND)
        with nogil:
            for i in range(start, self.count):
                self.seen[self.grams[i] >> 3] = 0
        if failed:
            self.count = start
            raise MemoryError
        self.ends[docs] = <uint32_t>self.count
        self.uids.append(uid)

    cdef int take(self, str text, uint32_t field):
        cdef int kind = PyUnicode_KIND(text)
        cdef void* data = PyUnicode_DATA(text)
        cdef Py_ssize_t length = PyUnicode_GET_LENGTH(text), i
        cdef uint32_t a, b, c, gram
        if length < 3:
            return 0
        with nogil:
            a = PyUnicode_READ(kind, data, 0)
            b = PyUnicode_READ(kind, data, 1)
            for i in range(2, length):
                c = PyUnicode_READ(kind, data, i)
                gram = gram_of(a, b, c) | field
                a = b
                b = c
                if self.seen[gram >> 3] & (1 << (gram & 7)):
                    continue
                if self.count == self.room and self.more() < 0:
                    return -1
                self.seen[gram >> 3] |= <uint8_t>(1 << (gram & 7))
                self.grams[self.count] = gram
                self.count += 1
        return 0

    cdef int more(self) noexcept nogil:
        cdef size_t room = self.room * 2 if self.room else 65536
        cdef uint32_t* grams = <uint32_t*>realloc(self.grams, room * sizeof(uint32_t))
        if grams == NULL:
            return -1
        self.grams = grams
        self.room = room
        return 0

    def finish(self, uint64_t mailbox, uint32_t first, uint32_t last):
        """The segment as bytes: of all messages of the mailbox from uid `first` to `last`, those that are left out among
        them."""
        cdef Writer w
        cdef uint32_t docs = len(self.uids)
        cdef int failed
        memset(&w, 0, sizeof(Writer))
        w.bitmap_bytes = (docs + 7) // 8
        try:
            with nogil:
                failed = self.write(&w, docs)
            if failed:
                raise MemoryError
            return record_of(&w, mailbox, first, last, self.uids, self.skipped)
        finally:
            free_writer(&w)

    cdef int write(self, Writer* w, uint32_t docs) noexcept nogil:
        """Sorts (gram, message) by gram, in two passes that keep the messages' order, and writes the blocks."""
        cdef uint64_t* a = <uint64_t*>malloc(self.count * 8 + 8)
        cdef uint64_t* b = <uint64_t*>malloc(self.count * 8 + 8)
        cdef uint16_t* list_ = <uint16_t*>malloc(ALL_DOCS * sizeof(uint16_t))
        cdef size_t i = 0
        cdef uint32_t doc, found, gram
        cdef int failed = -1
        if a != NULL and b != NULL and list_ != NULL:
            for doc in range(docs):
                while i < self.ends[doc]:
                    a[i] = <uint64_t>self.grams[i] << 16 | doc
                    i += 1
            sort_pass(a, b, self.count, 16, 12)
            sort_pass(b, a, self.count, 28, 11)
            failed = 0
            i = 0
            while i < self.count and not failed:
                gram = <uint32_t>(a[i] >> 16)
                found = 0
                while i < self.count and <uint32_t>(a[i] >> 16) == gram:
                    list_[found] = <uint16_t>a[i]
                    found += 1
                    i += 1
                failed = put_entry(w, gram, list_, found)
        free(a)
        free(b)
        free(list_)
        return failed


cdef void sort_pass(const uint64_t* source, uint64_t* target, size_t count, int shift, int bits) noexcept nogil:
    cdef size_t places[4096]
    cdef size_t i, place, total = 0, many
    cdef uint64_t mask = (1 << bits) - 1
    memset(places, 0, sizeof(places))
    for i in range(count):
        places[(source[i] >> shift) & mask] += 1
    for i in range(4096):
        many = places[i]
        places[i] = total
        total += many
    for i in range(count):
        place = (source[i] >> shift) & mask
        target[places[place]] = source[i]
        places[place] += 1
