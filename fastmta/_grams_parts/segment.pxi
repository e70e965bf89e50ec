# What a segment looks like: its head, its sums, how blocks are written and read.

cdef packed struct Head:
    uint32_t magic
    uint32_t sum                # of the head behind it
    uint64_t mailbox
    uint32_t first              # uids that the segment speaks of, both included
    uint32_t last
    uint32_t docs               # messages in it
    uint32_t skipped            # messages between first and last that are not: they are to be looked through
    uint32_t blocks
    uint32_t size               # of all blocks
    uint32_t pairs              # of a gram and a message
    uint32_t table_sum          # of uids and places

HEAD_BYTES = sizeof(Head)

cdef struct Out:
    uint8_t* data
    size_t size
    size_t room

cdef struct Writer:
    Out out                     # the blocks
    Out table                   # (first gram, place) of each
    size_t begun                # where the block under way begins
    bint open                   # whether one is
    uint32_t before             # the last gram
    uint32_t blocks
    uint32_t pairs
    uint32_t bitmap_bytes

cdef struct Place:
    uint32_t first
    uint32_t offset


cdef uint32_t sum_of(const uint8_t* data, size_t size) noexcept nogil:
    """Differs for any two texts of one length that differ in eight bytes or less, but for one chance in 2^32."""
    cdef uint64_t h = 0x9E3779B97F4A7C15u ^ size
    cdef uint64_t word
    cdef size_t at = 0
    while at + 8 <= size:
        memcpy(&word, data + at, 8)
        h = (h ^ word) * 0x9E3779B97F4A7C15u
        h ^= h >> 29
        at += 8
    if at < size:
        word = 0
        memcpy(&word, data + at, size - at)
        h = (h ^ word) * 0x9E3779B97F4A7C15u
        h ^= h >> 29
    return <uint32_t>(h ^ (h >> 32))


cdef int grow(Out* out, size_t more) noexcept nogil:
    """0, or -1 where there is no memory."""
    cdef size_t room = out.room
    cdef uint8_t* data
    if out.size + more <= room:
        return 0
    room = room * 2 if room else 65536
    while room < out.size + more:
        room *= 2
    data = <uint8_t*>realloc(out.data, room)
    if data == NULL:
        return -1
    out.data = data
    out.room = room
    return 0


cdef inline void put_varint(Out* out, uint32_t value) noexcept nogil:
    # room for five octets is there
    while value >= 128:
        out.data[out.size] = <uint8_t>(value | 128)
        out.size += 1
        value >>= 7
    out.data[out.size] = <uint8_t>value
    out.size += 1


cdef inline uint32_t varint_bytes(uint32_t value) noexcept nogil:
    return 1 if value < 128 else 2 if value < 16384 else 3 if value < 2097152 else 4 if value < 268435456 else 5


cdef inline const uint8_t* take_varint(const uint8_t* p, const uint8_t* end, uint32_t* value) noexcept nogil:
    """Behind the number; NULL where there is none."""
    cdef uint32_t out = 0
    cdef int shift = 0
    while p < end and shift < 35:
        out |= <uint32_t>(p[0] & 127) << shift
        if p[0] < 128:
            value[0] = out
            return p + 1
        p += 1
        shift += 7
    return NULL


cdef int close_block(Writer* w) noexcept nogil:
    cdef uint32_t total
    if not w.open:
        return 0
    w.open = False
    if grow(&w.out, 4) < 0:
        return -1
    total = sum_of(w.out.data + w.begun, w.out.size - w.begun)
    memcpy(w.out.data + w.out.size, &total, 4)
    w.out.size += 4
    return 0


cdef int put_entry(Writer* w, uint32_t gram, const uint16_t* docs, uint32_t count) noexcept nogil:
    """A gram and the messages that have it, ascending; grams come in order. -1 where there is no memory."""
    cdef Place place
    cdef uint32_t i, before = 0, listed = 0
    if not w.open:
        if grow(&w.table, sizeof(Place)) < 0:
            return -1
        place.first = gram
        place.offset = <uint32_t>w.out.size
        memcpy(w.table.data + w.table.size, &place, sizeof(Place))
        w.table.size += sizeof(Place)
        w.blocks += 1
        w.open = True
        w.begun = w.out.size
        w.before = gram
    for i in range(count):
        listed += varint_bytes(docs[i] - before)
        before = docs[i]
    if grow(&w.out, 10 + (listed if listed < w.bitmap_bytes else w.bitmap_bytes)) < 0:
        return -1
    put_varint(&w.out, gram - w.before)
    w.before = gram
    w.pairs += count
    if listed < w.bitmap_bytes:
        put_varint(&w.out, count << 1)
        before = 0
        for i in range(count):
            put_varint(&w.out, docs[i] - before)
            before = docs[i]
    else:
        put_varint(&w.out, count << 1 | 1)
        memset(w.out.data + w.out.size, 0, w.bitmap_bytes)
        for i in range(count):
            w.out.data[w.out.size + (docs[i] >> 3)] |= <uint8_t>(1 << (docs[i] & 7))
        w.out.size += w.bitmap_bytes
    if w.out.size - w.begun >= BLOCK_BYTES:
        return close_block(w)
    return 0


cdef bytes record_of(Writer* w, uint64_t mailbox, uint32_t first, uint32_t last, uids, skipped):
    """The whole segment. MemoryError where the writer had no memory for its last block."""
    cdef Head head
    cdef bytes table, packed
    if close_block(w) < 0:
        raise MemoryError
    packed = uids.tobytes() + skipped.tobytes()
    table = packed + (w.table.data[:w.table.size] if w.table.size else b"")
    head.magic = MAGIC
    head.mailbox = mailbox
    head.first = first
    head.last = last
    head.docs = len(uids)
    head.skipped = len(skipped)
    head.blocks = w.blocks
    head.size = <uint32_t>w.out.size
    head.pairs = w.pairs
    head.table_sum = sum_of(<const uint8_t*><const char*>table, len(table))
    head.sum = sum_of(<const uint8_t*>&head + 8, sizeof(Head) - 8)
    return (<const char*>&head)[:sizeof(Head)] + table + (w.out.data[:w.out.size] if w.out.size else b"")


cdef void free_writer(Writer* w) noexcept nogil:
    free(w.out.data)
    free(w.table.data)


@cython.final
cdef class Segment:
    """A segment's head. `length` is that of all of it; `skipped` how many messages are to be looked through."""

    cdef Head head
    cdef readonly uint64_t offset   # in the file

    @property
    def mailbox(self):
        return self.head.mailbox

    @property
    def first(self):
        return self.head.first

    @property
    def last(self):
        return self.head.last

    @property
    def docs(self):
        return self.head.docs

    @property
    def skipped(self):
        return self.head.skipped

    @property
    def pairs(self):
        return self.head.pairs

    @property
    def table_bytes(self):
        return 4 * <uint64_t>self.head.docs + 4 * <uint64_t>self.head.skipped + sizeof(Place) * <uint64_t>self.head.blocks

    @property
    def length(self):
        return sizeof(Head) + self.table_bytes + self.head.size


def segment_of(bytes data not None, uint64_t offset=0):
    """The Segment whose head these HEAD_BYTES are; None where they are none, or are damaged."""
    cdef Segment out
    if len(data) < <Py_ssize_t>sizeof(Head):
        return None
    out = Segment.__new__(Segment)
    memcpy(&out.head, <const char*>data, sizeof(Head))
    out.offset = offset
    if out.head.magic != MAGIC or out.head.sum != sum_of(<const uint8_t*>&out.head + 8, sizeof(Head) - 8):
        return None
    if out.head.docs > ALL_DOCS or out.head.first > out.head.last:
        return None
    return out


def checksum(bytes data not None):
    """A number of 32 bits that changes where the data does."""
    return sum_of(<const uint8_t*><const char*>data, len(data))


def left_out(Segment segment not None, bytes table not None):
    """The uids between first and last that have to be looked through, by the segment's table; None where it is damaged."""
    if len(table) != segment.table_bytes or checksum(table) != segment.head.table_sum:
        return None
    out = array("I")
    out.frombytes(table[4 * segment.head.docs:4 * (segment.head.docs + segment.head.skipped)])
    return out
