# A message's bytes on their way in: in C memory at first, as chunks in the store beyond BODY_MEMORY.

cdef void body_free(Body* body) noexcept nogil:
    buffer_free(&body.bytes)
    buffer_free(&body.front)
    free(body)


cdef Body* body_new(uint64_t blob_id, uint64_t incarnation) except NULL:
    cdef Body* body = <Body*>calloc(1, sizeof(Body))
    if body == NULL:
        raise MemoryError
    body.blob_id = blob_id
    body.incarnation = incarnation
    return body


cdef Py_ssize_t body_copy(Body* body, uint64_t offset, char* out, Py_ssize_t n) noexcept:
    """Copies what of a blob's bytes from `offset` lies in this memory; how many."""
    cdef uint64_t first = <uint64_t>body.first_chunk * CHUNK
    if n <= 0 or offset < first or offset >= first + body.bytes.length:
        return 0
    if <uint64_t>n > first + body.bytes.length - offset:
        n = <Py_ssize_t>(first + body.bytes.length - offset)
    memcpy(out, body.bytes.data + (offset - first), n)
    return n


cdef inline Body* first_body(Unit unit) noexcept:
    """The chunks that a unit of `_flush` brings."""
    return (<Body**>unit.u.bodies.data)[0]


@cython.final
cdef class _ChunkWaiter(Waiter):
    """Learns that chunks of a blob have been committed, or have failed."""

    cdef Blob blob
    cdef size_t n

    cdef int unit_done(self, Unit unit) except -1:
        if self.blob.flying:
            self.blob.flying.remove(unit)
        return self.blob.engine.chunk_done(self.blob, self.n, unit.u.status == 1)


@cython.final
cdef class Blob:
    """A message being received. Used by exactly one unit, or abandoned; what is neither is abandoned when it is forgotten."""

    def __cinit__(self, Engine engine not None, uint64_t blob_id, uint64_t incarnation):
        self.engine = engine
        self.blob_id = blob_id
        self.body = body_new(blob_id, incarnation)

    def __dealloc__(self):
        if self.body != NULL:
            body_free(self.body)

    def __del__(self):
        if not self.used and self.streamed:
            try:
                self.abandon()
            except StorageFailure:
                pass  # the store is closed: its next opening reaps the chunks

    @property
    def congested(self):
        """More of this blob or of all of them waits for the disk than is allowed: pause reading until on_drain is called."""
        if self.in_flight > BLOB_IN_FLIGHT or (self.in_flight and self.engine.pending_bytes > self.engine.pending_limit):
            self.was_congested = True
            self.engine.congested.add(self)
            return True
        return False

    cdef int write(self, const char* data, Py_ssize_t n) except -1:
        """Appends n bytes, copied."""
        cdef size_t room
        if self.used:
            raise RuntimeError("the blob was used or abandoned already")
        while n > 0:
            room = BODY_MEMORY - self.body.bytes.length
            if room > <size_t>n:
                room = n
            if buffer_add(&self.body.bytes, data, room) < 0:
                raise MemoryError
            self.size += room
            self.body_size += room
            data += room
            n -= room
            if self.body.bytes.length >= BODY_MEMORY:
                self._flush()
        return 0

    cpdef int feed(self, data) except -1:
        cdef const unsigned char[::1] view
        if type(data) is bytes:
            return self.write(<const char*>data, len(<bytes>data))
        view = memoryview(data).cast("B")
        return self.write(<const char*>&view[0], view.shape[0]) if view.shape[0] else 0

    cpdef int spill(self) except -1:
        """Has what has come written now, but for less than a chunk, so that the unit that uses it stays small."""
        if not self.used and self.body.bytes.length >= CHUNK:
            self._flush()
        return 0

    # --- what is shown of it ---

    @property
    def head(self):
        """Octets that stand in front of what came: whole fields of a header. Set when the message has ended."""
        if self.used:
            raise RuntimeError("the blob was used or abandoned already")
        return self.body.front.data[: self.body.head_length] if self.body.head_length else b""

    @head.setter
    def head(self, bytes value not None):
        if value and (value[0] in b" \t\r\n" or not value.endswith(b"\r\n") or b"\r\n\r\n" in value):
            raise ValueError("a head is whole fields of a header, each with its line end")
        self.put_head(value, len(value))

    cdef int put_head(self, const char* data, Py_ssize_t n) except -1:
        """Sets the head; the caller has made it of whole fields."""
        if self.used:
            raise RuntimeError("the blob was used or abandoned already")
        if n > HEAD_MAX:
            raise ValueError(f"a head of more than {HEAD_MAX} octets")
        self.body.front.length = 0
        if buffer_add(&self.body.front, data, n) < 0:
            raise MemoryError
        self.size += n - self.body.head_length
        self.body.head_length = <uint16_t>n
        return 0

    def cut(self, uint64_t start, uint64_t end):
        """Hides a range of what came: whole fields of its header. Ranges that touch become one; there are 64 at most."""
        if self.used:
            raise RuntimeError("the blob was used or abandoned already")
        if not start < end <= self.body_size or end > 0xFFFFFFFFu:
            raise ValueError("a cut lies inside of what came")
        merged = []
        for first, last in sorted((self.cuts or []) + [(start, end)]):
            if merged and first <= before[1]:
                merged.pop()
                first, last = before[0], max(before[1], last)
            before = first, last
            merged.append(before)
        if len(merged) > CUTS_MAX:
            raise ValueError(f"more than {CUTS_MAX} cuts")
        length = sum([each[1] - each[0] for each in merged])
        self.size -= length - self.body.cut_length
        self.body.cut_length = length
        self.cuts = merged

    cdef int _compose_front(self) except -1:
        """Puts the cuts before the head, as the record has them."""
        cdef Buffer front
        cdef uint32_t pair[2]
        cdef int failed = 0
        if self.cuts is None or self.body.cuts:
            return 0
        memset(&front, 0, sizeof(front))
        for start, end in self.cuts:
            pair[0] = start
            pair[1] = end
            failed |= buffer_add(&front, pair, 8)
        failed |= buffer_add(&front, self.body.front.data, self.body.head_length)
        if failed:
            buffer_free(&front)
            raise MemoryError
        buffer_free(&self.body.front)
        self.body.front = front
        self.body.cuts = <uint8_t>len(self.cuts)
        return 0

    def read(self, uint64_t offset, Py_ssize_t n):
        """Octets of what has come so far, without head and cuts; fewer than n only at the end. StorageFailure where the store
        has given up on it."""
        cdef Py_ssize_t done = 0
        cdef uint64_t at
        cdef Unit unit
        cdef bytes out
        if self.used:
            raise RuntimeError("the blob was used or abandoned already")
        if offset >= self.body_size or n <= 0:
            return b""
        if <uint64_t>n > self.body_size - offset:
            n = <Py_ssize_t>(self.body_size - offset)
        out = PyBytes_FromStringAndSize(NULL, n)
        at = first_body(self.flying[0]).first_chunk if self.flying else self.body.first_chunk
        at *= CHUNK
        if offset < at:
            done = min(n, <Py_ssize_t>(at - offset))
            if self.failed or self.engine.read_pending(self.blob_id, offset, PyBytes_AS_STRING(out), done) != done:
                raise StorageFailure("what came of a message cannot be read")
        for unit in self.flying or ():
            done += body_copy(first_body(unit), offset + done, PyBytes_AS_STRING(out) + done, n - done)
        done += body_copy(self.body, offset + done, PyBytes_AS_STRING(out) + done, n - done)
        if done != n:  # chunks that failed are counted and not kept
            raise StorageFailure("what came of a message cannot be read")
        return out

    cdef int _flush(self) except -1:
        """Hands the full chunks in memory to the committer; the rest goes on in a buffer of its own."""
        cdef Body* full = self.body
        cdef Body* rest
        cdef Unit unit
        cdef Op* op
        cdef _ChunkWaiter waiter
        cdef size_t chunks = full.bytes.length // CHUNK
        cdef size_t n = chunks * CHUNK
        if self.failed:  # the store has given up on it: what still comes only has to be counted
            full.bytes.length = 0
            return 0
        rest = body_new(self.blob_id, full.incarnation)
        rest.first_chunk = full.first_chunk + <uint32_t>chunks
        rest.head_length = full.head_length
        rest.front = full.front
        memset(&full.front, 0, sizeof(full.front))
        if buffer_add(&rest.bytes, full.bytes.data + n, full.bytes.length - n) < 0:
            full.front = rest.front
            memset(&rest.front, 0, sizeof(rest.front))
            body_free(rest)
            raise MemoryError
        self.body = rest
        full.bytes.length = n
        unit = self.engine.new_unit()
        op = unit._op(OP_CHUNKS)
        op.b = n
        unit._own(op, full)
        unit.u.weight += n
        waiter = _ChunkWaiter.__new__(_ChunkWaiter)
        waiter.blob = self
        waiter.n = n
        self.streamed = True
        self.in_flight += n
        self.engine.pending_bytes += n
        if self.flying is None:
            self.flying = []
        self.flying.append(unit)
        self.engine.submit_c(unit, waiter)
        return 0

    cpdef abandon(self):
        """Gives the bytes up, and has the chunks that are in the store, or on their way, go to the trash; calling it twice, or after
        use, does nothing."""
        cdef Unit unit
        if self.used:
            return
        self.used = True
        buffer_free(&self.body.bytes)
        self.flying = None
        self.engine.congested.discard(self)
        self.on_drain = None
        if self.streamed:
            unit = self.engine.new_unit()
            unit.abandon(self.blob_id)
            self.engine.submit_c(unit, None)
