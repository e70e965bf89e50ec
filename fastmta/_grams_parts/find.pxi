# Which messages of some segments may hold a word.

cdef int read_all(int fd, uint8_t* data, size_t size, uint64_t offset) noexcept nogil:
    cdef ssize_t got
    while size:
        got = pread(fd, data, size, <off_t>offset)
        if got < 0 and errno == EINTR:
            continue
        if got <= 0:
            return -1
        data += got
        offset += got
        size -= got
    return 0


cdef struct Source:
    uint64_t offset
    Head head


cdef int in_block(const uint8_t* p, const uint8_t* end, uint32_t first, uint32_t gram, uint64_t* found, uint32_t docs) noexcept nogil:
    """Takes away from the bits of `found` those messages that do not have the gram. -1: the block makes no sense."""
    cdef uint32_t at = first, value, count, i, doc
    cdef uint32_t bitmap_bytes = (docs + 7) // 8
    cdef uint32_t words = (docs + 63) // 64
    cdef uint64_t word
    cdef uint64_t mine[WORDS]
    while p < end:
        p = take_varint(p, end, &value)
        if p == NULL:
            return -1
        at += value
        p = take_varint(p, end, &count)
        if p == NULL:
            return -1
        if at > gram:
            break
        if count & 1:
            if end - p < bitmap_bytes:
                return -1
            if at == gram:
                for i in range(words):
                    word = 0
                    memcpy(&word, p + 8 * i, 8 if 8 * i + 8 <= bitmap_bytes else bitmap_bytes - 8 * i)
                    found[i] &= word
                return 0
            p += bitmap_bytes
            continue
        count >>= 1
        if at == gram:
            memset(mine, 0, words * 8)
            doc = 0
            for i in range(count):
                p = take_varint(p, end, &value)
                if p == NULL:
                    return -1
                doc += value
                if doc >= docs:
                    return -1
                mine[doc >> 6] |= <uint64_t>1 << (doc & 63)
            for i in range(words):
                found[i] &= mine[i]
            return 0
        while count and p < end:
            count -= p[0] < 128
            p += 1
        if count:
            return -1
    memset(found, 0, words * 8)
    return 0


cdef int in_segment(int fd, Source* s, Out* table, Out* block, const uint32_t* grams, int picked, uint32_t fields, Out* uids) noexcept nogil:
    """Adds the uids of a segment's messages that have all of the grams in one field. -1: it is damaged."""
    cdef Head* h = &s.head
    cdef size_t numbers = 4 * (<size_t>h.docs + h.skipped)
    cdef size_t table_bytes = numbers + sizeof(Place) * <size_t>h.blocks
    cdef uint64_t blocks_at = s.offset + sizeof(Head) + table_bytes
    cdef uint64_t found[WORDS]
    cdef uint64_t either[WORDS]
    cdef const Place* places
    cdef uint32_t words = (h.docs + 63) // 64
    cdef uint32_t field, low, high, middle, until, gram, total, i, left
    cdef uint8_t end
    cdef size_t size
    cdef int n
    if not h.docs:
        return 0
    table.size = 0
    # All of it is there before memory is taken for any of it, whatever a damaged head says of its size.
    if read_all(fd, &end, 1, blocks_at + h.size - 1) < 0:
        return -1
    if grow(table, table_bytes) < 0 or read_all(fd, table.data, table_bytes, s.offset + sizeof(Head)) < 0:
        return -1
    if sum_of(table.data, table_bytes) != h.table_sum:
        return -1
    places = <const Place*>(table.data + numbers)
    memset(either, 0, words * 8)
    for field in range(2):
        if not fields & (1 << field):
            continue
        memset(found, 255, words * 8)
        for n in range(picked):
            gram = grams[n] | (BEHIND if field else 0)
            low = 0
            high = h.blocks
            while low < high:
                middle = (low + high) // 2
                if places[middle].first <= gram:
                    low = middle + 1
                else:
                    high = middle
            if low == 0:
                memset(found, 0, words * 8)
                break
            low -= 1
            until = places[low + 1].offset if low + 1 < h.blocks else h.size
            if until < places[low].offset + 4 or until > h.size:
                return -1
            size = until - places[low].offset
            block.size = 0
            if grow(block, size) < 0 or read_all(fd, block.data, size, blocks_at + places[low].offset) < 0:
                return -1
            memcpy(&total, block.data + size - 4, 4)
            if sum_of(block.data, size - 4) != total:
                return -1
            if in_block(block.data, block.data + size - 4, places[low].first, gram, found, h.docs) < 0:
                return -1
            left = 0
            for i in range(words):
                left |= found[i] != 0
            if not left:
                break
        for i in range(words):
            either[i] |= found[i]
    if grow(uids, 4 * <size_t>h.docs) < 0:
        return -1
    for i in range(h.docs):
        if either[i >> 6] >> (i & 63) & 1:
            memcpy(uids.data + uids.size, table.data + 4 * <size_t>i, 4)
            uids.size += 4
    return 0


def find(int fd, list segments not None, str needle not None, bint with_header):
    """(uids, damaged): the messages of Segments of the open file that may hold a word of three characters or more, whose
    case is folded, in the order of the segments; and the place in `segments` of one that is damaged, or -1.

    Whoever is not named does not have it. It may be called on any thread, and lets others have the interpreter.
    """
    cdef Py_ssize_t count = len(segments), i
    cdef Source* sources
    cdef uint32_t grams[PICKED]
    cdef int picked = 0, kind = PyUnicode_KIND(needle)
    cdef void* data = PyUnicode_DATA(needle)
    cdef Py_ssize_t last = PyUnicode_GET_LENGTH(needle) - 3, at, step
    cdef uint32_t fields = 3 if with_header else 2
    cdef Py_ssize_t damaged = -1
    cdef Out table, block, uids
    if last < 0:
        raise ValueError("a word of three characters is needed")
    for at in range(PICKED):
        # All of a short word's; of a long one some, the first and the last among them.
        step = at if last < PICKED else at * last // (PICKED - 1)
        if step > last:
            break
        grams[picked] = gram_of(
            PyUnicode_READ(kind, data, step), PyUnicode_READ(kind, data, step + 1), PyUnicode_READ(kind, data, step + 2)
        )
        picked += 1
    out = array("I")
    sources = <Source*>malloc((count + 1) * sizeof(Source))
    if sources == NULL:
        raise MemoryError
    memset(&table, 0, sizeof(Out))
    memset(&block, 0, sizeof(Out))
    memset(&uids, 0, sizeof(Out))
    try:
        for i in range(count):
            sources[i].offset = (<Segment?>segments[i]).offset
            sources[i].head = (<Segment>segments[i]).head
        with nogil:
            for i in range(count):
                if in_segment(fd, &sources[i], &table, &block, grams, picked, fields, &uids) < 0:
                    damaged = i
                    break
        if uids.size:
            out.frombytes(uids.data[:uids.size])
        return out, damaged
    finally:
        free(sources)
        free(table.data)
        free(block.data)
        free(uids.data)
