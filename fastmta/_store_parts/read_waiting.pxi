# Read loops of listings and counts at the level from which the queue has all its indexes (INDEXED_LEVEL).

cdef enum Whom:  # whom hop_rows gives; of them, a hop has kept count
    ANYONE = 0
    # 1 to 3: a state
    FRESH_ONLY = 4

cdef enum:
    HOP_TOKEN = 26  # in front of a hop's name in a token: window, lane, position
    GET_COST = 4  # of seeking a recipient, in hops passed by
    ERROR_TEXT = 400  # as k_lower cuts

cdef extern from "string.h" nogil:
    void* memmem(const void*, size_t, const void*, size_t)

ROWS_ANYONE = ANYONE
ROWS_FRESH = FRESH_ONLY


cdef uint32_t hop_has(const HopRecord* hop, size_t size, int wanted) noexcept:
    """How many recipients of a hop are wanted."""
    if wanted == ACTIVE:
        return hop.active
    if wanted == DEFERRED:
        return hop.deferred
    if wanted == HELD:
        return hop.held
    if wanted == FRESH_ONLY:
        return hop.fresh if size == sizeof(HopRecord) else 0
    return hop.active + hop.deferred + hop.held


cdef bint is_whom(MDB_val* value, int wanted) noexcept:
    cdef RecipientRecord* record = <RecipientRecord*>value.mv_data
    if wanted == FRESH_ONLY:
        return record.indexed == FRESH
    return wanted == ANYONE or record.state == wanted


cdef bint is_in_domain(MDB_val* value, object domain) noexcept:
    """Whether this recipient's row is of the domain; None: any."""
    cdef RecipientRecord* record = <RecipientRecord*>value.mv_data
    cdef const char* tail = <const char*>value.mv_data + sizeof(record[0]) + record.hop_length
    cdef const uint8_t* path
    cdef size_t length, start
    if domain is None:
        return True
    forward_path(tail, record.tail_length, &path, &length)
    start = length
    while start > 0 and path[start - 1] != c'@':
        start -= 1
    return is_folded(path + start, length - start, <bytes>domain)


cdef class HopWalk:
    """One call of hop_rows: whom it seeks, how far it may look, and where it stands."""

    cdef Reading reading
    cdef void* cursor
    cdef int wanted
    cdef int64_t pivot_ms  # the schedule of a hop is walked in two windows, from there on and up to there
    cdef bint later_first
    cdef int64_t before_ms
    cdef Py_ssize_t limit
    cdef Py_ssize_t look
    cdef object domain
    cdef object sender
    cdef list out
    cdef uint8_t[HOP_TOKEN] place  # window, lane, 4 unused, position of the row that was looked at last
    cdef bint resumed

    cdef bytes token(self, const char* name, size_t length):
        return PyBytes_FromStringAndSize(<const char*>self.place, HOP_TOKEN) + name[:length]

    cdef int begin_lane(self, int window, int lane) noexcept:
        """Sets the place to the beginning of a lane's window."""
        cdef Key k
        memset(self.place, 0, HOP_TOKEN)
        self.place[0] = <uint8_t>window
        self.place[1] = <uint8_t>lane
        if self.later_first == (window == 0):
            k.n = 0
            k_u64(&k, <uint64_t>self.pivot_ms)
            memcpy(self.place + HOP_TOKEN - POSITION, k.b, 8)
        return 0

    cdef int take(self, uint64_t queue_id, uint32_t n, int64_t due_ms) except -1:
        """Looks at one recipient; 1 where it is wanted, whatever else is asked of it."""
        cdef Key k
        cdef MDB_val value
        self.look -= GET_COST
        k_id_n(&k, T_QUEUE, queue_id, n)
        if not self.reading.get(&k, &value) or not is_whom(&value, self.wanted):
            return 0
        if due_ms < self.before_ms and is_in_domain(&value, self.domain):
            k_id(&k, T_QUEUE, queue_id)
            if self.sender is None or (self.reading.get(&k, &value) and is_from(&value, self.sender)):
                self.out.append((queue_id, n))
        return 1

    cdef bint hop(self, const char* name, size_t length, uint32_t count) except -1:
        """Walks over one hop's part of the schedule; True where it ended there, so that another may come."""
        cdef Key prefix, start
        cdef MDB_val key, value
        cdef const uint8_t* at
        cdef uint32_t seen = 0
        cdef int64_t until_ms
        cdef int window, lane, last_lane
        cdef bint more, whole = not self.resumed  # what moved between two calls is in `count` no more
        if not self.resumed:
            self.begin_lane(0, HELD_LANE if self.wanted == HELD else 0)
        self.resumed = False
        last_lane = LANES if self.wanted == ACTIVE or self.wanted == DEFERRED else HELD_LANE + LANES
        for window in range(self.place[0], 2 if self.pivot_ms > 0 else 1):
            until_ms = NEVER if self.later_first == (window == 0) else self.pivot_ms
            for lane in range(self.place[1], last_lane):
                if LANES <= lane < HELD_LANE:
                    continue
                if lane != self.place[1] or window != self.place[0]:
                    self.begin_lane(window, lane)
                k_schedule(&prefix, name, length, lane)
                start = prefix
                memcpy(start.b + start.n, self.place + HOP_TOKEN - POSITION, POSITION)
                start.n += POSITION
                more = seek(self.reading, self.cursor, &start, prefix.n, &key, &value)
                if more and key.mv_size == start.n and memcmp(key.mv_data, start.b, start.n) == 0:
                    more = following(self.reading, self.cursor, &prefix, prefix.n, &key, &value)
                while more:
                    if key.mv_size != prefix.n + POSITION:
                        self.reading.failed(FM_DISORDER, &prefix)
                    at = <const uint8_t*>key.mv_data + prefix.n
                    if <int64_t>be64(at) >= until_ms:
                        break
                    memcpy(self.place + HOP_TOKEN - POSITION, at, POSITION)
                    seen += self.take(be64(at + 8), be32(at + 16), <int64_t>be64(at))
                    if whole and seen >= count:
                        return len(self.out) < self.limit and self.look > 0
                    if len(self.out) >= self.limit or self.look <= 0:
                        return False
                    more = following(self.reading, self.cursor, &prefix, prefix.n, &key, &value)
            self.begin_lane(window + 1, HELD_LANE if self.wanted == HELD else 0)
        return True


def hop_rows(Store store not None, int wanted, hop, partitions, int64_t pivot_ms, bint later_first, int64_t before_ms,
             bytes after not None, Py_ssize_t limit, Py_ssize_t look, domain=None, sender=None):
    """([(queue id, n)] of recipients by their hops, the token behind them, b"": these were the last).

    `wanted` is a state, ROWS_FRESH (as they came, and in no index yet) or ROWS_ANYONE, which a hop keeps count of: it is left
    as soon as so many were met. In its schedule those due from `pivot_ms` on come first, or those due before it. `hop`: that one
    alone; `partitions`: those of which the octet is not 0; None: all. Those that are due at `before_ms` or later are passed over.
    `look` bounds the work: a hop costs one, a recipient four. `domain` and `sender` are in lower case; None: any.
    """
    cdef HopWalk walk = HopWalk()
    cdef Reading reading = Reading(store)
    cdef void* hops = reading.cursor(T_HOP_STATE)
    cdef Key prefix, first
    cdef MDB_val key, value
    cdef const char* name
    cdef size_t length
    cdef uint32_t count
    cdef bint more
    walk.reading = reading
    walk.cursor = reading.cursor(T_SCHEDULE)
    walk.wanted, walk.pivot_ms, walk.later_first, walk.before_ms = wanted, pivot_ms, later_first, before_ms
    walk.limit, walk.look, walk.domain, walk.sender, walk.out = limit, look, domain, sender, []
    k_start(&prefix, T_HOP_STATE)
    k_start(&first, T_HOP_STATE)
    if partitions is not None and len(<bytes>partitions) != 256:
        raise ValueError("256 octets say which partitions")
    if hop is not None:
        if len(<bytes>hop) > HOP_MAX:
            return [], b""
        k_bytes(&prefix, <const char*><bytes>hop, len(<bytes>hop))
        first = prefix
    if after:
        if not HOP_TOKEN <= len(after) <= HOP_TOKEN + HOP_MAX:
            raise ValueError("not a position among the hops")
        memcpy(walk.place, <const char*>after, HOP_TOKEN)
        first.n = 1
        k_bytes(&first, <const char*>after + HOP_TOKEN, len(after) - HOP_TOKEN)
    more = seek(reading, hops, &first, prefix.n, &key, &value)
    walk.resumed = bool(after) and more and key.mv_size == first.n and memcmp(key.mv_data, first.b, first.n) == 0
    while more:
        name = <const char*>key.mv_data + 1
        length = key.mv_size - 1
        if hop is not None and key.mv_size != prefix.n:
            break
        count = hop_has(<HopRecord*>value.mv_data, value.mv_size, wanted)
        walk.look -= 1
        if count and length <= HOP_MAX and (partitions is None or (<bytes>partitions)[crc32_of(name, length) & 255]):
            if not walk.hop(name, length, count):
                return walk.out, walk.token(name, length)
        walk.resumed = False
        more = following(reading, hops, &prefix, prefix.n, &key, &value)
        if more and walk.look <= 0:
            walk.begin_lane(0, HELD_LANE if wanted == HELD else 0)
            return walk.out, walk.token(<const char*>key.mv_data + 1, key.mv_size - 1)
    return walk.out, b""


def error_rows(Store store not None, bytes text not None, bytes after not None, Py_ssize_t limit, Py_ssize_t look):
    """([(queue id, n)] of recipients whose last reply may have `text`, in lower case, in it; the token behind them).

    Each different reply is looked at once, however many have it. Of one that the index has cut nothing is known.
    """
    cdef Reading reading = Reading(store)
    cdef void* cursor = reading.cursor(T_BY_ERROR)
    cdef Key start, prefix
    cdef MDB_val key, value
    cdef const uint8_t* at
    cdef size_t length
    cdef list out = []
    cdef bint more
    k_start(&prefix, T_BY_ERROR)
    k_start(&start, T_BY_ERROR)
    if len(after) > ERROR_TEXT + 13:
        raise ValueError("not a position among the replies")
    k_bytes(&start, <const char*>after, len(after))
    more = seek(reading, cursor, &start, 1, &key, &value)
    while more:
        if key.mv_size < 14:
            reading.failed(FM_DISORDER, &start)
        at = <const uint8_t*>key.mv_data + 1
        length = key.mv_size - 14
        if len(out) >= limit or look <= 0:
            return out, (<const char*>at)[: length + 13]
        look -= 1
        start = prefix
        k_bytes(&start, at, length + 1)  # of this reply
        if length < ERROR_TEXT and memmem(at, length, <const char*>text, len(text)) == NULL:
            k_u64(&start, <uint64_t>-1)
            k_u32(&start, 0xFFFFFFFFu)
            look -= GET_COST
            more = seek(reading, cursor, &start, 1, &key, &value)
            continue
        while more and key.mv_size == start.n + 12 and memcmp(key.mv_data, start.b, start.n) == 0:
            at = <const uint8_t*>key.mv_data + start.n
            if len(out) >= limit:
                break
            out.append((be64(at), be32(at + 8)))
            more = following(reading, cursor, &prefix, 1, &key, &value)
    return out, b""


def queue_counts(Store store not None):
    """(active, deferred, held, messages, bytes) as they are kept; the last two None in a store of the level before."""
    cdef Reading reading = Reading(store)
    cdef QueueCounts counts
    cdef MDB_val value
    cdef Key k
    cdef int64_t number
    cdef int i
    k_start(&k, T_QUEUE_COUNT)
    if reading.get(&k, &value):
        memcpy(&counts, value.mv_data, sizeof(counts))
        return counts.active, counts.deferred, counts.held, counts.messages, counts.bytes
    found = []
    for i in range(1, 4):
        k_start(&k, T_COUNTER)
        k_bytes(&k, state_names[i], strlen(state_names[i]))
        number = 0
        if reading.get(&k, &value):
            memcpy(&number, value.mv_data, 8)
        found.append(number)
    return found[0], found[1], found[2], None if any(found) else 0, None if any(found) else 0


def domain_counts(Store store not None, int kind, list before_ms not None, bytes after not None, Py_ssize_t look):
    """({domain: [counts]} of the indexed recipients, to a minute of arrival; a token). `kind`: COUNTS_BY_RECIPIENT (the
    recipient's domain), COUNTS_BY_SENDER (the sender's), COUNTS_BY_TENANT (tenants in place of domains).

    For each state in turn (active, deferred, held) stand as many numbers as `before_ms` has, and one: how many came before
    none of these moments, before the first alone, before the first two, and so on. The moments fall. A page looks at `look`
    records; what the next one says is added to it.
    """
    cdef Reading reading = Reading(store)
    cdef void* cursor = reading.cursor(T_QUEUE_COUNT)
    cdef Key prefix, start
    cdef MDB_val key, value
    cdef uint32_t[3] count
    cdef const char* at
    cdef size_t length
    cdef int64_t[32] moments
    cdef int64_t received_ms
    cdef int columns = <int>len(before_ms) + 1
    cdef int column, state
    cdef dict out = {}
    cdef list row = []
    cdef bytes domain = None
    cdef bint more
    if columns > 32:
        raise ValueError("at most 31 moments")
    for column in range(columns - 1):
        moments[column] = before_ms[column]
    k_start(&prefix, T_QUEUE_COUNT)
    k_u8(&prefix, <uint8_t>kind)
    start = prefix
    k_bytes(&start, <const char*>after, len(after))
    more = seek(reading, cursor, &start, 2, &key, &value)
    while more:
        at = <const char*>key.mv_data + 2
        if key.mv_size < 7:
            reading.failed(FM_DISORDER, &prefix)
        if look <= 0:
            return out, at[: key.mv_size - 2]
        look -= 1
        length = key.mv_size - 7
        if domain is None or <size_t>len(domain) != length or memcmp(<const char*>domain, at, length) != 0:
            domain = at[:length]
            row = out[domain] = [0] * (3 * columns)
        received_ms = <int64_t>be32(<const uint8_t*>at + length + 1) * 60000 + 30000
        column = 0
        while column < columns - 1 and received_ms < moments[column]:
            column += 1
        memcpy(count, <const char*>value.mv_data + COUNT_AT, sizeof(count))
        for state in range(3):
            if count[state]:
                row[state * columns + column] += count[state]
        more = following(reading, cursor, &prefix, 2, &key, &value)
    return out, b""
