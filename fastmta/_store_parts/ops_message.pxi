# Operations on messages of a mailbox: FLAGS, EXPUNGE, COPY, MOVE, and who sees them as \Recent first.

cdef inline uint32_t uid_at(const char* uids, size_t i) noexcept nogil:
    cdef uint32_t uid
    memcpy(&uid, uids + i * 4, 4)
    return uid


cdef int message_get(Txn* t, uint64_t mailbox_id, uint32_t uid, MessageRecord* message, MDB_val* value) noexcept nogil:
    cdef Key k
    cdef int rc
    k_id_n(&k, T_MESSAGE, mailbox_id, uid)
    rc = t_get(t, &k, value)
    if rc == DONE:
        memcpy(message, value.mv_data, sizeof(message[0]))
    return rc


# --- keywords: sorted, space-joined, compared without case ---

cdef inline int lower(int character) noexcept nogil:
    return character + 32 if c'A' <= character <= c'Z' else character


cdef size_t word_length(const char* p, const char* end) noexcept nogil:
    cdef const char* start = p
    while p < end and p[0] != c' ':
        p += 1
    return p - start


cdef int word_compare(const char* a, size_t a_length, const char* b, size_t b_length) noexcept nogil:
    cdef size_t i
    cdef int difference
    for i in range(a_length if a_length < b_length else b_length):
        difference = lower(a[i]) - lower(b[i])
        if difference:
            return difference
    return <int>a_length - <int>b_length


cdef int word_add(Buffer* out, const char* word, size_t n) noexcept nogil:
    if out.length and buffer_add(out, b" ", 1) < 0:
        return -1
    return buffer_add(out, word, n)


cdef int keywords_merge(Buffer* out, const char* a, size_t a_length, const char* b, size_t b_length, int mode) noexcept nogil:
    """The union (mode 1) or difference (2) of two sorted keyword lists; -1 without memory."""
    cdef const char* a_end = a + a_length
    cdef const char* b_end = b + b_length
    cdef size_t n, m
    cdef int order
    out.length = 0
    while a < a_end or b < b_end:
        n = word_length(a, a_end)
        m = word_length(b, b_end)
        order = -1 if b >= b_end else 1 if a >= a_end else word_compare(a, n, b, m)
        if order < 0 or (order == 0 and mode == 1):
            if n and word_add(out, a, n) < 0:
                return -1
        elif order > 0 and mode == 1:
            if m and word_add(out, b, m) < 0:
                return -1
        if order <= 0:
            a += n + 1
        if order >= 0:
            b += m + 1
    return 0


cdef int op_flags(Txn* t, Op* op, const char* parts) noexcept nogil:
    cdef MailboxRecord box
    cdef MessageRecord message
    cdef MDB_val value
    cdef Key k, before
    cdef const char* keywords
    cdef const char* prefix
    cdef const char* given = parts + op.part[0]
    cdef size_t i, length
    cdef uint32_t uid, flags
    cdef int changed = 0
    cdef Usage usage
    cdef int rc = mailbox_get(t, op.a, &box)
    if rc:
        return rc
    if op.part[1] > KEYWORDS_BYTES:
        return REFUSE_LIMIT
    if result_flags_begin(t) < 0:
        return POISONED
    for i in range(<size_t>op.part[0] // 4):
        uid = uid_at(parts, i)
        rc = message_get(t, op.a, uid, &message, &value)
        if rc == REFUSE_MISSING:
            continue
        if rc:
            return rc
        if op.d >= 0 and message.modseq > <uint64_t>op.d:
            if result_uid(t, uid) < 0:
                return POISONED
            continue
        keywords = <char*>value.mv_data + sizeof(message)
        prefix = keywords + message.keywords_length
        flags = op.flags if op.mode == 0 else message.flags | op.flags if op.mode == 1 else message.flags & ~op.flags
        flags = (flags & ~<uint32_t>op.c) | (message.flags & <uint32_t>op.c)
        if op.c & ALL_KEYWORDS:
            t.scratch2.length = 0
            rc = buffer_add(&t.scratch2, keywords, message.keywords_length)
        elif op.mode == 0:
            t.scratch2.length = 0
            rc = buffer_add(&t.scratch2, given, op.part[1])
        else:
            rc = keywords_merge(&t.scratch2, keywords, message.keywords_length, given, op.part[1], op.mode)
        if rc < 0:
            return poison(t, ENOMEM)
        length = t.scratch2.length
        if flags == message.flags and length == message.keywords_length and (
                length == 0 or memcmp(t.scratch2.data, keywords, length) == 0):
            continue
        if length > KEYWORDS_BYTES:
            return REFUSE_LIMIT
        if not changed:
            changed = 1
            if change_begin(t, &usage, &box) < 0:
                return POISONED
        box.unseen += ((message.flags & 1) != 0) - ((flags & 1) != 0)
        box.deleted += ((flags & 8) != 0) - ((message.flags & 8) != 0)
        if buffer_add(&t.scratch2, prefix, message.prefix_length) < 0:
            return poison(t, ENOMEM)
        k_change(&before, op.a, 0, message.modseq, uid)
        message.modseq = box.modseq
        message.flags = flags
        message.keywords_length = <uint32_t>length
        t.scratch.length = 0
        if (buffer_add(&t.scratch, &message, sizeof(message)) < 0
                or buffer_add(&t.scratch, t.scratch2.data, t.scratch2.length) < 0):
            return poison(t, ENOMEM)
        k_id_n(&k, T_MESSAGE, op.a, uid)
        if t_put(t, &k, t.scratch.data, t.scratch.length, OLD_GIVEN, value.mv_data, value.mv_size) < 0:
            return POISONED
        if t_del_row(t, &before) < 0:
            return POISONED
        k_change(&k, op.a, 0, box.modseq, uid)
        if t_put(t, &k, NULL, 0, OLD_ABSENT, NULL, 0) < 0:
            return POISONED
    if changed and (mailbox_put(t, op.a, &box) < 0 or change_end(t, &usage) < 0):
        return POISONED
    return result_flags_end(t, box.modseq if changed else 0)  # 0: nothing changed, nobody need be told


cdef uint64_t prefix_digest_of(const MessageRecord* message, const MDB_val* value) noexcept nogil:
    """What of a message's id (FETCH EMAILID) comes from its prefix."""
    if message.prefix_length == 0:
        return 0
    return xxh64(<char*>value.mv_data + sizeof(message[0]) + message.keywords_length, message.prefix_length, 0)


cdef int message_remove(Txn* t, uint64_t mailbox_id, MailboxRecord* box, uint32_t uid, MessageRecord* message,
                        uint64_t prefix_digest, bint retained=False) noexcept nogil:
    """Takes a message out at the mailbox's present modseq; the caller writes mailbox and usage. Where it is `retained`,
    that row has its reference to the bytes now."""
    cdef uint64_t[2] email_id
    cdef Key k
    k_id_n(&k, T_MESSAGE, mailbox_id, uid)
    if t_del(t, &k) < 0:
        return POISONED
    k_id_n(&k, T_ENVELOPE, mailbox_id, uid)
    if t_del(t, &k) < 0:
        return POISONED
    if box.has_uidls:
        k_id_n(&k, T_UIDL, mailbox_id, uid)
        if t_del(t, &k) < 0:
            return POISONED
    k_change(&k, mailbox_id, 0, message.modseq, uid)
    if t_del_row(t, &k) < 0:
        return POISONED
    email_id[0] = message.blob_id
    email_id[1] = prefix_digest
    k_change(&k, mailbox_id, 1, box.modseq, uid)
    if t_put(t, &k, email_id, sizeof(email_id) if t.s.level >= ACCOUNT_LEVEL else 0, OLD_ABSENT, NULL, 0) < 0:
        return POISONED
    box.exists -= 1
    box.unseen -= (message.flags & 1) == 0
    box.deleted -= (message.flags & 8) != 0
    box.size -= message.size
    box.expunged_rows += 1
    return DONE if retained else blob_ref(t, message.blob_id, -1, True)


cdef int forget_expunged(Txn* t, uint64_t mailbox_id, MailboxRecord* box) noexcept nogil:
    """Keeps a mailbox's rows of expunged messages to their bound."""
    cdef Key k
    cdef MDB_val key, value
    cdef uint64_t modseq
    cdef int rc
    if box.expunged_rows <= EXPUNGED_ROWS:
        return DONE
    while box.expunged_rows > EXPUNGED_ROWS - EXPUNGED_SLICE:
        k_change(&k, mailbox_id, 1, 0, 0)
        rc = t_first(t, &k, 10, &key, &value)
        if rc < 0:
            return rc
        if rc:
            box.expunged_rows = 0
            break
        modseq = be64(<uint8_t*>key.mv_data + 10)
        memcpy(k.b, key.mv_data, key.mv_size)
        k.n = key.mv_size
        if t_del(t, &k) < 0:
            return POISONED
        box.expunged_rows -= 1
        box.floor_modseq = modseq
    return DONE


cdef int gather_uids(Txn* t, uint64_t mailbox_id, bint only_deleted, Buffer* out) noexcept nogil:
    """The uids of a mailbox, or only of its messages marked \\Deleted."""
    cdef void* cursor
    cdef MDB_val key, value
    cdef Key k
    cdef uint32_t uid
    cdef int rc
    out.length = 0
    k_id(&k, T_MESSAGE, mailbox_id)
    rc = fm_cursor_open(<void*>t.s.calls.cursor_open, t.txn, t.s.dbi[DB_MAIL], &cursor)
    if rc:
        return poison_at(t, rc, &k)
    key.mv_size = k.n
    key.mv_data = k.b
    rc = fm_cursor_own(<void*>t.s.calls.cursor_get, cursor, &key, &value, MDB_SET_RANGE)
    while rc == 0 and key.mv_size == 13 and memcmp(key.mv_data, k.b, 9) == 0:
        if not record_fits(t.s.knows, T_MESSAGE, 13, value.mv_data, value.mv_size):
            rc = unfit(t.s.knows, T_MESSAGE, 13, value.mv_data, value.mv_size)
            break
        if not only_deleted or (<MessageRecord*>value.mv_data).flags & 8:
            uid = be32(<uint8_t*>key.mv_data + 9)
            if buffer_add(out, &uid, 4) < 0:
                t.s.calls.cursor_close(cursor)
                return poison(t, ENOMEM)
        rc = fm_cursor_own(<void*>t.s.calls.cursor_get, cursor, &key, &value, MDB_NEXT)
    t.s.calls.cursor_close(cursor)
    if rc and rc != MDB_NOTFOUND:
        return poison_at(t, rc, &k)
    return DONE


cdef int op_expunge(Txn* t, Op* op, const char* parts) noexcept nogil:
    cdef MailboxRecord box
    cdef MessageRecord message
    cdef MDB_val value
    cdef Retaining retaining
    cdef bint retains = op.b != 0 and t.s.level >= BESIDE_LEVEL
    cdef const char* uids = parts
    cdef size_t i, count = op.part[0] // 4
    cdef Usage usage
    cdef uint64_t size = 0
    cdef uint64_t prefix_digest
    cdef int64_t gone = 0
    cdef int kept
    cdef int rc = mailbox_get(t, op.a, &box)
    if rc:
        return rc
    if result_expunge_begin(t) < 0:
        return POISONED
    if op.mode & 2:  # all uids
        count = 0
        if box.deleted or not op.mode & 1:
            if gather_uids(t, op.a, op.mode & 1, &t.scratch2) < 0:
                return POISONED
            uids = t.scratch2.data
            count = t.scratch2.length // 4
    for i in range(count):
        rc = message_get(t, op.a, uid_at(uids, i), &message, &value)
        if rc == REFUSE_MISSING and op.mode & 4:
            return REFUSE_CHANGED
        if rc == REFUSE_MISSING or (rc == DONE and op.mode & 1 and not message.flags & 8):
            continue
        if rc:
            return rc
        if not gone:
            if usage_get(t, box.account_id, &usage) < 0:
                return POISONED
            next_modseq(t, &usage, &box)
            if retains and retaining_begin(t, &retaining, op, box.account_id) < 0:
                return POISONED
        gone += 1
        size += message.size
        prefix_digest = prefix_digest_of(&message, &value)
        kept = 0
        if retains:
            kept = room_for(t, &retaining, message.size)
            if kept < 0:
                return kept
            if kept and (message_get(t, op.a, uid_at(uids, i), &message, &value) != DONE
                         or retain(t, &retaining, uid_at(uids, i), &value) < 0):
                return POISONED
        rc = message_remove(t, op.a, &box, uid_at(uids, i), &message, prefix_digest, kept != 0)
        if rc:
            return rc
        if result_uid(t, uid_at(uids, i)) < 0:
            return POISONED
    if gone:
        usage.now.bytes -= size
        usage.now.messages -= gone
        if (forget_expunged(t, op.a, &box) < 0 or mailbox_put(t, op.a, &box) < 0 or usage_put(t, &usage) < 0
                or (retains and totals_put(t, retaining.account_id, &retaining.totals) < 0)):
            return POISONED
    return result_expunge_end(t)


cdef int copy_one(Txn* t, Op* op, MailboxRecord* target, uint32_t uid, MessageRecord* message, MDB_val* value) noexcept nogil:
    """Files a copy of one message in the target; its parts and structure are read before anything is written."""
    cdef MDB_val structure
    cdef Key k
    cdef size_t parts_length = message.keywords_length + message.prefix_length
    cdef size_t structure_length = 0
    cdef const char* prefix
    cdef int rc
    t.scratch2.length = 0
    if buffer_add(&t.scratch2, <char*>value.mv_data + sizeof(message[0]), parts_length) < 0:
        return poison(t, ENOMEM)
    k_id_n(&k, T_ENVELOPE, op.a, uid)
    rc = t_get(t, &k, &structure)
    if rc < 0:
        return rc
    if rc == DONE:
        structure_length = structure.mv_size
        if buffer_add(&t.scratch2, structure.mv_data, structure_length) < 0:
            return poison(t, ENOMEM)
    prefix = t.scratch2.data + message.keywords_length
    if op.c & ALL_KEYWORDS:
        message.keywords_length = 0
    return message_add(t, op.b, target, message, t.scratch2.data, prefix, t.scratch2.data + parts_length,
                       structure_length)


cdef int op_copy(Txn* t, Op* op, const char* parts) noexcept nogil:
    """COPY, or MOVE (mode 1): each copy with the flags and date of its original, all of them or none."""
    cdef MailboxRecord boxes[2]
    cdef MailboxRecord* source = &boxes[0]
    cdef MailboxRecord* target = &boxes[1]
    cdef MessageRecord message, copied
    cdef MDB_val value
    cdef size_t i
    cdef Usage usages[2]
    cdef Usage* used = &usages[0]
    cdef Usage* given_back = &usages[1]  # by the source's account, where that is another one
    cdef uint64_t size = 0
    cdef uint64_t prefix_digest
    cdef uint32_t uid, first_new
    cdef int64_t count = 0
    cdef bint same_account
    cdef int rc
    if not op.mode and not may_grow(t, <int64_t>op.part[0] // 4 * COPY_WEIGHT):
        return FAIL_FULL
    rc = mailbox_get(t, op.a, source)
    if rc:
        return rc
    rc = mailbox_get(t, op.b, target)
    if rc:
        return rc
    if op.a == op.b:
        target = source
    same_account = source.account_id == target.account_id
    first_new = source.uid_next  # in a copy onto itself, what it makes is not copied again
    for i in range(<size_t>op.part[0] // 4):
        rc = message_get(t, op.a, uid_at(parts, i), &message, &value)
        if rc < 0:
            return rc
        if rc == DONE:
            size += message.size
            count += 1
    if count:
        if usage_get(t, target.account_id, used) < 0:
            return POISONED
        if not (op.mode and same_account):
            rc = quota_allows(t, target.account_id, op.b, &used.now, <int64_t>size, count)
            if rc:
                return rc
        if not same_account and usage_get(t, source.account_id, given_back) < 0:
            return POISONED
    size = 0  # what really goes, from here on: a uid may stand in the list twice
    if result_copy_begin(t, target.uid_validity) < 0:
        return POISONED
    if count:
        next_modseq(t, used, target)
        if op.mode and source != target:
            next_modseq(t, used if same_account else given_back, source)
    count = 0
    for i in range(<size_t>op.part[0] // 4):
        uid = uid_at(parts, i)
        if uid >= first_new:
            continue
        rc = message_get(t, op.a, uid, &message, &value)
        if rc == REFUSE_MISSING:
            continue
        if rc:
            return rc
        prefix_digest = prefix_digest_of(&message, &value) if op.mode else 0
        copied = message
        copied.flags &= ~<uint32_t>op.c
        if result_pair(t, uid, target.uid_next) < 0:
            return POISONED
        rc = copy_one(t, op, target, uid, &copied, &value)
        if rc == DONE and op.mode:
            rc = message_remove(t, op.a, source, uid, &message, prefix_digest)
        if rc:
            return rc
        size += copied.size
        count += 1
    if count == 0:
        return DONE
    if mailbox_put(t, op.b, target) < 0:
        return POISONED
    if not (op.mode and same_account):
        used.now.bytes += size
        used.now.messages += count
    if usage_put(t, used) < 0:
        return POISONED
    if op.mode:
        if source != target and (forget_expunged(t, op.a, source) < 0 or mailbox_put(t, op.a, source) < 0):
            return POISONED
        if not same_account:
            given_back.now.bytes -= size
            given_back.now.messages -= count
            if usage_put(t, given_back) < 0:
                return POISONED
    return DONE


cdef int op_uidl(Txn* t, Op* op, const char* parts) noexcept nogil:
    """Names the last message of a mailbox for POP3."""
    cdef MailboxRecord box
    cdef Key k
    cdef int rc = mailbox_get(t, op.a, &box)
    if rc or t.s.level < BESIDE_LEVEL:
        return rc
    if box.uid_next == 1:
        return REFUSE_MISSING
    k_id_n(&k, T_UIDL, op.a, box.uid_next - 1)
    rc = t_put(t, &k, parts, op.part[0], OLD_UNKNOWN, NULL, 0)
    if rc or box.has_uidls:
        return rc
    box.has_uidls = 1
    return mailbox_put(t, op.a, &box)


cdef int op_take_recent(Txn* t, Op* op, const char* parts) noexcept nogil:
    cdef MailboxRecord box
    cdef uint32_t first
    cdef int rc = mailbox_get(t, op.a, &box)
    if rc:
        return rc
    first = box.recent_uid
    if first != box.uid_next:
        box.recent_uid = box.uid_next
        if mailbox_put(t, op.a, &box) < 0:
            return POISONED
    return result_recent(t, first, box.uid_next)
