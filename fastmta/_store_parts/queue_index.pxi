# What finds and counts a queued recipient: fields of its records, and its rows in indexes and counts. The rows by sender, domain
# and age stay while it waits; those by last reply and the counts follow what changes.

# --- msgpack, just enough to find what an index needs ---

cdef size_t pack_bytes(const uint8_t* p, size_t n, const uint8_t** data, size_t* length) noexcept nogil:
    """A byte string at p; returns what it takes, 0 where there is none."""
    cdef size_t lead
    if n < 2:
        return 0
    if p[0] == 0xC4:
        lead = 2
        length[0] = p[1]
    elif p[0] == 0xC5 and n >= 3:
        lead = 3
        length[0] = (<size_t>p[1] << 8) | p[2]
    else:
        return 0
    if length[0] > n - lead:
        return 0
    data[0] = p + lead
    return lead + length[0]


cdef size_t pack_text(const uint8_t* p, size_t n, const uint8_t** data, size_t* length) noexcept nogil:
    """A text at p; returns what it takes, 0 where there is none."""
    cdef size_t lead
    if n < 1:
        return 0
    if p[0] & 0xE0 == 0xA0:
        lead = 1
        length[0] = p[0] & 0x1F
    elif p[0] == 0xD9 and n >= 2:
        lead = 2
        length[0] = p[1]
    elif p[0] == 0xDA and n >= 3:
        lead = 3
        length[0] = (<size_t>p[1] << 8) | p[2]
    else:
        return 0
    if length[0] > n - lead:
        return 0
    data[0] = p + lead
    return lead + length[0]


cdef size_t pack_skip(const uint8_t* p, size_t n) noexcept nogil:
    """What the value at p takes, an array with all that is in it; 0 where it is cut, or of a kind that no record has."""
    cdef const uint8_t* data
    cdef int64_t number
    cdef size_t at = 0
    cdef size_t left = 1
    cdef size_t length, taken
    while left:
        if at >= n:
            return 0
        left -= 1
        if p[at] == 0xC0 or p[at] == 0xC2 or p[at] == 0xC3 or p[at] >= 0xE0:  # nil, false, true, a small negative number
            at += 1
        elif p[at] & 0xF0 == 0x90:
            left += p[at] & 0x0F
            at += 1
        elif p[at] == 0xDC and at + 3 <= n:
            left += (<size_t>p[at + 1] << 8) | p[at + 2]
            at += 3
        else:
            taken = pack_int(p + at, n - at, &number)
            taken = taken or pack_bytes(p + at, n - at, &data, &length)
            taken = taken or pack_text(p + at, n - at, &data, &length)
            if not taken:
                return 0
            at += taken
    return at


cdef bint field_text(const uint8_t* p, size_t n, size_t index, const uint8_t** data, size_t* length) noexcept nogil:
    """The text that is a field of the array at p; False where it has none there, or an empty one."""
    cdef size_t fields, i, taken
    cdef size_t at = 1
    if n < 3:
        return False
    fields = p[0] & 0x0F
    if p[0] == 0xDC:
        fields = (<size_t>p[1] << 8) | p[2]
        at = 3
    elif p[0] & 0xF0 != 0x90:
        return False
    if fields <= index:
        return False
    for i in range(index):
        taken = pack_skip(p + at, n - at)
        if not taken:
            return False
        at += taken
    return pack_text(p + at, n - at, data, length) > 0 and length[0] > 0


cdef size_t pack_int(const uint8_t* p, size_t n, int64_t* number) noexcept nogil:
    """A whole number at p that is not negative; returns what it takes, 0 where there is none."""
    if n >= 9 and (p[0] == 0xCF or p[0] == 0xD3):
        number[0] = <int64_t>(be64(p + 1) & 0x7FFFFFFFFFFFFFFFu)
        return 9
    if n >= 5 and p[0] == 0xCE:
        number[0] = be32(p + 1)
        return 5
    if n >= 3 and p[0] == 0xCD:
        number[0] = (<int64_t>p[1] << 8) | p[2]
        return 3
    if n >= 2 and p[0] == 0xCC:
        number[0] = p[1]
        return 2
    if n >= 1 and p[0] < 0x80:
        number[0] = p[0]
        return 1
    number[0] = 0
    return 0


cdef void envelope_fields(Txn* t, const uint8_t** path, size_t* path_length, int64_t* received_at_ms,
                          int64_t* size) noexcept nogil:
    """The reverse path, arrival and size of the row at hand: the first three fields of its envelope."""
    cdef const uint8_t* p = <const uint8_t*>t.envelope.data
    cdef size_t n = t.envelope.length
    cdef size_t lead = 3 if n and p[0] == 0xDC else 1
    cdef size_t taken
    path[0] = p
    path_length[0] = 0
    received_at_ms[0] = size[0] = 0
    if n <= lead:
        return
    p += lead
    n -= lead
    taken = pack_bytes(p, n, path, path_length)
    p += taken
    n -= taken
    taken = pack_int(p, n, received_at_ms)
    pack_int(p + taken, n - taken, size)


cdef bint tenant_of(const uint8_t* envelope, size_t n, const uint8_t* tail, size_t tail_length, const uint8_t** name,
                    size_t* length) noexcept nogil:
    """Whose mail it is: whoever sends it, as its envelope says, else whoever gets it, as the recipient's tail does."""
    return (field_text(envelope, n, ENVELOPE_TENANT, name, length)
            or field_text(tail, tail_length, TAIL_TENANT, name, length))


cdef void k_lower(Key* k, const uint8_t* data, size_t n) noexcept nogil:
    """A path or domain in lower case (ASCII) and a NUL, so that no name's rows mix with a longer one's."""
    cdef size_t i
    if n > 400:
        n = 400
    for i in range(n):
        k.b[k.n + i] = data[i] + 32 if c'A' <= data[i] <= c'Z' else data[i]
    k.n += n
    k_u8(k, 0)


cdef void forward_path(const char* tail, size_t tail_length, const uint8_t** path, size_t* length) noexcept nogil:
    """The address in a recipient's tail."""
    path[0] = <const uint8_t*>tail
    length[0] = 0
    if tail_length > 1:
        pack_bytes(<const uint8_t*>tail + 1, tail_length - 1, path, length)


cdef void k_domain(Key* k, const uint8_t* path, size_t length) noexcept nogil:
    """The domain of a path, as k_lower; all of a path that has none."""
    cdef size_t at = length
    while at > 0 and path[at - 1] != c'@':
        at -= 1
    k_lower(k, path + at, length - at)


cdef int row_mark(Txn* t, Key* k, uint64_t queue_id, uint32_t n, bint add) noexcept nogil:
    """Writes or removes the row of an index that has a recipient behind what k says already."""
    k_u64(k, queue_id)
    k_u32(k, n)
    if add:
        return POISONED if t_put(t, k, NULL, 0, OLD_ABSENT, NULL, 0) < 0 else DONE
    return POISONED if t_del_row(t, k) < 0 else DONE


cdef int index_recipient(Txn* t, uint64_t queue_id, uint32_t n, const char* tail, size_t tail_length, bint add) noexcept nogil:
    """Writes or removes the rows by which people find a recipient, whatever its state; the queue row must be loaded."""
    cdef Key k
    cdef const uint8_t* path
    cdef const uint8_t* forward
    cdef size_t path_length, forward_length
    cdef int64_t received_at_ms, size
    envelope_fields(t, &path, &path_length, &received_at_ms, &size)
    k_start(&k, T_BY_SENDER)
    k_lower(&k, path, path_length)
    if row_mark(t, &k, queue_id, n, add) < 0:
        return POISONED
    forward_path(tail, tail_length, &forward, &forward_length)
    k_start(&k, T_BY_DOMAIN)
    k_domain(&k, forward, forward_length)
    if row_mark(t, &k, queue_id, n, add) < 0:
        return POISONED
    k_start(&k, T_BY_AGE)
    k_u64(&k, <uint64_t>received_at_ms)
    return row_mark(t, &k, queue_id, n, add)


cdef int error_mark(Txn* t, uint64_t queue_id, uint32_t n, const char* reply, size_t length, bint add) noexcept nogil:
    """The same for the index by last reply, which has no rows of empty ones."""
    cdef Key k
    if length == 0:
        return DONE
    k_start(&k, T_BY_ERROR)
    k_lower(&k, <const uint8_t*>reply, length)
    return row_mark(t, &k, queue_id, n, add)


cdef int tenant_rows(Txn* t, uint64_t queue_id, uint32_t n, const char* tail, size_t tail_length, int before,
                     int after) noexcept nogil:
    """Has a recipient leave one state for another (0: none) in the index and the counts by tenant, as all others are kept."""
    cdef Key k
    cdef const uint8_t* path
    cdef const uint8_t* name
    cdef size_t path_length, length
    cdef int64_t received_at_ms, size
    if before == after or not tenant_of(<const uint8_t*>t.envelope.data, t.envelope.length, <const uint8_t*>tail, tail_length,
                                        &name, &length):
        return DONE
    if before == 0 or after == 0:
        k_start(&k, T_BY_TENANT)
        k_lower(&k, name, length)
        if row_mark(t, &k, queue_id, n, before == 0) < 0:
            return POISONED
    envelope_fields(t, &path, &path_length, &received_at_ms, &size)
    k_start(&k, T_QUEUE_COUNT)
    k_u8(&k, BY_TENANT)
    k_lower(&k, name, length)
    return state_count(t, &k, received_at_ms, before, after)


cdef int state_count(Txn* t, Key* k, int64_t received_at_ms, int before, int after) noexcept nogil:
    """Counts a recipient out of one state and into another (0: none), at a key that lacks the minute of arrival."""
    cdef CountRecord record
    cdef uint32_t[4] count
    cdef MDB_val value
    cdef int rc
    k_u32(k, <uint32_t>(received_at_ms // 60000))
    memset(&record, 0, sizeof(record))
    memset(count, 0, sizeof(count))
    record.format = FORMAT
    rc = t_get(t, k, &value)
    if rc < 0:
        return rc
    if rc == DONE:
        memcpy(&record, value.mv_data, sizeof(record))
        memcpy(count + 1, <char*>&record + COUNT_AT, sizeof(count) - 4)
    if before:
        count[before] -= 1
    if after:
        count[after] += 1
    if count[1] == 0 and count[2] == 0 and count[3] == 0:
        return POISONED if rc == DONE and t_del(t, k) < 0 else DONE
    memcpy(<char*>&record + COUNT_AT, count + 1, sizeof(count) - 4)
    if rc == DONE:
        return t_put(t, k, &record, sizeof(record), OLD_UNKNOWN, NULL, 0)
    return t_put(t, k, &record, sizeof(record), OLD_ABSENT, NULL, 0)


cdef int state_counts(Txn* t, const char* tail, size_t tail_length, int before, int after) noexcept nogil:
    """Does so by the recipient's domain and by the sender's; the queue row must be loaded."""
    cdef const uint8_t* path
    cdef const uint8_t* forward
    cdef size_t path_length, forward_length
    cdef int64_t received_at_ms, size
    cdef Key k
    if before == after:
        return DONE
    envelope_fields(t, &path, &path_length, &received_at_ms, &size)
    forward_path(tail, tail_length, &forward, &forward_length)
    k_start(&k, T_QUEUE_COUNT)
    k_u8(&k, BY_RECIPIENT)
    k_domain(&k, forward, forward_length)
    if state_count(t, &k, received_at_ms, before, after) < 0:
        return POISONED
    k_start(&k, T_QUEUE_COUNT)
    k_u8(&k, BY_SENDER)
    k_domain(&k, path, path_length)
    return state_count(t, &k, received_at_ms, before, after)


cdef enum:
    BY_RECIPIENT = 1
    BY_SENDER = 2
    BY_TENANT = 3
    COUNT_AT = 4  # where the counts begin in CountRecord
    ENVELOPE_TENANT = 11  # the field of model.envelope.Envelope that names it,
    TAIL_TENANT = 4  # and that of RecipientTail
