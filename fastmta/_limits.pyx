"""The table of limits that all processes of a server share: what an address or an account holds, and how often it asks.

Memory that the supervisor maps (policy/limits.py says where): a header, one lock a set, the entries in sets of WAYS, and
for each process the numbers of what it holds of every entry. Whoever touches an entry has its set's lock, a word with
the process's range number in it; the supervisor frees the locks and the holdings of a process that has died.

Invariants: an entry that somebody holds is never evicted; `held` of an entry is the sum of what all processes hold of
it; the number of entries never changes, so a table full of what is held grants and does not count (UNCOUNTED).
Left to others: what is limited and by how much, the clock, and the words of a refusal.
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

cdef extern from *:
    """
    #include <sched.h>
    #include <stdint.h>
    static inline int limits_try(uint32_t* lock, uint32_t owner) {
        uint32_t expected = 0;
        return __atomic_compare_exchange_n(lock, &expected, owner, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
    }
    static inline void limits_free(uint32_t* lock) { __atomic_store_n(lock, 0, __ATOMIC_RELEASE); }
    static inline int limits_steal(uint32_t* lock, uint32_t from, uint32_t to) {
        return __atomic_compare_exchange_n(lock, &from, to, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
    }
    static inline uint32_t limits_peek(uint32_t* lock) { return __atomic_load_n(lock, __ATOMIC_RELAXED); }
    """
    bint limits_try(uint32_t* lock, uint32_t owner) nogil
    void limits_free(uint32_t* lock) nogil
    bint limits_steal(uint32_t* lock, uint32_t owner, uint32_t to) nogil
    uint32_t limits_peek(uint32_t* lock) nogil
    int sched_yield() nogil

cdef enum:
    WAYS = 16
    SETS = 4096
    ENTRIES = WAYS * SETS
    HEADER = 4096
    KEYS = 4          # of one peer's holdings
    COUNTABLE = 0x7FFFFFFF
    SPINS = 100_000  # yields of the processor, some 20 ms and more: a holder that is alive needs 50 ns

cdef struct Entry:
    uint64_t a        # of an address: IPv4 as a number, or the first half of an IPv6 address
    uint64_t b        # of an account or a service
    uint32_t kind     # 0: free
    uint32_t held     # at present, by all processes
    uint32_t count    # events in the present window, or a level
    uint32_t since    # when that window began, or the level was last raised
    uint32_t used     # when it was last touched
    uint32_t spare

TABLE_BYTES = HEADER + SETS * sizeof(uint32_t) + ENTRIES * sizeof(Entry)
HOLDINGS_BYTES = ENTRIES * sizeof(uint32_t)
REFUSED = 0
UNCOUNTED = -1


@cython.final
cdef class Table:
    """The table as one process sees it. `memory` is TABLE_BYTES, `holdings` HOLDINGS_BYTES of this process alone.

    `owner` is a number over 0 that no other process has. All instants are whole seconds of CLOCK_MONOTONIC.
    """

    cdef uint8_t[::1] memory
    cdef uint8_t[::1] own
    cdef uint32_t* locks
    cdef Entry* entries
    cdef uint32_t* holdings
    cdef uint32_t owner
    cdef uint64_t seed

    def __init__(self, memory not None, holdings not None, uint32_t owner, uint64_t seed=0):
        """`seed` is given by whoever made the memory, once; it makes a set's number nobody's to choose."""
        self.memory = memory
        self.own = holdings
        if self.memory.shape[0] < TABLE_BYTES or self.own.shape[0] < HOLDINGS_BYTES or owner == 0:
            raise ValueError("not the memory of a table of limits")
        if seed:
            (<uint64_t*>&self.memory[0])[0] = seed
        self.seed = (<uint64_t*>&self.memory[0])[0]
        self.locks = <uint32_t*>&self.memory[HEADER]
        self.entries = <Entry*>&self.memory[HEADER + SETS * sizeof(uint32_t)]
        self.holdings = <uint32_t*>&self.own[0]
        self.owner = owner

    cdef Py_ssize_t _set_of(self, uint32_t kind, uint64_t a, uint64_t b) noexcept nogil:
        cdef uint64_t h = self.seed ^ kind
        h = (h ^ a) * 0x9E3779B97F4A7C15U
        h = (h ^ (h >> 29) ^ b) * 0xBF58476D1CE4E5B9U
        h ^= h >> 32
        return <Py_ssize_t>(h % SETS)

    cdef void _lock(self, Py_ssize_t number) noexcept nogil:
        cdef int spins = 0
        cdef uint32_t holder = 0
        while not limits_try(self.locks + number, self.owner):
            spins += 1
            if spins > SPINS:  # its holder was killed in those 50 ns, and the supervisor has not cleared it yet
                holder = limits_peek(self.locks + number)
                if holder != 0 and limits_steal(self.locks + number, holder, self.owner):
                    return
                spins = 0
            sched_yield()

    cdef Entry* _entry(self, Py_ssize_t number, uint32_t kind, uint64_t a, uint64_t b, bint make) noexcept nogil:
        # The entry of a key, the set's lock being ours; NULL where there is none and none can be made. Indexes are
        # below WAYS of a set below SETS.
        cdef Entry* first = self.entries + number * WAYS
        cdef Entry* entry
        cdef Entry* oldest = NULL
        cdef int i
        for i in range(WAYS):
            entry = first + i
            if entry.kind == kind and entry.a == a and entry.b == b:
                return entry
            if entry.kind == 0:
                if oldest == NULL or oldest.kind != 0:
                    oldest = entry
            elif entry.held == 0 and (oldest == NULL or (oldest.kind != 0 and entry.used < oldest.used)):
                oldest = entry
        if not make or oldest == NULL:
            return NULL
        memset(oldest, 0, sizeof(Entry))
        oldest.a = a
        oldest.b = b
        oldest.kind = kind
        return oldest

    cpdef Py_ssize_t hold(self, uint32_t kind, uint64_t a, uint64_t b, uint32_t limit, uint32_t now, uint32_t n=1,
                          uint32_t mine=0) noexcept:
        """Takes `n` of at most `limit` (0: no limit): a place's number for `release`, REFUSED, or UNCOUNTED.

        `mine`: what the caller holds of it already. Whoever is alone may take more than the limit.
        """
        cdef Py_ssize_t number = self._set_of(kind, a, b)
        cdef Py_ssize_t place = UNCOUNTED
        cdef Entry* entry
        self._lock(number)
        entry = self._entry(number, kind, a, b, True)
        if entry != NULL:
            entry.used = now
            if limit != 0 and entry.held > mine and <uint64_t>entry.held + n > limit:
                place = REFUSED
            elif <uint64_t>entry.held + n <= 0xFFFFFFFFU:
                place = entry - self.entries
                self.holdings[place] += n  # first: a death in between is then too few for a while, never too many
                entry.held += n
                place += 1
        limits_free(self.locks + number)
        return place

    cpdef int release(self, Py_ssize_t place, uint32_t now, uint32_t n=1) except -1:
        """Gives back `n` of what we hold at a place; REFUSED and UNCOUNTED are none."""
        cdef Py_ssize_t number = (place - 1) // WAYS
        cdef Entry* entry
        if place <= 0:
            return 0
        if place > ENTRIES:
            raise IndexError("no such place")
        self._lock(number)
        if n <= self.holdings[place - 1]:
            self.holdings[place - 1] -= n
            entry = self.entries + place - 1
            entry.held -= n
            entry.used = now
        limits_free(self.locks + number)
        return 0

    def take(self, uint32_t kind, uint64_t a, uint64_t b, uint32_t n, uint32_t limit, uint32_t window, uint32_t now):
        """Counts `n` events in a window of so many seconds from the first: 0 where at most `limit` have come (it
        excluded: all are counted), else the seconds until the window ends.
        """
        cdef Py_ssize_t number = self._set_of(kind, a, b)
        cdef uint32_t wait = 0
        cdef Entry* entry
        self._lock(number)
        entry = self._entry(number, kind, a, b, True)
        if entry != NULL:
            entry.used = now
            if entry.count == 0 or now - entry.since >= window:
                entry.since = now
                entry.count = 0
            entry.count = entry.count + n if entry.count + n >= entry.count else 0xFFFFFFFFU
            if entry.count > limit:
                wait = max(1, window - (now - entry.since))
        limits_free(self.locks + number)
        return wait

    def grow(self, uint32_t kind, uint64_t a, uint64_t b, uint32_t top, uint32_t decay, uint32_t now, bint up):
        """The level of a key, raised by one to at most `top` if `up`; it loses one for each `decay` seconds."""
        cdef Py_ssize_t number = self._set_of(kind, a, b)
        cdef uint32_t level = 0
        cdef uint32_t lost
        cdef Entry* entry
        self._lock(number)
        entry = self._entry(number, kind, a, b, up)
        if entry != NULL:
            lost = (now - entry.since) // decay if decay else 0
            level = entry.count - lost if entry.count > lost else 0
            if up:
                level = level + 1 if level < top else top
                entry.count = level
                entry.since = entry.used = now
        limits_free(self.locks + number)
        return level

    def introduce(self, uint32_t kind, uint64_t a, uint64_t b, uint32_t delay, uint32_t window, uint32_t age, uint32_t now):
        """Whether a key has come again, not before `delay` seconds and not after `window` from when it was first seen:
        the seconds that it is still too early, or 0. What has come again stays known until it is not seen for `age`.
        """
        cdef Py_ssize_t number = self._set_of(kind, a, b)
        cdef uint32_t wait = 0
        cdef Entry* entry
        self._lock(number)
        entry = self._entry(number, kind, a, b, True)
        if entry != NULL:
            if entry.used == 0 or (entry.count == 0 and now - entry.since > window) or (
                    entry.count and now - entry.used > age):
                entry.since = now
                entry.count = 0
            if entry.count == 0 and now - entry.since < delay:
                wait = delay - (now - entry.since)
            else:
                entry.count = 1
            entry.used = now
        limits_free(self.locks + number)
        return wait

    def note(self, uint32_t kind, uint64_t a, uint64_t b, uint32_t age, uint32_t gap, uint32_t now, bint up):
        """How often a key has been noted without a break of `age` seconds; now too if `up` and `gap` seconds have passed."""
        cdef Py_ssize_t number = self._set_of(kind, a, b)
        cdef uint32_t count = 0
        cdef Entry* entry
        self._lock(number)
        entry = self._entry(number, kind, a, b, up)
        if entry != NULL:
            if now - entry.used > age:
                entry.count = 0
            if up and (entry.count == 0 or now - entry.since >= gap):
                if entry.count < 0xFFFFFFFFU:
                    entry.count += 1
                entry.since = now
            if up:
                entry.used = now
            count = entry.count
        limits_free(self.locks + number)
        return count

    def forget(self, uint32_t kind, uint64_t a, uint64_t b):
        """Sets a count or a level to nothing."""
        cdef Py_ssize_t number = self._set_of(kind, a, b)
        cdef Entry* entry
        self._lock(number)
        entry = self._entry(number, kind, a, b, False)
        if entry != NULL:
            entry.count = 0
        limits_free(self.locks + number)

    def held(self, uint32_t kind, uint64_t a, uint64_t b):
        """How much of a key is taken, by all processes."""
        cdef Py_ssize_t number = self._set_of(kind, a, b)
        cdef uint32_t held
        cdef Entry* entry
        self._lock(number)
        entry = self._entry(number, kind, a, b, False)
        held = entry.held if entry != NULL else 0
        limits_free(self.locks + number)
        return held

    def bury(self, holdings not None, uint32_t owner):
        """Gives back all that a process held that has died; its holdings are zero then."""
        cdef uint8_t[::1] theirs = holdings
        cdef uint32_t* counts
        cdef Py_ssize_t i
        cdef Entry* entry
        if theirs.shape[0] < HOLDINGS_BYTES:
            raise ValueError("not the holdings of a process")
        counts = <uint32_t*>&theirs[0]
        for i in range(SETS):
            limits_steal(self.locks + i, owner, 0)
        for i in range(ENTRIES):
            if counts[i]:
                self._lock(i // WAYS)
                entry = self.entries + i
                entry.held = entry.held - counts[i] if entry.held > counts[i] else 0
                counts[i] = 0
                limits_free(self.locks + i // WAYS)


cdef struct Holding:
    uint32_t kind
    uint32_t limit
    uint64_t a
    uint64_t b
    uint32_t n        # of it that is held
    Py_ssize_t place


@cython.final
cdef class Holdings:
    """What one peer holds of a few keys, each with its limit, until `end` gives all of it back."""

    cdef Table table
    cdef object monotonic
    cdef Holding held[KEYS]
    cdef int known

    def __init__(self, Table table not None, object monotonic not None):
        self.table = table
        self.monotonic = monotonic

    def bind(self, uint32_t kind, uint64_t a, uint64_t b, uint32_t limit):
        """One more key; `hold` knows it by the number of keys before it. KEYS at most."""
        if self.known == KEYS:
            raise ValueError("too many keys")
        self.held[self.known] = Holding(kind, limit, a, b, 0, 0)
        self.known += 1

    def hold(self, int number, object n):
        """Takes `n` more of a key; more than 2^31 count as so many. False where that is over its limit."""
        cdef uint32_t more = <uint32_t>min(n, COUNTABLE)
        cdef Holding* holding
        cdef Py_ssize_t place
        if not 0 <= number < self.known:
            raise IndexError("no such key")
        holding = &self.held[number]
        place = self.table.hold(
            holding.kind, holding.a, holding.b, holding.limit, <uint32_t>self.monotonic(), more, holding.n)
        if place > 0:
            holding.place = place
            holding.n += more  # no overflow: the table counts at least as many of the key
        return place != 0

    def end(self):
        """Gives all of it back; calling it twice does nothing."""
        cdef int number
        cdef Holding* holding
        for number in range(self.known):
            holding = &self.held[number]
            if holding.n:
                self.table.release(holding.place, <uint32_t>self.monotonic(), holding.n)
                holding.n = 0
