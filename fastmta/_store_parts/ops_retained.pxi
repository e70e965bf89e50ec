# Expunged messages that can be had back: each a row of its account with what its mailbox had of it, until it is released.
#
# They are in no mailbox and in no usage that a quota looks at. What an account may retain has a ceiling of its own, which is
# never passed: the oldest go first, and where that is not enough within bounds, the new one goes. The structure is not kept: whoever brings a message back makes it from the bytes.

cdef enum:
    RETAINED_OVERHEAD = 1024  # charged for a row beside the message's size, so that many small ones are bounded too
    DISPLACED = 8  # of the oldest that go for a message that comes: more would make a unit long

cdef struct Retaining:  # what one EXPUNGE retains
    uint64_t account_id
    uint64_t mailbox_id
    uint64_t ceiling
    uint64_t at_s
    size_t name_length
    RetainedTotals totals
    char name[440]


cdef void k_retained(Key* k, uint64_t account_id, uint64_t at_s, uint64_t mailbox_id, uint32_t uid) noexcept nogil:
    k_id(k, T_RETAINED, account_id)
    k_u64(k, at_s)
    k_u64(k, mailbox_id)
    k_u32(k, uid)


cdef int totals_get(Txn* t, uint64_t account_id, RetainedTotals* totals) noexcept nogil:
    """What an account retains; all zero where that is nothing."""
    cdef Key k
    cdef MDB_val value
    cdef int rc
    k_id(&k, T_RETAINED, account_id)
    rc = t_get(t, &k, &value)
    if rc == DONE:
        memcpy(totals, value.mv_data, sizeof(totals[0]))
    elif rc == REFUSE_MISSING:
        memset(totals, 0, sizeof(totals[0]))
        totals.format = FORMAT
        rc = DONE
    return rc


cdef int totals_put(Txn* t, uint64_t account_id, RetainedTotals* totals) noexcept nogil:
    cdef Key k
    k_id(&k, T_RETAINED, account_id)
    if totals.messages == 0:
        return t_del(t, &k)
    return t_put(t, &k, totals, sizeof(totals[0]), OLD_UNKNOWN, NULL, 0)


cdef int retaining_begin(Txn* t, Retaining* r, Op* op, uint64_t account_id) noexcept nogil:
    cdef Key k
    cdef MDB_val value
    cdef MailboxRecord* box
    k_id(&k, T_MAILBOX, op.a)
    if t_get(t, &k, &value) != DONE:
        return poison(t, MDB_CORRUPTED)
    box = <MailboxRecord*>value.mv_data
    r.account_id = account_id
    r.mailbox_id = op.a
    r.ceiling = op.b
    r.at_s = <uint64_t>(t.now_ms // 1000)
    r.name_length = box.name_length if box.name_length <= sizeof(r.name) else sizeof(r.name)
    memcpy(r.name, <char*>value.mv_data + sizeof(box[0]), r.name_length)
    return totals_get(t, account_id, &r.totals)


cdef int room_for(Txn* t, Retaining* r, uint64_t size) noexcept nogil:
    """1 where a message may be retained, for which the oldest ones go if need be; 0 where it has to go itself."""
    cdef Key k, found
    cdef MDB_val key, value
    cdef int left = DISPLACED
    cdef int rc
    k_retained(&k, r.account_id, 0, 0, 0)
    while r.totals.bytes + size + RETAINED_OVERHEAD > r.ceiling:
        rc = t_first(t, &k, 9, &key, &value) if left else REFUSE_MISSING
        if rc < 0:
            return rc
        if rc:
            return 0
        left -= 1
        memcpy(found.b, key.mv_data, key.mv_size)
        found.n = key.mv_size
        if retained_drop(t, &found, &value, &r.totals) < 0:
            return POISONED
    return 1


cdef int retain(Txn* t, Retaining* r, uint32_t uid, MDB_val* message) noexcept nogil:
    """Writes the row of a message whose record is `message`, which lies in the map."""
    cdef RetainedRecord record
    cdef Key k
    memset(&record, 0, sizeof(record))
    record.format = FORMAT
    record.name_length = <uint16_t>r.name_length
    r.totals.messages += 1
    r.totals.bytes += (<MessageRecord*>message.mv_data).size + RETAINED_OVERHEAD
    t.scratch.length = 0
    if (buffer_add(&t.scratch, &record, sizeof(record)) < 0 or buffer_add(&t.scratch, r.name, r.name_length) < 0
            or buffer_add(&t.scratch, message.mv_data, message.mv_size) < 0):
        return poison(t, ENOMEM)
    k_retained(&k, r.account_id, r.at_s, r.mailbox_id, uid)
    return t_put(t, &k, t.scratch.data, t.scratch.length, OLD_ABSENT, NULL, 0)


cdef int retained_drop(Txn* t, Key* k, MDB_val* value, RetainedTotals* totals) noexcept nogil:
    cdef MessageRecord message
    memcpy(&message, <char*>value.mv_data + sizeof(RetainedRecord) + (<RetainedRecord*>value.mv_data).name_length,
           sizeof(message))
    totals.messages -= 1
    totals.bytes -= message.size + RETAINED_OVERHEAD
    if t_del(t, k) < 0:
        return POISONED
    return POISONED if blob_ref(t, message.blob_id, -1, True) < 0 else DONE


cdef int op_release(Txn* t, Op* op, const char* parts) noexcept nogil:
    """Lets go of retained messages; one that is not there refuses the unit where the mode says so."""
    cdef RetainedTotals totals
    cdef Key k
    cdef MDB_val value
    cdef size_t i
    cdef bint changed = False
    cdef int rc = totals_get(t, op.a, &totals)
    if rc:
        return rc
    for i in range(<size_t>op.part[0] // RETAINED_KEY):
        k_id(&k, T_RETAINED, op.a)
        k_bytes(&k, parts + i * RETAINED_KEY, RETAINED_KEY)
        rc = t_get(t, &k, &value)
        if rc == REFUSE_MISSING:
            if op.mode:
                return REFUSE_CHANGED
            continue
        if rc:
            return rc
        if retained_drop(t, &k, &value, &totals) < 0:
            return POISONED
        changed = True
    return totals_put(t, op.a, &totals) if changed else DONE
