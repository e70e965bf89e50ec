# Sequence sets, and the map between a session's sequence numbers and uids.

cdef struct Range:
    uint32_t low
    uint32_t high


cdef int _by_low(const void* a, const void* b) noexcept nogil:
    cdef uint32_t x = (<const Range*>a).low
    cdef uint32_t y = (<const Range*>b).low
    return (x > y) - (x < y)


cdef array.array _normal(array.array pairs, uint32_t star, int* over):
    """The pairs of a sequence set with "*" put in, ordered, merged. `over` becomes 1 where a number is above `star`."""
    cdef Py_ssize_t n = len(pairs) // 2
    cdef array.array out
    cdef Range* r
    cdef Py_ssize_t i, k
    cdef uint32_t low, high
    over[0] = 0
    if n == 0:  # nothing is copied: an empty array has no memory
        return array.clone(pairs, 0, False)
    out = array.copy(pairs)
    r = <Range*>out.data.as_voidptr
    for i in range(n):
        # r has n pairs
        if r[i].low > star or r[i].high > star or star == 0:
            over[0] = 1
        low = r[i].low if r[i].low else star
        high = r[i].high if r[i].high else star
        if low > high:
            low, high = high, low
        r[i].low = low
        r[i].high = high
    qsort(r, n, sizeof(Range), _by_low)
    k = 0
    for i in range(1, n):
        if r[i].low <= r[k].high or r[i].low - 1 == r[k].high:
            if r[i].high > r[k].high:
                r[k].high = r[i].high
        else:
            k += 1
            r[k] = r[i]
    array.resize(out, (k + 1) * 2)
    return out


cdef class UidMap:
    """The uids of one session's view, ascending; message n is the n-th of them. Kept as runs of consecutive uids, 8 octets each.

    `removed` is rare and rebuilds; `extend` is cheap; look-ups are binary searches.
    """

    cdef Range* runs          # low: first uid of the run; high: its first sequence number
    cdef Py_ssize_t used
    cdef Py_ssize_t capacity
    cdef readonly uint32_t count
    cdef readonly uint32_t last   # the largest uid, 0 when empty

    def __cinit__(self):
        self.runs = NULL
        self.used = self.capacity = 0
        self.count = 0
        self.last = 0

    def __dealloc__(self):
        free(self.runs)

    def __len__(self):
        return self.count

    cdef int _push(self, uint32_t uid) except -1:
        """Appends a uid above all others."""
        cdef Range* grown
        cdef Py_ssize_t wanted
        if self.used == 0 or uid != self.last + 1:
            if self.used == self.capacity:
                wanted = 1 if self.capacity == 0 else self.capacity * 2
                grown = <Range*>realloc(self.runs, wanted * sizeof(Range))
                if grown == NULL:
                    raise MemoryError
                self.runs = grown
                self.capacity = wanted
            self.runs[self.used].low = uid
            self.runs[self.used].high = self.count + 1
            self.used += 1
        self.last = uid
        self.count += 1
        return 0

    cdef inline uint32_t _length(self, Py_ssize_t run) noexcept:
        return (self.runs[run + 1].high if run + 1 < self.used else self.count + 1) - self.runs[run].high

    cdef Py_ssize_t _run_of_uid(self, uint32_t uid) noexcept:
        """The last run that begins at or below `uid`, or -1."""
        cdef Py_ssize_t low = 0
        cdef Py_ssize_t high = self.used
        cdef Py_ssize_t middle
        while low < high:
            middle = (low + high) >> 1
            if self.runs[middle].low <= uid:
                low = middle + 1
            else:
                high = middle
        return low - 1

    cdef Py_ssize_t _run_of_seq(self, uint32_t seq) noexcept:
        cdef Py_ssize_t low = 0
        cdef Py_ssize_t high = self.used
        cdef Py_ssize_t middle
        while low < high:
            middle = (low + high) >> 1
            if self.runs[middle].high <= seq:
                low = middle + 1
            else:
                high = middle
        return low - 1

    cpdef uint32_t extend(self, array.array uids) except? 0xFFFFFFFF:
        """Appends the uids that are above `last`, in ascending order; how many there were."""
        cdef uint32_t before = self.count
        cdef Py_ssize_t i
        cdef uint32_t* data = <uint32_t*>uids.data.as_voidptr
        for i in range(len(uids)):
            if data[i] > self.last:
                self._push(data[i])
        return self.count - before

    cpdef uint32_t seq_of(self, uint32_t uid):
        """The sequence number of a uid; 0 where it is not in the view."""
        cdef Py_ssize_t run = self._run_of_uid(uid)
        if run < 0 or uid - self.runs[run].low >= self._length(run):
            return 0
        return self.runs[run].high + (uid - self.runs[run].low)

    cpdef tuple seqs_of(self, array.array uids):
        """(seqs, uids) of those of these uids that are in the view, in their order."""
        cdef Py_ssize_t n = len(uids)
        cdef Py_ssize_t kept = 0
        cdef Py_ssize_t i
        cdef array.array seqs = array.clone(U32, n, False)
        cdef array.array found = array.clone(U32, n, False)
        cdef uint32_t* u = <uint32_t*>uids.data.as_voidptr
        cdef uint32_t* s = <uint32_t*>seqs.data.as_voidptr
        cdef uint32_t* f = <uint32_t*>found.data.as_voidptr
        cdef uint32_t seq
        for i in range(n):
            seq = self.seq_of(u[i])
            if seq:
                # kept <= i < n
                s[kept] = seq
                f[kept] = u[i]
                kept += 1
        array.resize(seqs, kept)
        array.resize(found, kept)
        return seqs, found

    cpdef uint32_t uid_of(self, uint32_t seq):
        """The uid of a sequence number; 0 where there is none."""
        cdef Py_ssize_t run
        if seq == 0 or seq > self.count:
            return 0
        run = self._run_of_seq(seq)
        return self.runs[run].low + (seq - self.runs[run].high)

    cpdef uint32_t count_from(self, uint32_t uid):
        """How many uids of the view are at or above this one."""
        cdef Py_ssize_t run = self._run_of_uid(uid)
        cdef uint32_t below
        if run < 0:
            return self.count
        below = self.runs[run].high - 1 + min(uid - self.runs[run].low, self._length(run))
        return self.count - below

    cpdef tuple all(self):
        """(seqs, uids) of the whole view, as array('I')."""
        cdef array.array seqs = array.clone(U32, 0, False)
        cdef array.array uids = array.clone(U32, 0, False)
        self._between(1, self.count, seqs, uids)
        return seqs, uids

    cdef int _between(self, uint32_t low, uint32_t high, array.array seqs, array.array uids) except -1:
        """Adds the messages low..high (sequence numbers; cut to what is there)."""
        cdef Py_ssize_t start = len(seqs)
        cdef Py_ssize_t run
        cdef uint32_t seq, n, i
        cdef uint32_t* s
        cdef uint32_t* u
        if high > self.count:
            high = self.count
        if low == 0 or low > high:
            return 0
        n = high - low + 1
        array.resize_smart(seqs, start + n)
        array.resize_smart(uids, start + n)
        s = <uint32_t*>seqs.data.as_voidptr + start
        u = <uint32_t*>uids.data.as_voidptr + start
        run = self._run_of_seq(low)
        for i in range(n):
            # low + i <= count, so a run exists for it
            seq = low + i
            while run + 1 < self.used and self.runs[run + 1].high <= seq:
                run += 1
            s[i] = seq
            u[i] = self.runs[run].low + (seq - self.runs[run].high)
        return 0

    cpdef object ranges_of_seqs(self, array.array pairs):
        """A sequence set as merged ranges of numbers, or None where it names a number that is not in the view."""
        cdef int over
        cdef array.array ranges = _normal(pairs, self.count, &over)
        return None if over else ranges

    cpdef array.array ranges_of_uids(self, array.array pairs):
        """A set of uids as ascending ranges of numbers; uids that are not in the view are passed over (RFC 3501 §6.4.8)."""
        cdef int over
        cdef array.array ranges = _normal(pairs, self.last, &over)
        cdef Range* r = <Range*>ranges.data.as_voidptr
        cdef Py_ssize_t i
        cdef Py_ssize_t kept = 0
        cdef uint32_t low, above
        for i in range(len(ranges) // 2):
            above = self.count_from(r[i].high + 1) if r[i].high < 0xFFFFFFFF else 0
            low = self.count - self.count_from(r[i].low) + 1
            if low <= self.count - above:
                # kept <= i: a place that has been read
                r[kept].low = low
                r[kept].high = self.count - above
                kept += 1
        if 2 * kept < len(ranges):
            array.resize(ranges, 2 * kept)
        return ranges

    cpdef tuple numbers(self, array.array ranges, uint32_t start, uint32_t most):
        """(seqs, uids) of what ascending ranges of numbers name, without the first `start`, at most `most` of them."""
        cdef array.array seqs = array.clone(U32, 0, False)
        cdef array.array uids = array.clone(U32, 0, False)
        cdef Range* r = <Range*>ranges.data.as_voidptr
        cdef Py_ssize_t i
        cdef uint32_t length
        for i in range(len(ranges) // 2):
            if most == 0:
                break
            length = r[i].high - r[i].low + 1
            if start >= length:
                start -= length
                continue
            length = min(length - start, most)
            self._between(r[i].low + start, r[i].low + start + length - 1, seqs, uids)
            start = 0
            most -= length
        return seqs, uids

    cpdef tuple by_uids(self, array.array pairs):
        """(seqs, uids) of all of a set of uids."""
        return self.numbers(self.ranges_of_uids(pairs), 0, self.count)

    cpdef bytes expunge(self, array.array gone):
        """Removes uids (any order) and gives their EXPUNGE responses, from the highest number down."""
        cdef Py_ssize_t n = len(gone)
        cdef array.array sorted_gone = array.array("I", sorted(set(gone)))
        cdef uint32_t* g = <uint32_t*>sorted_gone.data.as_voidptr
        cdef UidMap kept = UidMap()
        cdef list out = []
        cdef Py_ssize_t i
        cdef Py_ssize_t k = 0
        cdef uint32_t uid, seq, j
        n = len(sorted_gone)
        for i in range(n - 1, -1, -1):
            seq = self.seq_of(g[i])
            if seq:
                out.append(b"* %d EXPUNGE\r\n" % seq)
        if not out:
            return b""
        for i in range(self.used):
            for j in range(self._length(i)):
                uid = self.runs[i].low + j
                while k < n and g[k] < uid:
                    k += 1
                if not (k < n and g[k] == uid):
                    kept._push(uid)
        self.runs, kept.runs = kept.runs, self.runs
        self.used, kept.used = kept.used, self.used
        self.capacity, kept.capacity = kept.capacity, self.capacity
        self.count = kept.count
        self.last = kept.last
        return b"".join(out)

    cpdef array.array missing(self, array.array present):
        """The uids of the view that are not in `present` (ascending): gone without a record of it."""
        cdef array.array out = array.clone(U32, 0, False)
        cdef uint32_t* p = <uint32_t*>present.data.as_voidptr
        cdef Py_ssize_t n = len(present)
        cdef Py_ssize_t k = 0
        cdef Py_ssize_t i
        cdef uint32_t uid, j
        for i in range(self.used):
            for j in range(self._length(i)):
                uid = self.runs[i].low + j
                while k < n and p[k] < uid:
                    k += 1
                if not (k < n and p[k] == uid):
                    array.extend_buffer(out, <char*>&uid, 1)
        return out

    cpdef array.array absent(self, array.array ranges, uint32_t below):
        """Of merged ranges (pairs of low, high), the uids under `below` that are not in the view, as pairs again."""
        cdef array.array out = array.clone(U32, 0, False)
        cdef Range* r = <Range*>ranges.data.as_voidptr
        cdef uint32_t pair[2]
        cdef uint32_t low, high, last
        cdef Py_ssize_t i, run
        for i in range(len(ranges) // 2):
            low = r[i].low if r[i].low else 1
            high = r[i].high if r[i].high < below else below - 1
            run = self._run_of_uid(low)
            if run < 0:
                run = 0
            while low <= high and below:
                while run < self.used and self.runs[run].low + (self._length(run) - 1) < low:
                    run += 1
                if run == self.used or self.runs[run].low > high:
                    pair[0] = low
                    pair[1] = high
                    array.extend_buffer(out, <char*>pair, 2)
                    break
                if self.runs[run].low > low:
                    pair[0] = low
                    pair[1] = self.runs[run].low - 1
                    array.extend_buffer(out, <char*>pair, 2)
                last = self.runs[run].low + (self._length(run) - 1)
                if last == 0xFFFFFFFF:
                    break
                low = last + 1
        return out

    def memory_bytes(self) -> int:
        return self.capacity * sizeof(Range)


def range_length(array.array ranges) -> int:
    """How many numbers merged ranges have."""
    cdef Range* r = <Range*>ranges.data.as_voidptr
    cdef Py_ssize_t i
    cdef uint64_t length = 0
    for i in range(len(ranges) // 2):
        length += <uint64_t>r[i].high - r[i].low + 1
    return length


def uid_pairs(array.array uids) -> array.array:
    """Ascending numbers as pairs of low, high."""
    cdef array.array out = array.clone(U32, 0, False)
    cdef uint32_t* u = <uint32_t*>uids.data.as_voidptr
    cdef Py_ssize_t n = len(uids)
    cdef Py_ssize_t i = 0
    cdef uint32_t pair[2]
    while i < n:
        pair[0] = pair[1] = u[i]
        i += 1
        while i < n and u[i] == pair[1] + 1:
            pair[1] = u[i]
            i += 1
        array.extend_buffer(out, <char*>pair, 2)
    return out


def pair_set(array.array pairs) -> bytes:
    """Pairs of low, high as a set: b"3:5,9"."""
    cdef list out = []
    cdef uint32_t* u = <uint32_t*>pairs.data.as_voidptr
    cdef Py_ssize_t i
    for i in range(0, len(pairs) - 1, 2):
        out.append(b"%d" % u[i] if u[i] == u[i + 1] else b"%d:%d" % (u[i], u[i + 1]))
    return b",".join(out)


def uid_set(array.array uids) -> bytes:
    """A set of numbers in given order, consecutive ones as ranges: b"3:5,9" (RFC 4315 §3 uid-set)."""
    cdef list out = []
    cdef uint32_t* u = <uint32_t*>uids.data.as_voidptr
    cdef Py_ssize_t n = len(uids)
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t k
    while i < n:
        k = i
        while k + 1 < n and u[k + 1] == u[k] + 1:
            k += 1
        out.append(b"%d" % u[i] if k == i else b"%d:%d" % (u[i], u[k]))
        i = k + 1
    return b",".join(out)
