# Several segments of a mailbox as one, without the messages that are gone.

cdef struct Cursor:
    const uint8_t* data         # the blocks
    const Place* places
    uint32_t blocks, size       # as in the head
    uint32_t block              # the next one
    const uint8_t* p            # in the present one
    const uint8_t* end
    uint32_t gram
    uint32_t count              # of the entry under way, and whether it is a bitmap
    const uint16_t* numbers     # of a message here -> its number in the result, ALL_DOCS where it is gone
    uint32_t docs
    bint done


cdef int advance(Cursor* c) noexcept nogil:
    """To the next entry's list of messages; -1: the segment is damaged."""
    cdef uint32_t value, until, total, begin
    if c.p == c.end:
        if c.block == c.blocks:
            c.done = True
            return 0
        begin = c.places[c.block].offset
        until = c.places[c.block + 1].offset if c.block + 1 < c.blocks else c.size
        if until < begin or until - begin < 4 or until > c.size:
            return -1
        memcpy(&total, c.data + until - 4, 4)
        if sum_of(c.data + begin, until - 4 - begin) != total:
            return -1
        c.p = c.data + begin
        c.end = c.data + until - 4
        c.gram = c.places[c.block].first
        c.block += 1
    c.p = take_varint(c.p, c.end, &value)
    if c.p == NULL:
        return -1
    c.gram += value
    c.p = take_varint(c.p, c.end, &c.count)
    return -1 if c.p == NULL else 0


cdef int gather(Cursor* c, uint16_t* list_, uint32_t* found) noexcept nogil:
    """Adds the messages of the entry under way to the list, and goes to the next entry."""
    cdef uint32_t i, doc = 0, value
    cdef uint32_t bitmap_bytes = (c.docs + 7) // 8
    if c.count & 1:
        if c.end - c.p < bitmap_bytes:
            return -1
        for doc in range(c.docs):
            if c.p[doc >> 3] >> (doc & 7) & 1 and c.numbers[doc] != ALL_DOCS:
                list_[found[0]] = c.numbers[doc]
                found[0] += 1
        c.p += bitmap_bytes
    else:
        for i in range(c.count >> 1):
            c.p = take_varint(c.p, c.end, &value)
            if c.p == NULL:
                return -1
            doc += value
            if doc >= c.docs:
                return -1
            if c.numbers[doc] != ALL_DOCS:
                list_[found[0]] = c.numbers[doc]
                found[0] += 1
    return advance(c)


cdef int merge_all(Cursor* cursors, int count, Writer* w, uint16_t* list_) noexcept nogil:
    """0; -1: a segment is damaged; -2: there is no memory."""
    cdef uint32_t gram, found
    cdef int i
    for i in range(count):
        if advance(&cursors[i]) < 0:
            return -1
    while True:
        gram = GRAMS
        for i in range(count):
            if not cursors[i].done and cursors[i].gram < gram:
                gram = cursors[i].gram
        if gram == GRAMS:
            for i in range(count):
                if not cursors[i].done:
                    return -1
            return 0
        found = 0
        for i in range(count):
            if not cursors[i].done and cursors[i].gram == gram:
                if gather(&cursors[i], list_, &found) < 0:
                    return -1
        if found and put_entry(w, gram, list_, found) < 0:
            return -2


def merge(list records not None, list kept not None):
    """One segment of several, bytes each, in order of their uids; `kept`: sets of those uids of each that are still there.
    None where one of them is damaged.
    """
    cdef int count = len(records), i, failed
    cdef Cursor cursors[SOURCES]
    cdef Writer w
    cdef Segment segment
    cdef uint16_t* list_ = NULL
    cdef uint64_t table_bytes
    cdef const uint8_t* data
    cdef list numbers = []
    uids = array("I")
    skipped = array("I")
    if not 0 < count <= SOURCES:
        raise ValueError("too many segments")
    memset(&w, 0, sizeof(Writer))
    first = last = mailbox = 0
    for i in range(count):
        record = <bytes?>records[i]
        segment = segment_of(record)
        if segment is None or segment.length != len(record):
            return None
        table_bytes = segment.table_bytes
        data = <const uint8_t*><const char*>record
        if sum_of(data + sizeof(Head), table_bytes) != segment.head.table_sum:
            return None
        mine = array("I")
        mine.frombytes(record[sizeof(Head):sizeof(Head) + 4 * segment.head.docs])
        left_out = array("I")
        left_out.frombytes(record[sizeof(Head) + 4 * segment.head.docs:sizeof(Head) + 4 * (segment.head.docs + segment.head.skipped)])
        here = kept[i]
        places = array("H")
        for uid in mine:
            if uid in here:
                if len(uids) >= ALL_DOCS:
                    raise ValueError("a segment is full")
                places.append(len(uids))
                uids.append(uid)
            else:
                places.append(ALL_DOCS)
        skipped.extend(array("I", [uid for uid in left_out if uid in here]))
        places.append(0)
        packed = places.tobytes()
        numbers.append(packed)
        cursors[i].data = data + sizeof(Head) + table_bytes
        cursors[i].places = <const Place*>(data + sizeof(Head) + 4 * (segment.head.docs + segment.head.skipped))
        cursors[i].blocks = segment.head.blocks
        cursors[i].size = segment.head.size
        cursors[i].block = 0
        cursors[i].p = cursors[i].end = NULL
        cursors[i].numbers = <const uint16_t*><const char*>packed
        cursors[i].docs = segment.head.docs
        cursors[i].done = False
        if i == 0:
            first, mailbox = segment.head.first, segment.head.mailbox
        last = segment.head.last
    w.bitmap_bytes = (len(uids) + 7) // 8
    list_ = <uint16_t*>malloc((ALL_DOCS + 1) * sizeof(uint16_t))
    if list_ == NULL:
        raise MemoryError
    try:
        with nogil:
            failed = merge_all(cursors, count, &w, list_)
        if failed == -2:
            raise MemoryError
        if failed:
            return None
        return record_of(&w, mailbox, first, last, uids, skipped)
    finally:
        free(list_)
        free_writer(&w)
