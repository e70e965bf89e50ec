# Operations on plain records, counters and blobs; the results of operations; and the one switch over all of them.

# --- results: a letter, then fields; decoded by Unit.results ---

cdef int result_add(Txn* t, const void* data, size_t n) noexcept nogil:
    if buffer_add(&t.unit.results, data, n) < 0:
        return poison(t, ENOMEM)
    return DONE


cdef int result_tagged(Txn* t, char letter, const void* data, size_t n) noexcept nogil:
    if result_add(t, &letter, 1) < 0:
        return POISONED
    return result_add(t, data, n)


cdef int result_append(Txn* t, MailboxRecord* box) noexcept nogil:
    cdef uint32_t pair[2]
    pair[0] = box.uid_validity
    pair[1] = box.uid_next - 1
    if result_tagged(t, c'A', pair, 8) < 0:
        return POISONED
    return result_add(t, &box.modseq, 8)


cdef int result_word(Txn* t, int code) noexcept nogil:
    cdef uint8_t byte = <uint8_t>code
    return result_tagged(t, c'W', &byte, 1)


cdef int result_moved(Txn* t, uint32_t count) noexcept nogil:
    """Room for an octet each of so many recipients, 0 as yet, which begin at t.mark."""
    cdef char nothing = 0
    if result_tagged(t, c'M', &count, 4) < 0:
        return POISONED
    t.mark = t.unit.results.length
    while count:
        if result_add(t, &nothing, 1) < 0:
            return POISONED
        count -= 1
    return DONE


cdef int result_recent(Txn* t, uint32_t first, uint32_t end) noexcept nogil:
    cdef uint32_t uids[2]
    uids[0] = first
    uids[1] = end
    return result_tagged(t, c'R', uids, 8)


# Lists grow behind a count that is filled in as they do; `mark` is where the open one begins.

cdef int result_flags_begin(Txn* t) noexcept nogil:
    cdef uint64_t nothing[2]
    nothing[0] = nothing[1] = 0
    t.mark = t.unit.results.length + 1
    return result_tagged(t, c'F', nothing, 12)


cdef int result_flags_end(Txn* t, uint64_t modseq) noexcept nogil:
    cdef uint32_t count = <uint32_t>((t.unit.results.length - t.mark - 12) // 4)
    memcpy(t.unit.results.data + t.mark, &modseq, 8)
    memcpy(t.unit.results.data + t.mark + 8, &count, 4)
    return DONE


cdef int result_expunge_begin(Txn* t) noexcept nogil:
    cdef uint32_t nothing = 0
    t.mark = t.unit.results.length + 1
    return result_tagged(t, c'E', &nothing, 4)


cdef int result_expunge_end(Txn* t) noexcept nogil:
    cdef uint32_t count = <uint32_t>((t.unit.results.length - t.mark - 4) // 4)
    memcpy(t.unit.results.data + t.mark, &count, 4)
    return DONE


cdef int result_uid(Txn* t, uint32_t uid) noexcept nogil:
    return result_add(t, &uid, 4)


cdef int result_copy_begin(Txn* t, uint32_t uid_validity) noexcept nogil:
    cdef uint32_t lead[2]
    lead[0] = uid_validity
    lead[1] = 0
    t.mark = t.unit.results.length + 1
    return result_tagged(t, c'Y', lead, 8)


cdef int result_pair(Txn* t, uint32_t source, uint32_t target) noexcept nogil:
    cdef uint32_t pair[2]
    cdef uint32_t count
    pair[0] = source
    pair[1] = target
    memcpy(&count, t.unit.results.data + t.mark + 4, 4)
    count += 1
    memcpy(t.unit.results.data + t.mark + 4, &count, 4)
    return result_add(t, pair, 8)


# --- records and counters ---

cdef void k_given(Key* k, int table, const char* data, size_t n) noexcept nogil:
    k_start(k, table)
    memcpy(k.b + 1, data, n)  # the builder has refused keys longer than KEY_MAX - 1
    k.n = n + 1


cdef int op_put(Txn* t, Op* op, const char* parts) noexcept nogil:
    cdef Key k
    cdef MDB_val value
    cdef int rc
    k_given(&k, op.table, parts, op.part[0])
    t.s.level_stale |= op.table == T_META
    if op.code == OP_PUT_NEW:
        rc = t_get(t, &k, &value)
        if rc == DONE:
            return REFUSE_EXISTS
        if rc < 0:
            return rc
        return t_put(t, &k, parts + op.part[0], op.part[1], OLD_ABSENT, NULL, 0)
    return t_put(t, &k, parts + op.part[0], op.part[1], OLD_UNKNOWN, NULL, 0)


cdef int op_delete(Txn* t, Op* op, const char* parts) noexcept nogil:
    """Deleting what is not there is no failure: a GUARD before it says when it must be."""
    cdef Key k
    k_given(&k, op.table, parts, op.part[0])
    return POISONED if t_del(t, &k) < 0 else DONE


cdef int op_guard(Txn* t, Op* op, const char* parts) noexcept nogil:
    cdef Key k
    cdef MDB_val value
    cdef int rc
    k_given(&k, op.table, parts, op.part[0])
    rc = t_get(t, &k, &value)
    if rc < 0:
        return rc
    if op.mode:  # must be absent
        return DONE if rc == REFUSE_MISSING else REFUSE_CHANGED
    if rc != DONE or value.mv_size != op.part[1] or memcmp(value.mv_data, parts + op.part[0], value.mv_size) != 0:
        return REFUSE_CHANGED
    return DONE


cdef int op_count(Txn* t, Op* op, const char* parts) noexcept nogil:
    cdef Key k
    cdef MDB_val value
    cdef int64_t number = 0
    cdef int rc
    k_given(&k, T_COUNTER, parts, op.part[0])
    rc = t_get(t, &k, &value)
    if rc < 0:
        return rc
    if rc == DONE and value.mv_size == 8:
        memcpy(&number, value.mv_data, 8)
    number += op.d
    if op.e >= 0 and op.d > 0 and number > op.e:
        return REFUSE_QUOTA
    if t_put(t, &k, &number, 8, OLD_UNKNOWN, NULL, 0) < 0:
        return POISONED
    return result_tagged(t, c'C', &number, 8)


# --- blobs ---

cdef int chunks_put(Txn* t, uint64_t blob_id, PendingRecord* blob, const char* data, size_t n) noexcept nogil:
    """Writes bytes as the next chunks of `blob`; the digest chains, each chunk's seeded by the one before."""
    cdef Key k
    cdef size_t length
    while n:
        length = CHUNK if n > CHUNK else n
        blob.digest = xxh64(data, length, blob.digest)
        k_id_n(&k, T_BLOB, blob_id, blob.chunks)
        if t_put(t, &k, data, length, OLD_ABSENT, NULL, 0) < 0:
            return POISONED
        blob.chunks += 1
        blob.size += length
        data += length
        n -= length
    return DONE


cdef int pending_get(Txn* t, Body* body, Key* k, PendingRecord* pending) noexcept nogil:
    """The record of chunks that came before; it must say exactly what the body at hand continues."""
    cdef MDB_val value
    cdef int rc
    k_id(k, T_PENDING, body.blob_id)
    rc = t_get(t, k, &value)
    if rc < 0:
        return rc
    if rc == REFUSE_MISSING:
        if body.first_chunk:
            return FAIL_IO
        memset(pending, 0, sizeof(pending[0]))
        pending.format = FORMAT
        pending.incarnation = body.incarnation
        return DONE
    if value.mv_size != sizeof(pending[0]):
        return poison_at(t, FM_DISORDER, k)
    memcpy(pending, value.mv_data, sizeof(pending[0]))
    return DONE if pending.chunks == body.first_chunk else FAIL_IO


cdef int op_chunks(Txn* t, Op* op, const char* parts) noexcept nogil:
    cdef Body* body = unit_body(t.unit, op)
    cdef PendingRecord pending
    cdef Key k
    cdef int rc
    if not may_grow(t, op.b):
        return FAIL_FULL
    rc = pending_get(t, body, &k, &pending)
    if rc:
        return rc
    if chunks_put(t, body.blob_id, &pending, body.bytes.data, op.b) < 0:
        return POISONED
    return t_put(t, &k, &pending, sizeof(pending), OLD_UNKNOWN, NULL, 0)


cdef size_t tail_of(size_t n, size_t front) noexcept nogil:
    """How many of a blob's last n bytes go into its record, so that they take no page of their own; `front` of it is taken."""
    cdef size_t last = n % CHUNK
    return last if last <= TAIL_MAX and sizeof(BlobMeta) + front + last <= RECORD_MAX else 0


cdef int op_blob(Txn* t, Op* op, const char* parts) noexcept nogil:
    cdef Body* body = unit_body(t.unit, op)
    cdef size_t tail = tail_of(body.bytes.length, body.front.length)
    cdef size_t n = body.bytes.length - tail
    cdef PendingRecord pending
    cdef Key k
    cdef int rc
    if not may_grow(t, body.bytes.length + body.front.length):
        return FAIL_FULL
    rc = blob_flush(t)
    if rc:
        return rc
    memset(&pending, 0, sizeof(pending))
    if body.first_chunk:
        rc = pending_get(t, body, &k, &pending)
        if rc == DONE:
            rc = t_del(t, &k)
        if rc:
            return rc
    if chunks_put(t, body.blob_id, &pending, body.bytes.data, n) < 0:
        return POISONED
    memset(&t.blob, 0, sizeof(t.blob))
    t.blob.format = BLOB_FORMAT
    t.blob.bits = body.bits
    t.blob.chunks = pending.chunks
    t.blob.stored_size = pending.size + tail
    t.blob.size = t.blob.stored_size + body.head_length - body.cut_length
    t.blob.cuts = body.cuts
    t.blob.head_length = body.head_length
    t.blob.tail_length = <uint16_t>tail
    if body.front.length == 0:
        t.blob_rest = body.bytes.data + n
    else:
        if buffer_add(&body.front, body.bytes.data + n, tail) < 0:
            return poison(t, ENOMEM)
        body.front.length -= tail  # the batch may be run again
        t.blob_rest = body.front.data
        tail += body.front.length
    t.blob.digest = xxh64(t.blob_rest, tail, pending.digest) if tail else pending.digest
    t.blob_id = body.blob_id
    t.has_blob = 1
    return DONE


cdef int op_abandon(Txn* t, Op* op, const char* parts) noexcept nogil:
    """Chunks that will never be a message go to the trash, due at once: nobody can be reading them."""
    cdef Key k
    cdef uint64_t blob_id = op.a
    cdef int rc
    k_id(&k, T_PENDING, op.a)
    rc = t_del(t, &k)
    if rc != DONE:
        return rc if rc < 0 else DONE
    t.s.trash_due_ms = 0  # early where the transaction is taken back, which costs one look
    return trash_put_at(t, t.now_ms, TRASH_BLOBS, blob_id, &blob_id, 8)


cdef int apply_op(Txn* t, Op* op) noexcept nogil:
    cdef const char* parts = <const char*>op + sizeof(Op)
    cdef int code = op.code
    if code == OP_BLOB:
        return op_blob(t, op, parts)
    if code == OP_ENQUEUE:
        return op_enqueue(t, op, parts)
    if code == OP_RECIPIENT:
        return op_recipient(t, op, parts)
    if code == OP_MOVE:
        return op_move(t, op, parts)
    if code == OP_DELIVER:
        return op_deliver(t, op, parts)
    if code == OP_APPEND:
        return op_append(t, op, parts)
    if code == OP_FLAGS:
        return op_flags(t, op, parts)
    if code == OP_EXPUNGE:
        return op_expunge(t, op, parts)
    if code == OP_COPY:
        return op_copy(t, op, parts)
    if code == OP_TAKE_RECENT:
        return op_take_recent(t, op, parts)
    if code == OP_CHUNKS:
        return op_chunks(t, op, parts)
    if code == OP_ABANDON:
        return op_abandon(t, op, parts)
    if code == OP_PUT_NEW or code == OP_PUT:
        return op_put(t, op, parts)
    if code == OP_DELETE:
        return op_delete(t, op, parts)
    if code == OP_GUARD:
        return op_guard(t, op, parts)
    if code == OP_COUNT:
        return op_count(t, op, parts)
    if code == OP_REF:
        return blob_ref(t, op.a, <int>op.d, True)
    if code == OP_MAILBOX_NEW:
        return op_mailbox_new(t, op, parts)
    if code == OP_MAILBOX_GONE:
        return op_mailbox_gone(t, op, parts)
    if code == OP_MAILBOX_RENAME:
        return op_mailbox_rename(t, op, parts)
    if code == OP_LIST_VERSION:
        return op_list_version(t, op, parts)
    if code == OP_LIST_CHANGED:
        return op_list_changed(t, op, parts)
    if code == OP_QUOTA:
        return op_quota(t, op, parts)
    if code == OP_REROUTE:
        return op_reroute(t, op, parts)
    if code == OP_INDEX:
        return op_index(t, op, parts)
    if code == OP_MOVE_EACH:
        return op_move_each(t, op, parts)
    if code == OP_UIDL:
        return op_uidl(t, op, parts)
    if code == OP_RELEASE:
        return op_release(t, op, parts)
    return FAIL_IO
