# Operations on the queue. The legal moves of a recipient stand in fastmta/queue/README.md; any other is refused as "state".

cdef enum State:
    ACTIVE = 1
    DEFERRED = 2
    HELD = 3
    DELIVERED = 4
    BOUNCED = 5


cdef bint is_legal_move(int from_state, int to_state) noexcept nogil:
    if from_state == ACTIVE:
        return DEFERRED <= to_state <= BOUNCED
    if from_state == DEFERRED:
        return ACTIVE <= to_state <= BOUNCED
    if from_state == HELD:
        return to_state == ACTIVE or to_state == DEFERRED or to_state == BOUNCED
    return False


# --- the queue row, kept aside while a unit works on it ---

cdef int row_flush(Txn* t) noexcept nogil:
    cdef Key k
    cdef int rc
    if not t.has_queue:
        return DONE
    t.has_queue = 0
    if not t.queue_dirty:
        return DONE
    k_id(&k, T_QUEUE, t.queue_id)
    if t.queue.live == 0:
        if t.queue_new:
            return REFUSE_MISSING  # an envelope without recipients
        rc = t_del(t, &k)
        if rc:
            return rc
        row_count(t, -1)
        return blob_ref(t, t.queue.blob_id, -1, False)
    t.scratch.length = 0
    if buffer_add(&t.scratch, &t.queue, sizeof(t.queue)) < 0:
        return poison(t, ENOMEM)
    if buffer_add(&t.scratch, t.envelope.data, t.envelope.length) < 0:
        return poison(t, ENOMEM)
    return t_put(t, &k, t.scratch.data, t.scratch.length, OLD_ABSENT if t.queue_new else OLD_UNKNOWN, NULL, 0)


cdef int row_load(Txn* t, uint64_t queue_id) noexcept nogil:
    cdef Key k
    cdef MDB_val value
    cdef int rc
    if t.has_queue:
        if t.queue_id == queue_id:
            return DONE
        rc = row_flush(t)
        if rc:
            return rc
    k_id(&k, T_QUEUE, queue_id)
    rc = t_get(t, &k, &value)
    if rc:
        return rc
    memcpy(&t.queue, value.mv_data, sizeof(t.queue))
    t.envelope.length = 0
    if buffer_add(&t.envelope, <char*>value.mv_data + sizeof(t.queue), value.mv_size - sizeof(t.queue)) < 0:
        return poison(t, ENOMEM)
    t.queue_id = queue_id
    t.has_queue = 1
    t.queue_dirty = t.queue_new = 0
    return DONE


cdef int row_create(Txn* t, uint64_t queue_id, uint64_t blob_id, const char* envelope, size_t n) noexcept nogil:
    """A new row for `queue_id`, which is known to have none."""
    cdef int rc = row_flush(t)
    if rc == DONE:
        rc = blob_ref(t, blob_id, 1, False)
    if rc:
        return rc
    memset(&t.queue, 0, sizeof(t.queue))
    t.queue.format = FORMAT
    t.queue.blob_id = blob_id
    t.envelope.length = 0
    if buffer_add(&t.envelope, envelope, n) < 0:
        return poison(t, ENOMEM)
    t.queue_id = queue_id
    t.has_queue = t.queue_dirty = t.queue_new = 1
    if t.s.level >= INDEXED_LEVEL:
        t.queue.counted = 1
        row_count(t, 1)
    return DONE


cdef void row_count(Txn* t, int delta) noexcept nogil:
    """Counts the message of the row at hand, and its bytes, where it is one that is counted."""
    cdef const uint8_t* path
    cdef size_t path_length
    cdef int64_t received_at_ms, size
    if t.queue.counted:
        envelope_fields(t, &path, &path_length, &received_at_ms, &size)
        t.unit_counts[MESSAGES] += delta
        t.unit_counts[BYTES] += delta * size


cdef int op_enqueue(Txn* t, Op* op, const char* parts) noexcept nogil:
    cdef int rc = row_load(t, op.a)
    if rc == DONE:
        return DONE if op.mode and t.queue.blob_id == op.b else REFUSE_EXISTS
    if rc != REFUSE_MISSING:
        return rc
    return row_create(t, op.a, op.b, parts, op.part[0])


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
    return POISONED if t_del(t, k) < 0 else DONE


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


cdef int state_count(Txn* t, const uint8_t* path, size_t length, int kind, int64_t received_at_ms, int before,
                     int after) noexcept nogil:
    """Counts a recipient out of one state and into another (0: none), for the domain of a path and the minute of arrival."""
    cdef CountRecord record
    cdef uint32_t[4] count
    cdef Key k
    cdef MDB_val value
    cdef int rc
    k_start(&k, T_QUEUE_COUNT)
    k_u8(&k, <uint8_t>kind)
    k_domain(&k, path, length)
    k_u32(&k, <uint32_t>(received_at_ms // 60000))
    memset(&record, 0, sizeof(record))
    memset(count, 0, sizeof(count))
    record.format = FORMAT
    rc = t_get(t, &k, &value)
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
        return POISONED if rc == DONE and t_del(t, &k) < 0 else DONE
    memcpy(<char*>&record + COUNT_AT, count + 1, sizeof(count) - 4)
    if rc == DONE:
        return t_put(t, &k, &record, sizeof(record), OLD_UNKNOWN, NULL, 0)
    return t_put(t, &k, &record, sizeof(record), OLD_ABSENT, NULL, 0)


cdef int state_counts(Txn* t, const char* tail, size_t tail_length, int before, int after) noexcept nogil:
    """Does so by the recipient's domain and by the sender's; the queue row must be loaded."""
    cdef const uint8_t* path
    cdef const uint8_t* forward
    cdef size_t path_length, forward_length
    cdef int64_t received_at_ms, size
    if before == after:
        return DONE
    envelope_fields(t, &path, &path_length, &received_at_ms, &size)
    forward_path(tail, tail_length, &forward, &forward_length)
    if state_count(t, forward, forward_length, BY_RECIPIENT, received_at_ms, before, after) < 0:
        return POISONED
    return state_count(t, path, path_length, BY_SENDER, received_at_ms, before, after)


cdef enum:
    BY_RECIPIENT = 1
    BY_SENDER = 2
    COUNT_AT = 4  # where the counts begin in CountRecord


# --- recipients ---

cdef int schedule_row(Txn* t, RecipientRecord* record, const char* hop, uint64_t queue_id, uint32_t n, bint add) noexcept nogil:
    """Puts a recipient into the schedule of its hop, or takes it out; a held one has a lane that no owner reads."""
    cdef Key k
    if record.state == HELD and record.indexed < FRESH:
        return DONE
    k_schedule(&k, hop, record.hop_length, record.lane + HELD_LANE if record.state == HELD else record.lane)
    k_u64(&k, <uint64_t>record.due_ms)
    return row_mark(t, &k, queue_id, n, add)


cdef int schedule_change(Txn* t, RecipientRecord* record, const char* hop, uint64_t queue_id, uint32_t n, int delta) noexcept nogil:
    """Does so, and counts it in (+1) or out (-1)."""
    if schedule_row(t, record, hop, queue_id, n, delta > 0) < 0:
        return POISONED
    t.unit_counts[record.state] += delta
    return hop_touch(t, hop, record.hop_length, record.state, delta, record.due_ms, record.indexed == FRESH)


cdef inline int indexed_as(Txn* t, bint has_rows) noexcept nogil:
    """What a recipient's record says at today's level, where it has rows in the indexes and where not."""
    if t.s.level >= INDEXED_LEVEL:
        return INDEXED if has_rows else FRESH
    return INDEXED_BEFORE if has_rows else NOWHERE


cdef int found_by_state(Txn* t, RecipientRecord* record, uint64_t queue_id, uint32_t n, const char* tail, const char* reply,
                        bint add) noexcept nogil:
    """Writes or removes what finds and counts a recipient by what changes: its last reply, its state."""
    if error_mark(t, queue_id, n, reply, record.reply_length, add) < 0:
        return POISONED
    if add:
        return state_counts(t, tail, record.tail_length, 0, record.state)
    return state_counts(t, tail, record.tail_length, record.state, 0)


cdef int recipient_add(Txn* t, uint64_t queue_id, uint32_t n, int state, int lane, int64_t due_ms, const char* hop,
                       size_t hop_length, const char* tail, size_t tail_length, const char* reply,
                       size_t reply_length) noexcept nogil:
    """A new recipient of the row at hand."""
    cdef RecipientRecord record
    cdef Key k
    cdef MDB_val value
    cdef int rc
    if hop_length > HOP_MAX or lane < 0 or lane >= LANES or due_ms < 0 or n == 0xFFFFFFFFu:
        return REFUSE_LIMIT
    if state < ACTIVE or state > HELD:
        return REFUSE_STATE
    k_id_n(&k, T_QUEUE, queue_id, n)
    if not t.queue_new or t.queue.live:
        rc = t_get(t, &k, &value)
        if rc == DONE:
            return REFUSE_EXISTS
        if rc < 0:
            return rc
    memset(&record, 0, sizeof(record))
    record.format = FORMAT
    record.state = <uint8_t>state
    record.lane = <uint8_t>lane
    record.indexed = indexed_as(t, state == DEFERRED or (state == HELD and t.s.level < INDEXED_LEVEL))
    record.due_ms = due_ms
    record.hop_length = <uint16_t>hop_length
    record.reply_length = <uint16_t>reply_length
    record.tail_length = <uint32_t>tail_length
    rc = recipient_put(t, &k, &record, hop, tail, reply, OLD_ABSENT)
    if rc == DONE:
        rc = schedule_change(t, &record, hop, queue_id, n, 1)
    if rc == DONE and record.indexed & HAS_ROWS:
        rc = index_recipient(t, queue_id, n, tail, tail_length, True)
    if rc == DONE and record.indexed == INDEXED:
        rc = found_by_state(t, &record, queue_id, n, tail, reply, True)
    t.queue.live += 1
    t.queue_dirty = 1
    return rc


cdef int recipient_put(Txn* t, Key* k, RecipientRecord* record, const char* hop, const char* tail, const char* reply,
                       int old) noexcept nogil:
    """Writes a recipient's record; its parts may lie in scratch2, not in scratch."""
    t.scratch.length = 0
    if (buffer_add(&t.scratch, record, sizeof(record[0])) < 0
            or buffer_add(&t.scratch, hop, record.hop_length) < 0
            or buffer_add(&t.scratch, tail, record.tail_length) < 0
            or buffer_add(&t.scratch, reply, record.reply_length) < 0):
        return poison(t, ENOMEM)
    return t_put(t, k, t.scratch.data, t.scratch.length, old, NULL, 0)


cdef int op_recipient(Txn* t, Op* op, const char* parts) noexcept nogil:
    cdef int rc = row_load(t, op.a)
    if rc:
        return rc
    return recipient_add(t, op.a, op.n, op.state, op.lane, op.d, parts, op.part[0], parts + op.part[0], op.part[1], NULL, 0)


cdef int recipient_load(Txn* t, uint64_t queue_id, uint32_t n, Key* k, RecipientRecord* record) noexcept nogil:
    """The recipient's record, with its parts in scratch2."""
    cdef MDB_val value
    cdef int rc
    k_id_n(k, T_QUEUE, queue_id, n)
    rc = t_get(t, k, &value)
    if rc:
        return rc
    memcpy(record, value.mv_data, sizeof(record[0]))
    t.scratch2.length = 0
    if buffer_add(&t.scratch2, <char*>value.mv_data + sizeof(record[0]), value.mv_size - sizeof(record[0])) < 0:
        return poison(t, ENOMEM)
    return DONE


cdef int op_move(Txn* t, Op* op, const char* parts) noexcept nogil:
    cdef RecipientRecord record
    cdef Key k
    cdef int rc = row_load(t, op.a)
    if rc == DONE:
        rc = recipient_load(t, op.a, op.n, &k, &record)
    if rc:
        return rc
    if op.from_state != 0 and op.from_state != record.state:
        return REFUSE_STATE
    if not is_legal_move(record.state, op.state):
        return REFUSE_STATE
    if op.d < 0 or op.part[0] > 65535:
        return REFUSE_LIMIT
    return recipient_move(t, op.a, op.n, &k, &record, op.state, op.flags, op.d, parts, op.part[0])


cdef int op_move_each(Txn* t, Op* op, const char* parts) noexcept nogil:
    """Moves those of some recipients that are in one of the states, and says which; the others stay as they are, gone or not."""
    cdef RecipientRecord record
    cdef Key k
    cdef const uint8_t* at = <const uint8_t*>parts
    cdef uint64_t queue_id
    cdef uint32_t i, n
    cdef uint32_t count = op.part[0] // MOVE_KEY
    cdef size_t mark
    cdef int rc = row_flush(t)  # what it may refuse is of an operation before
    if rc == DONE and op.d < 0:
        rc = REFUSE_LIMIT
    if rc == DONE:
        rc = result_moved(t, count)
    if rc:
        return rc
    mark = t.mark
    for i in range(count):
        queue_id, n = be64(at), be32(at + 8)
        at += MOVE_KEY
        rc = row_load(t, queue_id)
        if rc == DONE:
            rc = recipient_load(t, queue_id, n, &k, &record)
        if rc < 0:
            return rc
        if rc or not op.mode >> record.state & 1 or not is_legal_move(record.state, op.state):
            continue
        rc = recipient_move(t, queue_id, n, &k, &record, op.state, record.attempts, op.d,
                            t.scratch2.data + record.hop_length + record.tail_length, record.reply_length)
        if rc:
            return rc
        t.unit.results.data[mark + i] = 1
    return DONE


cdef int recipient_move(Txn* t, uint64_t queue_id, uint32_t n, Key* k, RecipientRecord* record, uint8_t to_state,
                        uint32_t attempts, int64_t due_ms, const char* said, size_t said_length) noexcept nogil:
    """A legal move of the recipient that was loaded; `said` is its last reply from now on."""
    cdef const char* hop = t.scratch2.data
    cdef const char* tail = hop + record.hop_length
    cdef const char* reply = tail + record.tail_length
    cdef int before = record.state
    cdef int was = record.indexed
    cdef bint same = False
    if schedule_change(t, record, hop, queue_id, n, -1) < 0:
        return POISONED
    if to_state >= DELIVERED:
        if was & HAS_ROWS and index_recipient(t, queue_id, n, tail, record.tail_length, False) < 0:
            return POISONED
        if was == INDEXED and found_by_state(t, record, queue_id, n, tail, reply, False) < 0:
            return POISONED
        t.queue.live -= 1
        t.queue_dirty = 1
        return t_del(t, k)
    record.indexed = indexed_as(t, was & HAS_ROWS or to_state != ACTIVE)
    if record.indexed & HAS_ROWS and not was & HAS_ROWS and index_recipient(t, queue_id, n, tail, record.tail_length, True) < 0:
        return POISONED
    if record.indexed == INDEXED:
        if was != INDEXED:
            before = 0
        elif record.reply_length == said_length and memcmp(reply, said, said_length) == 0:
            same = True
        elif error_mark(t, queue_id, n, reply, record.reply_length, False) < 0:
            return POISONED
        if not same and error_mark(t, queue_id, n, said, said_length, True) < 0:
            return POISONED
        if state_counts(t, tail, record.tail_length, before, to_state) < 0:
            return POISONED
    record.state = to_state
    record.attempts = attempts
    record.due_ms = due_ms
    record.reply_length = <uint16_t>said_length
    if schedule_change(t, record, hop, queue_id, n, 1) < 0:
        return POISONED
    return recipient_put(t, k, record, hop, tail, said, OLD_UNKNOWN)


cdef int op_index(Txn* t, Op* op, const char* parts) noexcept nogil:
    """Brings a recipient, and its message, into all indexes and counts."""
    cdef RecipientRecord record
    cdef Key k
    cdef const char* hop
    cdef const char* tail
    cdef int was
    cdef int rc = row_load(t, op.a)
    if rc == DONE:
        rc = recipient_load(t, op.a, op.n, &k, &record)
    if rc < 0:
        return rc
    if rc or t.s.level < INDEXED_LEVEL:
        return DONE
    if not t.queue.counted:
        t.queue.counted = t.queue_dirty = 1
        row_count(t, 1)
    was = record.indexed
    if was == INDEXED:
        return DONE
    hop = t.scratch2.data
    tail = hop + record.hop_length
    if was == FRESH and hop_touch(t, hop, record.hop_length, 0, -1, record.due_ms, True) < 0:
        return POISONED
    if not was & HAS_ROWS and index_recipient(t, op.a, op.n, tail, record.tail_length, True) < 0:
        return POISONED
    record.indexed = INDEXED
    if record.state == HELD and was < FRESH and schedule_row(t, &record, hop, op.a, op.n, True) < 0:
        return POISONED
    if found_by_state(t, &record, op.a, op.n, tail, tail + record.tail_length, True) < 0:
        return POISONED
    return recipient_put(t, &k, &record, hop, tail, tail + record.tail_length, OLD_UNKNOWN)


cdef int op_reroute(Txn* t, Op* op, const char* parts) noexcept nogil:
    """Gives a recipient another next hop and lane; its state stays."""
    cdef RecipientRecord record
    cdef Key k
    cdef const char* tail
    cdef int rc
    if op.part[0] > HOP_MAX or op.lane >= LANES:
        return REFUSE_LIMIT
    rc = recipient_load(t, op.a, op.n, &k, &record)
    if rc:
        return rc
    if schedule_change(t, &record, t.scratch2.data, op.a, op.n, -1) < 0:
        return POISONED
    tail = t.scratch2.data + record.hop_length
    record.hop_length = <uint16_t>op.part[0]
    record.lane = op.lane
    if schedule_change(t, &record, parts, op.a, op.n, 1) < 0:
        return POISONED
    return recipient_put(t, &k, &record, parts, tail, tail + record.tail_length, OLD_UNKNOWN)
