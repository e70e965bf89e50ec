# The trash: what nobody refers to any more, deleted in slices between commits.

cdef enum:
    DAMAGED_TRASH_MS = 60000  # before trash that cannot be reaped is tried again


cdef void housekeeping(StoreState* s, Txn* t, bint busy) noexcept nogil:
    cdef int64_t now = wall_ms()
    cdef int dead = 0
    if s.any_format:
        if s.reap_now:
            reap_told(s)
        return
    if now >= s.reader_check_ms or s.reader_check_ms - now > 2 * READER_CHECK_MS:
        s.reader_check_ms = now + READER_CHECK_MS
        s.calls.reader_check(s.env, &dead)
        if s.trash_due_ms > now:
            s.trash_due_ms = now  # look for rows that other processes left
    if s.reap_now or ((s.hurry or s.trash_due_ms <= now) and not (busy and now - s.slice_ms < BUSY_SLICE_PAUSE_MS)):
        reap_slice(s, t, now)


cdef void reap_slice(StoreState* s, Txn* t, int64_t now) noexcept nogil:
    """One transaction of about two milliseconds over rows that are due; failure here hurts nobody and is tried again."""
    cdef int64_t deadline = clock_ns(CLOCK_MONOTONIC) + SLICE_NS
    cdef MDB_val key, value
    cdef Key first, k
    cdef int rc, waiting = s.reap_now
    cdef int64_t next_due = NEVER
    rc = fm_begin(<void*>s.calls.txn_begin, s.env, 0, &t.txn)
    if rc:
        if is_healed(rc):
            s.heal = rc
        s.trash_due_ms = now + 1000
        s.hurry = 0
        reap_told(s)
        return
    txn_reset(t)
    t.no_undo = 1
    t.now_ms = now
    k_start(&first, T_TRASH)
    while True:
        rc = t_first(t, &first, 1, &key, &value)
        if rc:
            break
        next_due = <int64_t>be64(<uint8_t*>key.mv_data + 1)
        if (next_due > now and not s.hurry) or clock_ns(CLOCK_MONOTONIC) > deadline:
            break
        memcpy(k.b, key.mv_data, key.mv_size)
        k.n = key.mv_size
        next_due = NEVER
        if k.b[9] == TRASH_MAILBOX:
            rc = reap_mailbox(t, be64(k.b + 10), deadline)
        elif k.b[9] == TRASH_LET_GO:
            rc = reap_let_go(t, &k, &value, deadline)
        else:
            rc = reap_blobs(t, &k, &value, deadline)
        if rc == DONE:
            rc = t_del(t, &k)
        elif rc == REFUSE_LIMIT:  # out of time; the row stays
            next_due = now
            break
        if rc < 0:
            break
    if t.rc == 0:
        trash_dead(t)
    if t.rc:
        if t.rc != FM_TORN:
            s.calls.txn_abort(t.txn)
        rc = t.rc
    elif t.writes == 0:
        s.calls.txn_abort(t.txn)
        rc = 0
    else:
        t.txn_id = s.calls.txn_id(t.txn)
        rc = commit_txn(s, t.txn)
        if rc == 0:
            s.own_txn_id = t.txn_id
        elif is_fatal(rc):
            s.failed = rc
    s.slice_ms = wall_ms()
    if rc:
        if is_healed(rc):
            s.heal = rc
        elif is_damage(rc):
            s.trash_due_ms = now + DAMAGED_TRASH_MS
            s.hurry = 0
            reap_told(s)
            return
        s.trash_due_ms = now + 1000
        s.hurry = 0
        reap_told(s)
        return
    if t.dead.length and now + s.trash_delay_ms < next_due:
        next_due = now + s.trash_delay_ms
    if next_due == NEVER:
        s.hurry = 0
    s.trash_due_ms = next_due
    if waiting and next_due > now:
        reap_told(s)


cdef void reap_told(StoreState* s) noexcept nogil:
    pthread_mutex_lock(&s.mutex)
    s.reap_now = 0
    pthread_cond_broadcast(&s.finished)
    pthread_mutex_unlock(&s.mutex)


cdef int reap_blobs(Txn* t, Key* row, MDB_val* value, int64_t deadline) noexcept nogil:
    """Deletes the blobs of one row; REFUSE_LIMIT where time ran out, with the row cut to what is left."""
    cdef size_t count = value.mv_size // 8
    cdef uint64_t blob_id
    cdef int rc
    t.scratch.length = 0
    if buffer_add(&t.scratch, value.mv_data, value.mv_size) < 0:
        return poison(t, ENOMEM)
    while count:
        memcpy(&blob_id, t.scratch.data + (count - 1) * 8, 8)
        rc = reap_blob(t, blob_id, deadline)
        if rc < 0:
            return rc
        if rc == DONE:
            count -= 1
            t.s.reaped += 1
        if rc == REFUSE_LIMIT or clock_ns(CLOCK_MONOTONIC) > deadline:
            break
    if count == 0:
        return DONE
    if t_put(t, row, t.scratch.data, count * 8, OLD_UNKNOWN, NULL, 0) < 0:
        return POISONED
    return REFUSE_LIMIT


cdef enum:
    LET_GO_WRITES = 64  # of one slice: such blobs lie far apart, and each changes two pages


cdef int reap_let_go(Txn* t, Key* row, MDB_val* value, int64_t deadline) noexcept nogil:
    """Takes a reference from each blob of one row, and deletes those that have no other, as the commit does with a message
    that was delivered; REFUSE_LIMIT as reap_blobs.
    """
    cdef size_t count = value.mv_size // 8
    cdef uint64_t blob_id
    cdef BlobMeta meta
    cdef Key k
    cdef MDB_val found
    cdef size_t before = count
    cdef int rc
    t.scratch2.length = 0
    if buffer_add(&t.scratch2, value.mv_data, value.mv_size) < 0:
        return poison(t, ENOMEM)
    while count and t.writes < LET_GO_WRITES and clock_ns(CLOCK_MONOTONIC) <= deadline:
        count -= 1
        memcpy(&blob_id, t.scratch2.data + count * 8, 8)
        k_id(&k, T_BLOB, blob_id)
        rc = t_get(t, &k, &found)
        if rc == DONE:
            memcpy(&meta, found.mv_data, sizeof(meta))
            rc = delete_now(t, blob_id) if meta.refs == 1 else REFUSE_LIMIT
            if rc == REFUSE_LIMIT:
                rc = blob_ref(t, blob_id, -1, False)
        if rc < 0:
            return rc
    if count == 0:
        return DONE
    if count < before and t_put(t, row, t.scratch2.data, count * 8, OLD_UNKNOWN, NULL, 0) < 0:
        return POISONED
    return REFUSE_LIMIT


cdef enum:
    HELD_MS = 2000      # till a blob that somebody reads is looked at again


cdef int reap_blob(Txn* t, uint64_t blob_id, int64_t deadline) noexcept nogil:
    """Deletes a blob's record and chunks, as far as time allows; REFUSE_LIMIT where it ran out."""
    cdef Key k
    cdef MDB_val key, value
    cdef int n = 0
    cdef int rc
    k_id(&k, T_BLOB, blob_id)
    while True:
        rc = t_first(t, &k, 9, &key, &value)
        if rc < 0:
            return rc
        if rc:
            return DONE
        if key.mv_size == 9:  # its record goes first: without references, nobody can come back to it
            if (<BlobMeta*>value.mv_data).refs:
                return DONE
            if (<BlobMeta*>value.mv_data).chunks > NOW_CHUNKS and not t.s.hurry and is_held(t.s, blob_id):
                # Looked at again later; where the disk is low, readers have to go without.
                return DONE if trash_put_at(t, t.now_ms + HELD_MS, TRASH_BLOBS, blob_id, &blob_id, 8) >= 0 else POISONED
            rc = t_del(t, &k)
        else:
            rc = del_at(t, &key)
        if rc < 0:
            return rc
        n += 1
        if n % 16 == 0 and clock_ns(CLOCK_MONOTONIC) > deadline:
            return REFUSE_LIMIT


cdef int del_at(Txn* t, MDB_val* key) noexcept nogil:
    """Deletes the record of a key that lies in the map."""
    cdef Key k
    memcpy(k.b, key.mv_data, key.mv_size)
    k.n = key.mv_size
    return t_del(t, &k)


cdef int reap_mailbox(Txn* t, uint64_t mailbox_id, int64_t deadline) noexcept nogil:
    """Deletes what a mailbox that is gone held; REFUSE_LIMIT where time ran out."""
    cdef Key k
    cdef MDB_val key, value
    cdef uint64_t blob_id
    cdef int n = 0
    cdef int table, rc
    cdef int[4] tables = [T_MESSAGE, T_ENVELOPE, T_CHANGE, T_UIDL]
    for table in tables:
        k_id(&k, table, mailbox_id)
        while True:
            rc = t_first(t, &k, 9, &key, &value)
            if rc < 0:
                return rc
            if rc:
                break
            if table == T_MESSAGE:
                blob_id = (<MessageRecord*>value.mv_data).blob_id
                if del_at(t, &key) < 0 or blob_ref(t, blob_id, -1, True) < 0:
                    return POISONED
            elif del_at(t, &key) < 0:
                return POISONED
            n += 1
            if n % 16 == 0 and clock_ns(CLOCK_MONOTONIC) > deadline:
                return REFUSE_LIMIT
    return DONE
