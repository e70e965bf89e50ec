# What a transaction counts and writes once at its end: the hops of the queue, and the queue as a whole.

# --- hops ---

cdef inline void hop_count(HopTouch* touch, int state, int delta, bint is_fresh) noexcept nogil:
    if state == 1:
        touch.active += delta
    elif state == 2:
        touch.deferred += delta
    elif state == 3:
        touch.held += delta
    if is_fresh:
        touch.fresh += delta


cdef int hop_touch(Txn* t, const char* hop, size_t n, int state, int delta, int64_t due_ms, bint is_fresh) noexcept nogil:
    """Notes that a recipient of this hop came (+1) to or went (-1) from `state`; 0: its state stays, `is_fresh` changes."""
    cdef uint32_t crc = crc32_of(hop, n)
    cdef HopTouch* touch = <HopTouch*>t.hops.data
    cdef int count = <int>(t.hops.length // sizeof(HopTouch))
    cdef int i
    cdef UndoTail tail
    for i in range(count):
        if touch[i].crc == crc and touch[i].length == n and memcmp(touch[i].name, hop, n) == 0:
            break
    else:
        i = count
        if buffer_room(&t.hops, sizeof(HopTouch)) < 0:
            return poison(t, ENOMEM)
        touch = <HopTouch*>t.hops.data
        memset(&touch[i], 0, sizeof(HopTouch))
        touch[i].crc = crc
        touch[i].length = <uint16_t>n
        touch[i].added_due = NEVER
        memcpy(touch[i].name, hop, n)
        t.hops.length += sizeof(HopTouch)
    hop_count(&touch[i], state, delta, is_fresh)
    if state == 0:
        pass
    elif delta < 0:
        touch[i].removed = 1
    elif state != 3:
        if due_ms < touch[i].added_due:
            touch[i].added_due = due_ms
        if state == 1:
            touch[i].new_work = 1
    memset(&tail, 0, sizeof(tail))
    tail.kind = UNDO_HOP
    tail.state = <uint8_t>(state | IS_FRESH if is_fresh else state)
    tail.delta = <int16_t>delta
    tail.key_length = sizeof(i)
    if buffer_add(&t.undo, &i, sizeof(i)) < 0 or buffer_add(&t.undo, &tail, sizeof(tail)) < 0:
        return poison(t, ENOMEM)
    return DONE


cdef int hop_flush(Txn* t, HopTouch* touch) noexcept nogil:
    """Brings a touched hop's record and its place in the index up to date."""
    cdef HopRecord record
    cdef Key state_key, index_key, lane_key
    cdef MDB_val key, value
    cdef int64_t earliest, due
    cdef int rc, lane, had
    k_hop_state(&state_key, touch.name, touch.length)
    rc = t_get(t, &state_key, &value)
    if rc < 0:
        return rc
    had = rc == DONE
    memset(&record, 0, sizeof(record))
    record.due_ms = NEVER
    if had:
        memcpy(&record, value.mv_data, value.mv_size)
    record.format = <uint8_t>format_of(T_HOP_STATE, state_key.n, t.s.level)
    if touch.removed:
        earliest = NEVER
        for lane in range(LANES):
            k_schedule(&lane_key, touch.name, touch.length, lane)
            rc = t_first(t, &lane_key, lane_key.n, &key, &value)
            if rc < 0:
                return rc
            if rc == DONE:
                due = <int64_t>be64(<uint8_t*>key.mv_data + lane_key.n)
                if due < earliest:
                    earliest = due
    else:
        earliest = record.due_ms if record.due_ms < touch.added_due else touch.added_due
    if earliest != record.due_ms:
        if record.due_ms != NEVER:
            k_hop(&index_key, touch, record.due_ms)
            if t_del(t, &index_key) < 0:
                return POISONED
        if earliest != NEVER:
            k_hop(&index_key, touch, earliest)
            if t_put(t, &index_key, NULL, 0, OLD_UNKNOWN, NULL, 0) < 0:
                return POISONED
    elif touch.active == 0 and touch.deferred == 0 and touch.held == 0 and touch.fresh == 0:
        return DONE
    record.due_ms = earliest
    record.active += touch.active
    record.deferred += touch.deferred
    record.held += touch.held
    record.fresh += touch.fresh
    if record.active == 0 and record.deferred == 0 and record.held == 0:
        return t_del(t, &state_key) if had else DONE
    return t_put(t, &state_key, &record, hop_size(record.format), OLD_UNKNOWN, NULL, 0)


cdef inline void k_hop(Key* k, HopTouch* touch, int64_t due_ms) noexcept nogil:
    k_start(k, T_HOP)
    k_u8(k, <uint8_t>(touch.crc & 255))
    k_u64(k, <uint64_t>due_ms)
    k_bytes(k, touch.name, touch.length)


# --- the whole queue ---

cdef const char* state_names[4]  # of their counters, at level 2
state_names[1] = b"active"
state_names[2] = b"deferred"
state_names[3] = b"held"


cdef int queue_counts_add(Txn* t) noexcept nogil:
    """Adds to the counts of the whole queue, which begin as the counters of level 2."""
    cdef QueueCounts record
    cdef Key k, counter
    cdef MDB_val value
    cdef int64_t[COUNTED] counts
    cdef int i
    cdef int rc
    for i in range(COUNTED):
        if t.counts[i]:
            break
    else:
        return DONE
    k_start(&k, T_QUEUE_COUNT)
    rc = t_get(t, &k, &value)
    if rc < 0:
        return rc
    if rc == DONE:
        memcpy(counts + 1, <char*>value.mv_data + COUNTS_AT, sizeof(counts) - 8)
    else:
        memset(counts, 0, sizeof(counts))
        for i in range(1, 4):
            k_start(&counter, T_COUNTER)
            k_bytes(&counter, state_names[i], strlen(state_names[i]))
            rc = t_get(t, &counter, &value)
            if rc == DONE:
                memcpy(&counts[i], value.mv_data, 8)
                rc = t_del(t, &counter)
            if rc < 0:
                return rc
    for i in range(1, COUNTED):
        counts[i] += t.counts[i]
    memset(&record, 0, sizeof(record))
    record.format = FORMAT
    memcpy(<char*>&record + COUNTS_AT, counts + 1, sizeof(counts) - 8)
    return t_put(t, &k, &record, sizeof(record), OLD_UNKNOWN, NULL, 0)
