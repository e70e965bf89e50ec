# A message's bytes on their way in: in C memory at first, as chunks in the store beyond BODY_MEMORY.

cdef size_t BLOB_IN_FLIGHT = 4 * BODY_MEMORY  # of one blob, handed to the committer and not committed yet


cdef void body_free(Body* body) noexcept:
    buffer_free(&body.bytes)
    free(body)


cdef Body* body_new(uint64_t blob_id, uint64_t incarnation) except NULL:
    cdef Body* body = <Body*>calloc(1, sizeof(Body))
    if body == NULL:
        raise MemoryError
    body.blob_id = blob_id
    body.incarnation = incarnation
    return body


@cython.final
cdef class _ChunkWaiter(Waiter):
    """Learns that chunks of a blob have been committed, or have failed."""

    cdef Blob blob
    cdef size_t n

    cdef int unit_done(self, Unit unit) except -1:
        return self.blob.store._chunk_done(self.blob, self.n, unit.u.status == 1)


@cython.final
cdef class Blob:
    """A message being received. Used by exactly one unit, or abandoned; what is neither is abandoned when it is forgotten."""

    def __cinit__(self, Store store, uint64_t blob_id, uint64_t incarnation):
        self.store = store
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
        if self.in_flight > BLOB_IN_FLIGHT or (self.in_flight and self.store._pending_bytes > self.store._pending_limit):
            self.was_congested = True
            self.store._congested.add(self)
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
            self.body.size = self.size
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
        rest.size = self.size
        if buffer_add(&rest.bytes, full.bytes.data + n, full.bytes.length - n) < 0:
            body_free(rest)
            raise MemoryError
        self.body = rest
        unit = Unit.__new__(Unit, self.store)
        unit.body = full
        op = unit._op(OP_CHUNKS)
        op.body = full
        op.b = n
        unit.u.weight += n
        waiter = _ChunkWaiter.__new__(_ChunkWaiter)
        waiter.blob = self
        waiter.n = n
        self.streamed = True
        self.in_flight += n
        self.store._pending_bytes += n
        self.store.submit_c(unit, waiter)
        return 0

    cpdef abandon(self):
        """Gives the bytes up; calling it twice, or after use, does nothing."""
        if self.used:
            return
        self.used = True
        buffer_free(&self.body.bytes)
        self.store._congested.discard(self)
        self.on_drain = None
        self._discard()

    cdef int _discard(self) except -1:
        """Has the chunks that are in the store already, and all that is on its way there, go to the trash."""
        cdef Unit unit
        if self.streamed:
            unit = self.store.new_unit()
            unit._op(OP_ABANDON).a = self.blob_id
            self.store.submit_c(unit, None)
        return 0
