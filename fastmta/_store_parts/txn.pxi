# One write transaction as the operations see it: reads, writes with an undo log, and what is written once at its end.
#
# A unit's operations run one after the other, each checking before it writes. Where one refuses, the unit's earlier writes are
# undone from the log and the transaction goes on with the next unit. Where LMDB itself fails, the transaction is poisoned.

cdef enum:
    OLD_UNKNOWN = 0
    OLD_ABSENT = 1
    OLD_GIVEN = 2
    UNDO_REMOVE = 1
    UNDO_RESTORE = 2
    UNDO_HOP = 3
    IS_FRESH = 128  # beside the state

cdef struct HopTouch:
    uint32_t crc
    uint16_t length
    uint8_t new_work
    uint8_t removed  # the earliest due must be sought anew
    int32_t active
    int32_t deferred
    int32_t held
    int32_t fresh
    int64_t added_due
    char name[HOP_MAX]

cdef struct Touch:
    uint64_t number  # of a mailbox, or of an account: they are never the same
    uint64_t mark  # the modseq that it is at, or the version of the account's list

cdef packed struct UndoTail:
    uint8_t kind
    uint8_t state
    int16_t delta
    uint32_t key_length
    uint32_t value_length

cdef packed struct LetGo:
    uint64_t blob_id  # to lose a reference
    uint64_t queue_id  # of the message that held it, which goes once

cdef struct Txn:
    void* txn
    StoreState* s
    int rc
    int writes  # of this transaction
    uint64_t txn_id
    int no_undo
    int fail_in  # writes until a unit's injected failure; 0: none
    int64_t now_ms
    int64_t replayed_ms  # the time of a frame that is carried out again; 0: this is no replay
    int64_t reserve
    int64_t looked_reserve
    int64_t looked_ns
    int64_t looked_spare
    int64_t room  # bytes that new mail may still take
    int64_t spare  # and those that a bounce or a copy may
    Buffer undo
    Buffer scratch
    Buffer scratch2
    # of the unit
    CUnit* unit
    size_t mark  # where its open list of results begins
    int has_blob
    uint64_t blob_id
    BlobMeta blob
    const char* blob_rest  # what stands behind it: in the unit's body
    Buffer unreferenced
    int may_drop_blob  # who was to have its blob has refused it, which is no failure of the unit
    int has_queue
    int queue_dirty
    int queue_new
    uint64_t queue_id
    int lets_go  # of what leaves the queue now, the blobs are seen to later
    QueueRecord queue
    Buffer envelope
    int64_t unit_counts[COUNTED]
    # of the transaction
    int64_t counts[COUNTED]
    Buffer hops  # HopTouch
    Buffer dead  # blob ids without references
    Buffer let_go  # LetGo
    Buffer touched  # Touch


cdef inline int poison(Txn* t, int rc) noexcept nogil:
    if t.rc == 0:
        t.rc = rc
    return POISONED


cdef int poison_at(Txn* t, int rc, Key* k) noexcept nogil:
    """`poison`, and leaves for the log where the damage was met."""
    cdef StoreState* s = t.s
    if is_damage(rc):
        pthread_mutex_lock(&s.mutex)
        s.damage_rc = rc
        s.damage_table = k.b[0]
        s.damage_length = k.n - 1 if k.n - 1 < DAMAGE_KEY else DAMAGE_KEY
        memcpy(s.damage_key, k.b + 1, s.damage_length)
        s.damages += 1
        pthread_mutex_unlock(&s.mutex)
    return poison(t, rc)


cdef inline int t_get(Txn* t, Key* k, MDB_val* value) noexcept nogil:
    """DONE, REFUSE_MISSING or POISONED; the value lies in the map and is gone with the next write."""
    cdef MDB_val key
    cdef int rc
    key.mv_size = k.n
    key.mv_data = k.b
    rc = fm_get_own(<void*>t.s.calls.get, t.txn, t.s.dbi[database_of(k.b[0])], &key, value)
    if rc == 0:
        if record_fits(t.s.knows, k.b[0], k.n, value.mv_data, value.mv_size) or t.s.any_format:
            return DONE
        rc = unfit(t.s.knows, k.b[0], k.n, value.mv_data, value.mv_size)
    if rc == MDB_NOTFOUND:
        return REFUSE_MISSING
    return poison_at(t, rc, k)


cdef int undo_note(Txn* t, int kind, const void* key, size_t key_length, const void* value, size_t value_length) noexcept nogil:
    cdef UndoTail tail
    if t.no_undo:
        return DONE
    memset(&tail, 0, sizeof(tail))
    tail.kind = <uint8_t>kind
    tail.key_length = <uint32_t>key_length
    tail.value_length = <uint32_t>value_length
    if buffer_room(&t.undo, key_length + value_length + sizeof(tail)) < 0:
        return poison(t, ENOMEM)
    buffer_add(&t.undo, key, key_length)
    buffer_add(&t.undo, value, value_length)
    buffer_add(&t.undo, &tail, sizeof(tail))
    return DONE


cdef inline int injected(Txn* t, int kind) noexcept nogil:
    """A test's failure at this write, as LMDB would report it; 0: none."""
    cdef StoreState* s = t.s
    if t.fail_in:
        t.fail_in -= 1
        if t.fail_in == 0:
            t.fail_in = 1  # and every later one
            return MDB_MAP_FULL
    if s.inject_kind == kind and s.inject_after:
        s.inject_after -= 1
        if s.inject_after == 0:
            return s.inject_rc
    return 0


cdef int t_put(Txn* t, Key* k, const void* data, size_t n, int old, const void* old_data, size_t old_length) noexcept nogil:
    cdef MDB_val key, value
    cdef int rc
    rc = injected(t, INJECT_PUT)
    if rc:
        return poison(t, rc)
    if old == OLD_ABSENT:
        rc = undo_note(t, UNDO_REMOVE, k.b, k.n, NULL, 0)
    elif old == OLD_GIVEN:
        rc = undo_note(t, UNDO_RESTORE, k.b, k.n, old_data, old_length)
    elif not t.no_undo:
        rc = t_get(t, k, &value)
        if rc == DONE:
            rc = undo_note(t, UNDO_RESTORE, k.b, k.n, value.mv_data, value.mv_size)
        elif rc == REFUSE_MISSING:
            rc = undo_note(t, UNDO_REMOVE, k.b, k.n, NULL, 0)
    if rc < 0:
        return rc
    key.mv_size = k.n
    key.mv_data = k.b
    value.mv_size = n
    value.mv_data = <void*>data
    rc = fm_put(<void*>t.s.calls.put, t.txn, t.s.dbi[database_of(k.b[0])], &key, &value)
    if rc:
        return poison_at(t, rc, k)
    t.writes += 1
    return DONE


cdef int t_del(Txn* t, Key* k) noexcept nogil:
    """DONE, or REFUSE_MISSING where there is no such record."""
    cdef MDB_val key, value
    cdef int rc
    rc = injected(t, INJECT_DEL)
    if rc:
        return poison(t, rc)
    if not t.no_undo:
        rc = t_get(t, k, &value)
        if rc:
            return rc
        if undo_note(t, UNDO_RESTORE, k.b, k.n, value.mv_data, value.mv_size) < 0:
            return POISONED
    key.mv_size = k.n
    key.mv_data = k.b
    rc = fm_del(<void*>t.s.calls.delete, t.txn, t.s.dbi[database_of(k.b[0])], &key)
    if rc == MDB_NOTFOUND:
        return REFUSE_MISSING
    if rc:
        return poison_at(t, rc, k)
    t.writes += 1
    return DONE


cdef int t_del_row(Txn* t, Key* k) noexcept nogil:
    """As t_del of a record without a value, as rows of indexes are: what is restored is known without a look."""
    cdef MDB_val key
    cdef size_t mark = t.undo.length
    cdef int rc
    rc = injected(t, INJECT_DEL)
    if rc:
        return poison(t, rc)
    if undo_note(t, UNDO_RESTORE, k.b, k.n, NULL, 0) < 0:
        return POISONED
    key.mv_size = k.n
    key.mv_data = k.b
    rc = fm_del(<void*>t.s.calls.delete, t.txn, t.s.dbi[database_of(k.b[0])], &key)
    if rc == MDB_NOTFOUND:
        t.undo.length = mark
        return REFUSE_MISSING
    if rc:
        return poison_at(t, rc, k)
    t.writes += 1
    return DONE


cdef int t_first(Txn* t, Key* start, size_t prefix, MDB_val* key, MDB_val* value) noexcept nogil:
    """The first record at or after `start` that shares its first `prefix` bytes."""
    cdef void* cursor
    cdef int rc = fm_cursor_open(<void*>t.s.calls.cursor_open, t.txn, t.s.dbi[database_of(start.b[0])], &cursor)
    if rc:
        return poison_at(t, rc, start)
    key.mv_size = start.n
    key.mv_data = start.b
    rc = fm_cursor_own(<void*>t.s.calls.cursor_get, cursor, key, value, MDB_SET_RANGE)
    t.s.calls.cursor_close(cursor)
    if rc == MDB_NOTFOUND:
        return REFUSE_MISSING
    if rc:
        return poison_at(t, rc, start)
    if key.mv_size < prefix or memcmp(key.mv_data, start.b, prefix) != 0:
        return REFUSE_MISSING
    if not record_fits(t.s.knows, start.b[0], key.mv_size, value.mv_data, value.mv_size) and not t.s.any_format:
        return poison_at(t, unfit(t.s.knows, start.b[0], key.mv_size, value.mv_data, value.mv_size), start)
    return DONE


cdef int txn_level(Txn* t) noexcept nogil:
    """Learns at what level records are written now, and what quotas there are, where somebody may have changed that since
    our last transaction."""
    cdef StoreState* s = t.s
    cdef MDB_val value
    cdef Key k
    cdef size_t i
    cdef int level = 0
    cdef int rc
    if s.any_format or (s.calls.txn_id(t.txn) == s.own_txn_id + 1 and not s.level_stale):
        return DONE
    k_start(&k, T_META)
    k_bytes(&k, b"schema", 6)
    rc = t_get(t, &k, &value)
    if rc < 0:
        return rc
    if rc == DONE:
        for i in range(value.mv_size if value.mv_size < 4 else 4):
            level = level * 10 + (<uint8_t*>value.mv_data)[i] - 48
        if not SHARED_FROM <= level <= s.knows:
            return poison(t, MDB_VERSION_MISMATCH)  # it was raised without us, or an upgrade has begun
        s.level = level
    if load_quota_rules(t) < 0:
        return POISONED
    s.level_stale = 0
    return DONE


cdef int t_undo(Txn* t) noexcept nogil:
    """Takes back the unit's writes, newest first."""
    cdef UndoTail tail
    cdef MDB_val key, value
    cdef HopTouch* touch
    cdef char* at
    cdef int rc
    while t.undo.length:
        memcpy(&tail, t.undo.data + t.undo.length - sizeof(tail), sizeof(tail))
        t.undo.length -= sizeof(tail) + tail.key_length + tail.value_length
        at = t.undo.data + t.undo.length
        if tail.kind == UNDO_HOP:
            memcpy(&rc, at, sizeof(rc))
            touch = <HopTouch*>t.hops.data + rc
            hop_count(touch, tail.state & ~IS_FRESH, -tail.delta, (tail.state & IS_FRESH) != 0)
            touch.removed = 1
            continue
        key.mv_size = tail.key_length
        key.mv_data = at
        if tail.kind == UNDO_REMOVE:
            rc = fm_del(<void*>t.s.calls.delete, t.txn, t.s.dbi[database_of(<uint8_t>at[0])], &key)
        else:
            value.mv_size = tail.value_length
            value.mv_data = at + tail.key_length
            rc = fm_put(<void*>t.s.calls.put, t.txn, t.s.dbi[database_of(<uint8_t>at[0])], &key, &value)
        if rc:
            return poison(t, rc)
    return DONE


# --- blobs ---

cdef int blob_dead(Txn* t, uint64_t blob_id) noexcept nogil:
    if buffer_add(&t.dead, &blob_id, sizeof(blob_id)) < 0:
        return poison(t, ENOMEM)
    return DONE


cdef int blob_flush(Txn* t) noexcept nogil:
    """Writes the record of the blob that this unit brought; one without references yet must have some by the unit's end."""
    cdef Key k
    if not t.has_blob:
        return DONE
    t.has_blob = 0
    if t.blob.refs == 0 and buffer_add(&t.unreferenced, &t.blob_id, sizeof(t.blob_id)) < 0:
        return poison(t, ENOMEM)
    k_id(&k, T_BLOB, t.blob_id)
    t.scratch.length = 0
    if (buffer_add(&t.scratch, &t.blob, sizeof(t.blob)) < 0
            or buffer_add(&t.scratch, t.blob_rest, rest_length(&t.blob)) < 0):
        return poison(t, ENOMEM)
    return t_put(t, &k, t.scratch.data, t.scratch.length, OLD_ABSENT, NULL, 0)


cdef int blob_size(Txn* t, uint64_t blob_id, uint64_t* size) noexcept nogil:
    """The size of a blob that may be referred to."""
    cdef Key k
    cdef MDB_val value
    cdef int rc
    if t.has_blob and t.blob_id == blob_id:
        size[0] = t.blob.size
        return DONE
    k_id(&k, T_BLOB, blob_id)
    rc = t_get(t, &k, &value)
    if rc:
        return rc
    if (<BlobMeta*>value.mv_data).refs == 0 and not is_unreferenced(t, blob_id):
        return REFUSE_MISSING
    size[0] = (<BlobMeta*>value.mv_data).size
    return DONE


cdef bint is_unreferenced(Txn* t, uint64_t blob_id) noexcept nogil:
    cdef size_t i
    for i in range(t.unreferenced.length // 8):
        if (<uint64_t*>t.unreferenced.data)[i] == blob_id:
            return True
    return False


cdef int blob_ref(Txn* t, uint64_t blob_id, int delta, bint kept) noexcept nogil:
    """Adds to a blob's references; when the last one has gone it is dead. `kept`: a mailbox refers to it."""
    cdef Key k
    cdef MDB_val value
    cdef BlobMeta meta
    cdef uint32_t before
    cdef int rc
    if t.has_blob and t.blob_id == blob_id:
        if delta < 0 and t.blob.refs < <uint32_t>(-delta):
            return REFUSE_MISSING
        t.blob.refs += delta
        t.blob.kept |= kept
        return DONE
    k_id(&k, T_BLOB, blob_id)
    rc = t_get(t, &k, &value)
    if rc:
        return rc
    memcpy(&meta, value.mv_data, sizeof(meta))
    if meta.refs == 0 and not is_unreferenced(t, blob_id):
        return REFUSE_MISSING
    if delta < 0 and meta.refs < <uint32_t>(-delta):
        return REFUSE_MISSING
    before = meta.refs
    meta.refs += delta
    meta.kept |= kept
    t.scratch.length = 0
    if (buffer_add(&t.scratch, &meta, sizeof(meta)) < 0
            or buffer_add(&t.scratch, <char*>value.mv_data + sizeof(meta), value.mv_size - sizeof(meta)) < 0):
        return poison(t, ENOMEM)
    if t_put(t, &k, t.scratch.data, t.scratch.length, OLD_GIVEN, value.mv_data, value.mv_size) < 0:
        return POISONED
    if meta.refs == 0 and before != 0:
        return blob_dead(t, blob_id)
    return DONE


# --- the ends of a unit and of a transaction ---

cdef void unit_begin(Txn* t) noexcept nogil:
    t.undo.length = 0
    t.unreferenced.length = 0
    t.has_blob = t.has_queue = t.may_drop_blob = t.lets_go = 0
    memset(t.unit_counts, 0, sizeof(t.unit_counts))


cdef int unit_end(Txn* t) noexcept nogil:
    cdef size_t i
    cdef Key k
    cdef MDB_val value
    cdef int rc = row_flush(t)
    if rc == DONE:
        rc = blob_flush(t)
    if rc:
        return rc
    for i in range(t.unreferenced.length // 8):
        k_id(&k, T_BLOB, (<uint64_t*>t.unreferenced.data)[i])
        rc = t_get(t, &k, &value)
        if rc:
            return rc
        if (<BlobMeta*>value.mv_data).refs == 0:
            if not t.may_drop_blob:
                return REFUSE_MISSING
            if blob_dead(t, (<uint64_t*>t.unreferenced.data)[i]) < 0:
                return POISONED
    for i in range(<size_t>COUNTED):
        t.counts[i] += t.unit_counts[i]
    return DONE


cdef int counter_add(Txn* t, const char* name, int64_t delta) noexcept nogil:
    cdef Key k
    cdef MDB_val value
    cdef int64_t number = 0
    cdef int rc
    k_start(&k, T_COUNTER)
    k_bytes(&k, name, strlen(name))
    rc = t_get(t, &k, &value)
    if rc < 0:
        return rc
    if rc == DONE and value.mv_size == 8:
        memcpy(&number, value.mv_data, 8)
    number += delta
    return t_put(t, &k, &number, 8, OLD_UNKNOWN, NULL, 0)


cdef int txn_flush(Txn* t) noexcept nogil:
    """What is written once a transaction: counters, the index of hops, the list of dead blobs."""
    cdef size_t i
    t.no_undo = 1
    for i in range(t.hops.length // sizeof(HopTouch)):
        if hop_flush(t, <HopTouch*>t.hops.data + i) < 0:
            return POISONED
    if t.s.level >= INDEXED_LEVEL:
        if queue_counts_add(t) < 0:
            return POISONED
    else:
        for i in range(1, 4):
            if t.counts[i] and counter_add(t, state_names[i], t.counts[i]) < 0:
                return POISONED
    if trash_dead(t) < 0:
        return POISONED
    return trash_let_go(t)


cdef int trash_put(Txn* t, int kind, uint64_t number, const void* data, size_t n) noexcept nogil:
    return trash_put_at(t, t.now_ms + t.s.trash_delay_ms, kind, number, data, n)


cdef int trash_put_at(Txn* t, int64_t due_ms, int kind, uint64_t number, const void* data, size_t n) noexcept nogil:
    cdef Key k
    k_start(&k, T_TRASH)
    k_u64(&k, <uint64_t>due_ms)
    k_u8(&k, <uint8_t>kind)
    k_u64(&k, number)
    return t_put(t, &k, data, n, OLD_UNKNOWN, NULL, 0)


cdef int delete_now(Txn* t, uint64_t blob_id) noexcept nogil:
    """Deletes a blob that is dead, or loses its last reference by it, at once where that is cheap and nobody can be reading
    it: a small one that only the queue held.

    DONE, or REFUSE_LIMIT for one that must go through the trash.
    """
    cdef Key k
    cdef MDB_val value
    cdef BlobMeta meta
    cdef uint32_t i
    cdef int rc
    k_id(&k, T_BLOB, blob_id)
    rc = t_get(t, &k, &value)
    if rc:
        return rc if rc < 0 else REFUSE_LIMIT
    memcpy(&meta, value.mv_data, sizeof(meta))
    if meta.kept or meta.chunks > NOW_CHUNKS:
        return REFUSE_LIMIT
    if t_del(t, &k) < 0:
        return POISONED
    for i in range(meta.chunks):
        k_id_n(&k, T_BLOB, blob_id, i)
        if t_del(t, &k) < 0:
            return POISONED
    t.s.reaped += 1
    return DONE


cdef int trash_dead(Txn* t) noexcept nogil:
    """The end of the blobs that died in this transaction: at once, or as rows of trash with many ids each."""
    cdef size_t count = 0
    cdef size_t done = 0, n, i
    cdef uint64_t* ids = <uint64_t*>t.dead.data
    cdef int rc
    for i in range(t.dead.length // 8):
        rc = delete_now(t, ids[i])
        if rc < 0:
            return rc
        if rc == REFUSE_LIMIT:
            ids[count] = ids[i]
            count += 1
    t.dead.length = count * 8
    while done < count:
        n = count - done if count - done < 400 else 400
        # A blob dies once, so the first id tells this row from every other.
        if trash_put(t, TRASH_BLOBS, (<uint64_t*>t.dead.data)[done], t.dead.data + done * 8, n * 8) < 0:
            return POISONED
        done += n
    return DONE


cdef int let_go(Txn* t, uint64_t blob_id, uint64_t queue_id) noexcept nogil:
    """Has a blob lose its reference by a message of the queue later, by the trash."""
    cdef LetGo one
    one.blob_id = blob_id
    one.queue_id = queue_id
    if buffer_add(&t.let_go, &one, sizeof(one)) < 0:
        return poison(t, ENOMEM)
    return DONE


cdef int trash_let_go(Txn* t) noexcept nogil:
    """Rows of trash of the blobs that were let go in this transaction, with many ids each."""
    cdef LetGo* each = <LetGo*>t.let_go.data
    cdef size_t left = t.let_go.length // sizeof(LetGo)
    cdef size_t i, n
    while left:
        n = left if left < 400 else 400
        t.scratch.length = 0
        for i in range(n):
            if buffer_add(&t.scratch, &each[i].blob_id, 8) < 0:
                return poison(t, ENOMEM)
        # A message leaves the queue once, so its id tells this row from every other; a blob may be let go by several.
        if trash_put(t, TRASH_LET_GO, each.queue_id, t.scratch.data, n * 8) < 0:
            return POISONED
        each += n
        left -= n
    return DONE
