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
        if t.lets_go:
            return let_go(t, t.queue.blob_id, t.queue_id)
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
    if t.s.level >= TENANT_LEVEL:
        return INDEXED_BY_TENANT if has_rows else FRESH
    if t.s.level >= INDEXED_LEVEL:
        return INDEXED if has_rows else FRESH
    return INDEXED_BEFORE if has_rows else NOWHERE


cdef int found_by_state(Txn* t, RecipientRecord* record, uint64_t queue_id, uint32_t n, const char* tail, const char* reply,
                        bint add) noexcept nogil:
    """Writes or removes what finds and counts a recipient by what changes: its last reply, its state; and by its tenant."""
    cdef int before = 0 if add else record.state
    cdef int after = record.state if add else 0
    if record.indexed == INDEXED_BY_TENANT and tenant_rows(t, queue_id, n, tail, record.tail_length, before, after) < 0:
        return POISONED
    if error_mark(t, queue_id, n, reply, record.reply_length, add) < 0:
        return POISONED
    return state_counts(t, tail, record.tail_length, before, after)


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
    if rc == DONE and record.indexed >= INDEXED:
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
    """Moves those of some recipients that are in one of the states, and says which; the others stay as they are, gone or not.

    Bodies of messages that leave the queue are let go (docs/adr/0268).
    """
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
    t.lets_go = op.state == BOUNCED
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
    if t.lets_go:
        rc = row_flush(t)
        t.lets_go = 0
        return rc
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
        if was >= INDEXED and found_by_state(t, record, queue_id, n, tail, reply, False) < 0:
            return POISONED
        t.queue.live -= 1
        t.queue_dirty = 1
        return t_del(t, k)
    record.indexed = indexed_as(t, was & HAS_ROWS or to_state != ACTIVE)
    if record.indexed & HAS_ROWS and not was & HAS_ROWS and index_recipient(t, queue_id, n, tail, record.tail_length, True) < 0:
        return POISONED
    if record.indexed == INDEXED_BY_TENANT and tenant_rows(t, queue_id, n, tail, record.tail_length,
                                                           before if was == INDEXED_BY_TENANT else 0, to_state) < 0:
        return POISONED
    if record.indexed >= INDEXED:
        if was < INDEXED:
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
    record.indexed = indexed_as(t, True)
    if was >= record.indexed:
        return DONE
    hop = t.scratch2.data
    tail = hop + record.hop_length
    if was == INDEXED:
        if tenant_rows(t, op.a, op.n, tail, record.tail_length, 0, record.state) < 0:
            return POISONED
        return recipient_put(t, &k, &record, hop, tail, tail + record.tail_length, OLD_UNKNOWN)
    if was == FRESH and hop_touch(t, hop, record.hop_length, 0, -1, record.due_ms, True) < 0:
        return POISONED
    if not was & HAS_ROWS and index_recipient(t, op.a, op.n, tail, record.tail_length, True) < 0:
        return POISONED
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
