# What every engine has: the memory of units, and how much of blobs is on its way.


cdef class Engine:
    """Carries units out. Made by a subclass, which says how a unit is submitted and where chunks that have come are read."""

    def __cinit__(self):
        self.congested = set()
        self.pending_limit = 64 * 1024 * 1024

    def __dealloc__(self):
        cdef CUnit* u
        while self._free != NULL:
            u = self._free
            self._free = u.next
            unit_free(u)

    cdef CUnit* take_unit(self) except NULL:
        cdef CUnit* u = self._free
        if u == NULL:
            u = <CUnit*>calloc(1, sizeof(CUnit))
            if u == NULL:
                raise MemoryError
            return u
        self._free = u.next
        self._free_count -= 1
        u.next = NULL
        return u

    cdef void give_unit(self, CUnit* u) noexcept:
        unit_free_bodies(u)
        if self._free_count >= UNITS_KEPT or u.ops.capacity > 65536 or u.results.capacity > 65536 or u.bodies.capacity > 65536:
            unit_free(u)
            return
        u.ops.length = u.results.length = u.weight = 0
        u.status = u.code = u.sync = u.fail_at = u.finished = 0
        u.owner = NULL
        u.next = self._free
        self._free = u
        self._free_count += 1

    cpdef Unit new_unit(self):
        return Unit.__new__(Unit, self)

    cpdef uint64_t new_id(self) except 0:
        """A number that no other message, blob or mailbox has, in this store or another."""
        raise NotImplementedError

    cpdef Blob new_blob(self):
        raise NotImplementedError

    def submit(self, Unit unit not None, callback):
        """Hands the unit over; `callback(unit)` is called later, never from here. None: nobody wants to know."""
        raise NotImplementedError

    def fate(self, Unit unit not None, loop not None):
        """Hands the unit over; what is given is to be awaited on `loop`, and the unit then tells what became of it."""
        cdef Fate fate = Fate.__new__(Fate)
        fate.loop = loop
        self.submit_c(unit, fate)
        return fate

    cpdef Unit unpack(self, const unsigned char[::1] packed):
        """The unit that `Unit.pack` wrote down, not submitted yet. ValueError where these are no such octets."""
        cdef Unit unit = self.new_unit()
        unit_unpack(unit.u, &packed[0] if packed.shape[0] else NULL, packed.shape[0])
        return unit

    cdef int submit_c(self, Unit unit, Waiter waiter) except -1:
        """Hands the unit over; `waiter.unit_done` is called later, never from here."""
        raise NotImplementedError

    cdef Py_ssize_t read_pending(self, uint64_t blob_id, uint64_t offset, char* out, Py_ssize_t n) except -2:
        """Copies bytes of a blob's committed chunks; how many."""
        raise NotImplementedError

    cdef int chunk_done(self, Blob blob, size_t n, bint ok) except -1:
        cdef list drained
        blob.in_flight -= n
        self.pending_bytes -= n
        if not ok:
            blob.failed = True
        if not self.congested:
            return 0
        drained = [each for each in self.congested
                   if (<Blob>each).in_flight <= BLOB_IN_FLIGHT // 2 and self.pending_bytes <= self.pending_limit // 2
                   or (<Blob>each).in_flight == 0]
        for each in drained:
            self.congested.discard(each)
            if each.on_drain is not None:
                each.on_drain()
        return 0

    cdef int let_go(self, Unit unit, bint stopping) except -1:
        """Frees the bodies of a finished unit; chunks of a blob that did not get in go to the trash."""
        cdef CUnit* u = unit.u
        cdef Body** bodies = <Body**>u.bodies.data
        cdef Unit ending
        cdef size_t i
        if u.bodies.length == 0:
            return 0
        if u.status != COMMITTED_ and not stopping:
            for i in range(u.bodies.length // sizeof(Body*)):
                if bodies[i].whole and bodies[i].first_chunk:
                    ending = self.new_unit()
                    ending.abandon(bodies[i].blob_id)
                    self.submit_c(ending, None)
        unit_free_bodies(u)
        return 0
