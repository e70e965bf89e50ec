# Operations on mailboxes: append, deliver, and the mailbox itself. Quota and UIDVALIDITY are decided here, in the transaction.

cdef enum:
    TRASH_BLOBS = 1
    TRASH_MAILBOX = 2
    TRASH_LET_GO = 3  # blobs that lose a reference each
    EXPUNGED_ROWS = 20000  # kept of a mailbox for QRESYNC; older ones go, and floor_modseq rises
    EXPUNGED_SLICE = 200  # rows taken at once when there are too many
    KEYWORDS_BYTES = 8192  # of one message
    ALL_KEYWORDS = 0x80000000  # beside the bits of flags that are kept or lost


cdef int mailbox_get(Txn* t, uint64_t mailbox_id, MailboxRecord* record) noexcept nogil:
    cdef Key k
    cdef MDB_val value
    cdef int rc
    k_id(&k, T_MAILBOX, mailbox_id)
    rc = t_get(t, &k, &value)
    if rc == DONE:
        memcpy(record, value.mv_data, sizeof(record[0]))
    return rc


cdef int note_touch(Txn* t, uint64_t number, uint64_t mark) noexcept nogil:
    """Notes for the observer that a mailbox is at a modseq now, or an account's list of mailboxes at a version."""
    cdef Touch touch
    touch.number = number
    touch.mark = mark
    if t.s.observed and buffer_add(&t.touched, &touch, sizeof(touch)) < 0:
        return poison(t, ENOMEM)
    return DONE


cdef int mailbox_put(Txn* t, uint64_t mailbox_id, MailboxRecord* record) noexcept nogil:
    """Writes the counts of a mailbox whose names did not change, and notes it as touched."""
    cdef Key k
    cdef MDB_val value
    k_id(&k, T_MAILBOX, mailbox_id)
    if t_get(t, &k, &value) != DONE:
        return poison(t, MDB_CORRUPTED)
    t.scratch.length = 0
    if (buffer_add(&t.scratch, record, sizeof(record[0])) < 0
            or buffer_add(&t.scratch, <char*>value.mv_data + sizeof(record[0]), value.mv_size - sizeof(record[0])) < 0):
        return poison(t, ENOMEM)
    if note_touch(t, mailbox_id, record.modseq) < 0:
        return POISONED
    return t_put(t, &k, t.scratch.data, t.scratch.length, OLD_GIVEN, value.mv_data, value.mv_size)


cdef struct Usage:  # an account's record while an operation changes it, once
    UsageRecord now
    UsageRecord before
    size_t before_length  # 0: there was none
    uint64_t account_id


cdef int usage_get(Txn* t, uint64_t account_id, Usage* usage) noexcept nogil:
    """An account's usage; all zero where it has none yet."""
    cdef Key k
    cdef MDB_val value
    cdef int rc
    memset(usage, 0, sizeof(usage[0]))
    usage.account_id = account_id
    k_id(&k, T_USAGE, account_id)
    rc = t_get(t, &k, &value)
    if rc == DONE:
        usage.before_length = value.mv_size
        memcpy(&usage.before, value.mv_data, value.mv_size)
        usage.now = usage.before
    elif rc == REFUSE_MISSING:
        usage.now.settled = t.s.level >= ACCOUNT_LEVEL
        rc = DONE
    return rc


cdef int usage_put(Txn* t, Usage* usage) noexcept nogil:
    """Writes what usage_get has read; nothing may have written it since."""
    cdef Key k
    k_id(&k, T_USAGE, usage.account_id)
    usage.now.format = <uint8_t>format_of(T_USAGE, k.n, t.s.level)
    return t_put(t, &k, &usage.now, usage_size(usage.now.format), OLD_GIVEN if usage.before_length else OLD_ABSENT,
                 &usage.before, usage.before_length)


cdef inline void next_modseq(Txn* t, Usage* usage, MailboxRecord* box) noexcept nogil:
    """The modseq of a change in a mailbox: from ACCOUNT_LEVEL on the account's next one; the caller writes both records."""
    if t.s.level < ACCOUNT_LEVEL:
        box.modseq += 1
        return
    if usage.now.modseq < box.modseq:  # before it is settled, or in an account that has just been made
        usage.now.modseq = box.modseq
    usage.now.modseq += 1
    box.modseq = usage.now.modseq


cdef int change_begin(Txn* t, Usage* usage, MailboxRecord* box) noexcept nogil:
    """A change that charges nothing: reads the usage where the modseq is the account's; change_end writes it."""
    if t.s.level >= ACCOUNT_LEVEL and usage_get(t, box.account_id, usage) < 0:
        return POISONED
    next_modseq(t, usage, box)
    return DONE


cdef inline int change_end(Txn* t, Usage* usage) noexcept nogil:
    return usage_put(t, usage) if t.s.level >= ACCOUNT_LEVEL else DONE




cdef int message_add(Txn* t, uint64_t mailbox_id, MailboxRecord* box, MessageRecord* message, const char* keywords,
                     const char* prefix, const char* structure, size_t structure_length) noexcept nogil:
    """Files a message under the mailbox's next uid and modseq and counts it there; the caller writes the mailbox."""
    cdef Key k
    cdef uint32_t uid = box.uid_next
    cdef int rc
    if uid == 0xFFFFFFFFu or message.keywords_length > KEYWORDS_BYTES:
        return REFUSE_LIMIT
    message.modseq = box.modseq
    message.saved_s = t.now_ms // 1000
    t.scratch.length = 0
    if (buffer_add(&t.scratch, message, sizeof(message[0])) < 0
            or buffer_add(&t.scratch, keywords, message.keywords_length) < 0
            or buffer_add(&t.scratch, prefix, message.prefix_length) < 0):
        return poison(t, ENOMEM)
    k_id_n(&k, T_MESSAGE, mailbox_id, uid)
    rc = t_put(t, &k, t.scratch.data, t.scratch.length, OLD_ABSENT, NULL, 0)
    if rc == DONE and structure_length:
        k_id_n(&k, T_ENVELOPE, mailbox_id, uid)
        rc = t_put(t, &k, structure, structure_length, OLD_ABSENT, NULL, 0)
    if rc == DONE:
        k_change(&k, mailbox_id, 0, box.modseq, uid)
        rc = t_put(t, &k, NULL, 0, OLD_ABSENT, NULL, 0)
    if rc == DONE:
        rc = blob_ref(t, message.blob_id, 1, True)
    box.uid_next += 1
    box.exists += 1
    box.unseen += (message.flags & 1) == 0
    box.deleted += (message.flags & 8) != 0
    box.size += message.size
    return rc


cdef int append_checked(Txn* t, Op* op, const char* parts, bint* refusable) noexcept nogil:
    """APPEND; `refusable` tells whether a refusal came before the first write, so that another way may be taken."""
    cdef MailboxRecord box
    cdef MessageRecord message
    cdef Usage usage
    cdef uint64_t size = 0
    cdef int rc
    refusable[0] = True
    rc = mailbox_get(t, op.a, &box)
    if rc:
        return rc
    rc = blob_size(t, op.b, &size)
    if rc:
        refusable[0] = False  # the blob is the unit's own mistake, not the mailbox's state
        return rc
    size += op.part[0]
    rc = usage_get(t, box.account_id, &usage)
    if rc:
        return rc
    rc = quota_allows(t, box.account_id, op.a, &usage.now, <int64_t>size, 1)
    if rc:
        return rc
    usage.now.bytes += size
    usage.now.messages += 1
    next_modseq(t, &usage, &box)
    rc = usage_put(t, &usage)
    if rc:
        return rc
    refusable[0] = False
    memset(&message, 0, sizeof(message))
    message.format = MESSAGE_FORMAT
    message.tz_minutes = op.tz_minutes
    message.flags = op.flags
    message.keywords_length = op.part[1]
    message.prefix_length = op.part[0]
    message.blob_id = op.b
    message.date_s = op.d
    message.size = size
    rc = message_add(t, op.a, &box, &message, parts + op.part[0], parts, parts + op.part[0] + op.part[1], op.part[2])
    if rc == DONE:
        rc = mailbox_put(t, op.a, &box)
    if rc == DONE:
        rc = result_append(t, &box)
    return rc


cdef int op_append(Txn* t, Op* op, const char* parts) noexcept nogil:
    cdef bint refusable
    return append_checked(t, op, parts, &refusable)


cdef int op_deliver(Txn* t, Op* op, const char* parts) noexcept nogil:
    """APPEND that becomes a queued recipient where the mailbox does not take it, or a word in the result alone."""
    cdef bint refusable
    cdef const char* hop
    cdef const char* reply
    cdef const uint8_t* path
    cdef size_t path_length
    cdef int64_t received_at_ms, size
    cdef int code, rc
    code = append_checked(t, op, parts, &refusable)
    if code == DONE or code < 0 or not refusable:
        return code
    if op.mode:
        t.may_drop_blob = 1  # if nobody else takes it
        return result_word(t, code)
    hop = parts + op.part[0] + op.part[1] + op.part[2]
    rc = row_load(t, op.c)
    if rc == REFUSE_MISSING:
        rc = row_create(t, op.c, op.b, hop + op.part[3] + op.part[4], op.part[5])
    if rc:
        return rc
    if code == REFUSE_QUOTA:
        reply = b"452 4.2.2 Mailbox full"
    else:
        reply = b"550 5.1.1 Mailbox does not exist"
    envelope_fields(t, &path, &path_length, &received_at_ms, &size)
    rc = recipient_add(t, op.c, op.n, ACTIVE, 0, received_at_ms, hop, op.part[3], hop + op.part[3], op.part[4], reply,
                       strlen(reply))
    if rc:
        return rc
    return result_word(t, code)


# --- the mailbox itself ---

cdef void k_mailbox_name(Key* k, uint64_t account_id, const char* name, size_t n) noexcept nogil:
    k_start(k, T_MAILBOX_NAME)
    k_u64(k, account_id)
    k_bytes(k, name, n)


cdef int op_mailbox_new(Txn* t, Op* op, const char* parts) noexcept nogil:
    cdef MailboxRecord box
    cdef Usage usage
    cdef Key k
    cdef MDB_val value
    cdef int rc
    if op.part[0] == 0 or op.part[0] > 440 or op.part[1] > 64:
        return REFUSE_LIMIT
    k_mailbox_name(&k, op.b, parts, op.part[0])
    rc = t_get(t, &k, &value)
    if rc == DONE:
        return REFUSE_EXISTS
    if rc < 0:
        return rc
    if t_put(t, &k, &op.a, 8, OLD_ABSENT, NULL, 0) < 0 or usage_get(t, op.b, &usage) < 0:
        return POISONED
    usage.now.uid_validity = <uint32_t>op.d if <uint32_t>op.d > usage.now.uid_validity else usage.now.uid_validity + 1
    usage.now.list_version += 1
    if t.s.level >= ACCOUNT_LEVEL and usage.now.modseq == 0:
        usage.now.modseq = 1  # as the mailbox begins
    if usage_put(t, &usage) < 0:
        return POISONED
    memset(&box, 0, sizeof(box))
    box.format = FORMAT
    box.name_length = <uint16_t>op.part[0]
    box.special_length = <uint16_t>op.part[1]
    box.uid_validity = usage.now.uid_validity
    box.uid_next = box.recent_uid = 1
    box.modseq = 1
    box.account_id = op.b
    t.scratch.length = 0
    if buffer_add(&t.scratch, &box, sizeof(box)) < 0 or buffer_add(&t.scratch, parts, op.part[0] + op.part[1]) < 0:
        return poison(t, ENOMEM)
    k_id(&k, T_MAILBOX, op.a)
    rc = t_get(t, &k, &value)
    if rc == DONE:
        return REFUSE_EXISTS
    if rc < 0:
        return rc
    if note_touch(t, op.a, box.modseq) < 0 or note_touch(t, op.b, usage.now.list_version) < 0:
        return POISONED
    return t_put(t, &k, t.scratch.data, t.scratch.length, OLD_ABSENT, NULL, 0)


cdef int list_changed(Txn* t, uint64_t account_id) noexcept nogil:
    cdef Usage usage
    if usage_get(t, account_id, &usage) < 0:
        return POISONED
    return list_changed_in(t, &usage)


cdef int list_changed_in(Txn* t, Usage* usage) noexcept nogil:
    usage.now.list_version += 1
    if note_touch(t, usage.account_id, usage.now.list_version) < 0:
        return POISONED
    return usage_put(t, usage)


cdef int op_list_changed(Txn* t, Op* op, const char* parts) noexcept nogil:
    """What an account may list has changed otherwise than by making, renaming or removing; of one that is gone, nothing."""
    cdef Key k
    cdef MDB_val value
    cdef int rc
    k_id(&k, T_USAGE, op.a)
    rc = t_get(t, &k, &value)
    if rc == REFUSE_MISSING:
        return DONE
    return rc if rc < 0 else list_changed(t, op.a)


cdef int op_mailbox_gone(Txn* t, Op* op, const char* parts) noexcept nogil:
    """The mailbox goes at once, with what it used of the quota; its messages go through the trash."""
    cdef MailboxRecord box
    cdef Usage usage
    cdef uint64_t modseq
    cdef Key k, name_key
    cdef MDB_val value
    cdef int rc
    k_id(&k, T_MAILBOX, op.a)
    rc = t_get(t, &k, &value)
    if rc:
        return rc
    memcpy(&box, value.mv_data, sizeof(box))
    k_mailbox_name(&name_key, box.account_id, <char*>value.mv_data + sizeof(box), box.name_length)
    if t_del(t, &name_key) < 0 or t_del(t, &k) < 0:
        return POISONED
    if usage_get(t, box.account_id, &usage) < 0:
        return POISONED
    usage.now.bytes -= box.size
    usage.now.messages -= box.exists
    if t.s.level >= ACCOUNT_LEVEL and box.uid_next > 1:  # it had messages, whose rows go with it
        modseq = box.modseq
        next_modseq(t, &usage, &box)
        usage.now.floor_modseq = box.modseq
        box.modseq = modseq
    if list_changed_in(t, &usage) < 0:
        return POISONED
    if note_touch(t, op.a, box.modseq + 1) < 0:
        return POISONED
    return trash_put(t, TRASH_MAILBOX, op.a, NULL, 0)


cdef int op_mailbox_rename(Txn* t, Op* op, const char* parts) noexcept nogil:
    cdef MailboxRecord box
    cdef Key k, old_key, new_key
    cdef MDB_val value, found
    cdef int rc
    if op.part[1] == 0 or op.part[1] > 440:
        return REFUSE_LIMIT
    k_id(&k, T_MAILBOX, op.a)
    rc = t_get(t, &k, &value)
    if rc:
        return rc
    memcpy(&box, value.mv_data, sizeof(box))
    if box.name_length != op.part[0] or memcmp(<char*>value.mv_data + sizeof(box), parts, op.part[0]) != 0:
        return REFUSE_CHANGED
    k_mailbox_name(&old_key, box.account_id, parts, op.part[0])
    k_mailbox_name(&new_key, box.account_id, parts + op.part[0], op.part[1])
    rc = t_get(t, &new_key, &found)
    if rc == DONE:
        return REFUSE_EXISTS
    if rc < 0:
        return rc
    t.scratch.length = 0
    box.name_length = <uint16_t>op.part[1]
    if (buffer_add(&t.scratch, &box, sizeof(box)) < 0
            or buffer_add(&t.scratch, parts + op.part[0], op.part[1]) < 0
            or buffer_add(&t.scratch, <char*>value.mv_data + sizeof(box) + op.part[0], box.special_length) < 0):
        return poison(t, ENOMEM)
    if (t_put(t, &k, t.scratch.data, t.scratch.length, OLD_UNKNOWN, NULL, 0) < 0
            or t_del(t, &old_key) < 0
            or t_put(t, &new_key, &op.a, 8, OLD_ABSENT, NULL, 0) < 0):
        return POISONED
    return list_changed(t, box.account_id)


cdef int op_list_version(Txn* t, Op* op, const char* parts) noexcept nogil:
    cdef Usage usage
    cdef int rc = usage_get(t, op.a, &usage)
    if rc == DONE and usage.now.list_version != op.flags:
        return REFUSE_CHANGED
    return rc


cdef int op_quota(Txn* t, Op* op, const char* parts) noexcept nogil:
    cdef Usage usage
    if usage_get(t, op.a, &usage) < 0:
        return POISONED
    usage.now.quota = op.b
    usage.now.quota_messages = <uint32_t>op.c
    return usage_put(t, &usage)
