# Read loops over mailboxes: what SELECT, FETCH, SEARCH and POP3 need of every message, without a Python object for each.

cdef enum:
    LEAVES_AHEAD = 64  # a walk over a mailbox has so many read at once where they are not in memory


cdef struct Walk:  # a cursor over one mailbox's rows in a table keyed by uid
    void* cursor
    Key key
    MDB_val found
    MDB_val value
    uint32_t uid
    void* reading  # the Reading, which outlives the walk
    int state  # 0 not placed, 1 on `uid`, 2 past the last
    const char* leaf  # the page with this row, once it was looked at: its other rows are taken from it, without the cursor
    unsigned int index  # of the row on it
    bint ahead  # of the cursor, which is still where the leaf was found


cdef int walk_start(Walk* walk, Reading reading, int table, uint64_t mailbox_id) except -1:
    walk.reading = <void*>reading
    walk.cursor = reading.cursor(table)
    walk.state = 0
    walk.leaf = NULL
    k_id_n(&walk.key, table, mailbox_id, 0)
    return 0


cdef inline bint walk_place(Walk* walk, bint found) noexcept:
    walk.leaf = NULL
    walk.ahead = False
    if found:
        walk.uid = be32(<uint8_t*>walk.found.mv_data + 9)
        walk.state = 1
    else:
        walk.state = 2
    return found


cdef bint walk_seek(Walk* walk, uint32_t uid) except -1:
    """To the first row from `uid` on."""
    walk.key.n = 9
    k_u32(&walk.key, uid)
    return walk_place(walk, seek(<Reading>walk.reading, walk.cursor, &walk.key, 9, &walk.found, &walk.value))


cdef bint walk_next(Walk* walk) except -1:
    """To the first row, then to each following one."""
    cdef uint32_t before
    if walk.state == 0:
        return walk_place(walk, seek(<Reading>walk.reading, walk.cursor, &walk.key, 9, &walk.found, &walk.value))
    if walk.state == 2:
        return False
    if walk.leaf == NULL:
        walk.leaf = fm_leaf_of((<Reading>walk.reading).map, walk.found.mv_data, &walk.index)
    if walk.leaf != NULL and fm_beside((<Reading>walk.reading).map, walk.leaf, &walk.index, &walk.found, &walk.value):
        before = walk.uid
        if not arrived(<Reading>walk.reading, 0, &walk.key, 9, &walk.found, &walk.value):
            return walk_place(walk, False)
        walk.uid = be32(<uint8_t*>walk.found.mv_data + 9)
        if walk.uid <= before:
            (<Reading>walk.reading).failed(FM_DISORDER, &walk.key)
        walk.ahead = True
        return True
    if walk.ahead:
        return walk_place(walk, False) if walk.uid == 0xFFFFFFFFu else walk_seek(walk, walk.uid + 1)
    return walk_place(walk, following(<Reading>walk.reading, walk.cursor, &walk.key, 9, &walk.found, &walk.value))


cdef bint walk_to(Walk* walk, uint32_t uid) except -1:
    """To the row of `uid`; a step where it is the next one, else a search."""
    if walk.state == 1 and walk.uid < uid:
        walk_next(walk)
    if walk.state == 1 and walk.uid == uid:
        return True
    if walk.state == 0 or (walk.state == 1 and walk.uid < uid) or (walk.state >= 1 and walk.uid > uid) or walk.state == 2:
        walk_seek(walk, uid)
    return walk.state == 1 and walk.uid == uid


cdef int require_all(Reading reading, uint64_t mailbox_id, uint64_t counted) except -1:
    """A mailbox whose record counts other messages than there are rows has lost some: that is not an answer."""
    cdef Key k
    cdef MDB_val value
    k_id(&k, T_MAILBOX, mailbox_id)
    if reading.get(&k, &value) and (<MailboxRecord*>value.mv_data).exists != counted:
        k_id(&k, T_MESSAGE, mailbox_id)
        reading.failed(FM_DISORDER, &k)
    return 0


cdef object uint_array(str kind, Buffer* buffer):
    out = array(kind)
    if buffer.length:
        out.frombytes(<unsigned char[:buffer.length]><unsigned char*>buffer.data)
    return out


def mailbox_fields(bytes record not None):
    """(account id, uid_validity, uid_next, modseq, floor_modseq, exists, unseen, recent_uid, size, deleted, name, special use)."""
    cdef MailboxRecord* box = <MailboxRecord*><char*>record
    cdef Py_ssize_t at = sizeof(MailboxRecord)
    if len(record) < at:
        raise ValueError("not a mailbox's record")
    name = record[at : at + box.name_length]
    special = record[at + box.name_length : at + box.name_length + box.special_length]
    return (box.account_id, box.uid_validity, box.uid_next, box.modseq, box.floor_modseq, box.exists, box.unseen,
            box.recent_uid, box.size, box.deleted, name, special)


def mailbox_named(Store store not None, uint64_t account_id, bytes name not None):
    """(id, record) of an account's mailbox of this name, from one moment; None where there is none."""
    cdef Reading reading = Reading(store)
    cdef Key k
    cdef MDB_val value
    cdef uint64_t mailbox_id = 0
    k_id(&k, T_MAILBOX_NAME, account_id)
    k_bytes(&k, PyBytes_AS_STRING(name), len(name))
    if not reading.get(&k, &value):
        return None
    if value.mv_size != sizeof(mailbox_id):
        raise store.damaged("mailbox_name", PyBytes_FromStringAndSize(<char*>k.b + 1, k.n - 1), "it is no mailbox's number")
    memcpy(&mailbox_id, value.mv_data, sizeof(mailbox_id))  # values are not aligned
    k_id(&k, T_MAILBOX, mailbox_id)
    if not reading.get(&k, &value):
        raise store.damaged("mailbox", PyBytes_FromStringAndSize(<char*>k.b + 1, k.n - 1), "the mailbox that a name leads to is not there")
    return mailbox_id, value_bytes(&value)


def mailbox_modseq(Store store not None, uint64_t mailbox_id):
    """A mailbox's highest modseq; 0 where it is gone."""
    cdef Reading reading = Reading(store)
    cdef Key k
    cdef MDB_val value
    k_id(&k, T_MAILBOX, mailbox_id)
    return (<MailboxRecord*>value.mv_data).modseq if reading.get(&k, &value) else 0


def usage_fields(bytes record):
    """(bytes, messages, quota, list version, quota of messages) of an account's usage record; None counts as an empty one."""
    cdef UsageRecord* usage
    if record is None:
        return 0, 0, 0, 0, 0
    usage = <UsageRecord*><char*>record
    if len(record) < USAGE_BEFORE:
        raise ValueError("not a usage record")
    return usage.bytes, usage.messages, usage.quota, usage.list_version, usage.quota_messages


def usage_counter(bytes record not None):
    """(modseq, floor_modseq, whether it is settled) of an account's usage record; zeros of one of a format without them."""
    cdef UsageRecord usage
    if not USAGE_BEFORE <= len(record) <= <Py_ssize_t>sizeof(usage):
        raise ValueError("not a usage record")
    memset(&usage, 0, sizeof(usage))
    memcpy(&usage, <const char*>record, len(record))
    return usage.modseq, usage.floor_modseq, usage.settled != 0


cdef bint walk_after(Walk* walk, uint32_t uid) except -1:
    """To the first row above `uid`; False where there is none."""
    if uid == 0:
        return walk_next(walk)
    if uid == 0xFFFFFFFFu:
        return False
    walk_to(walk, uid + 1)
    return walk.state == 1


def mailbox_uids(Store store not None, uint64_t mailbox_id, uint32_t after=0, Py_ssize_t limit=-1):
    """The uids above `after`, ascending, at most `limit` (-1: all), as array('I')."""
    cdef Reading reading = Reading(store)
    cdef Walk walk
    cdef Buffer out
    cdef bint more
    memset(&out, 0, sizeof(out))
    walk_start(&walk, reading, T_MESSAGE, mailbox_id)
    try:
        more = walk_after(&walk, after)
        while more and limit:
            if buffer_add(&out, &walk.uid, 4) < 0:
                raise MemoryError
            limit -= 1
            more = walk_next(&walk)
        if not more and after == 0:
            require_all(reading, mailbox_id, out.length // 4)
        return uint_array("I", &out)
    finally:
        buffer_free(&out)


def mailbox_summary(Store store not None, uint64_t mailbox_id, uint32_t after=0, Py_ssize_t limit=-1, bint hot=False):
    """(uids, flags, modseqs, sizes, keyword lists in use) of the messages above uid `after`, at most `limit` (-1: all).

    With `hot` it ends before what is not in memory; Cold, with the places of some that follow too, where that is the first.
    """
    cdef int before = fm_only_hot(hot)
    try:
        return summary_read(store, mailbox_id, after, limit)
    finally:
        fm_only_hot(before)


cdef tuple summary_read(Store store, uint64_t mailbox_id, uint32_t after, Py_ssize_t limit):
    cdef bint more
    cdef Reading reading = Reading(store)
    cdef Walk walk
    cdef Buffer out[4]
    cdef MessageRecord message
    cdef uint32_t size
    cdef set keywords = set()
    cdef int i, failed = 0
    cdef bytes known = b""
    memset(out, 0, sizeof(out))
    walk_start(&walk, reading, T_MESSAGE, mailbox_id)
    try:
        try:
            more = walk_after(&walk, after)
        except Cold as cold:
            raise Cold(ahead_of(reading, &walk.key) or cold.places)
        while more and limit:
            memcpy(&message, walk.value.mv_data, sizeof(message))
            size = 0xFFFFFFFFu if message.size > 0xFFFFFFFFu else <uint32_t>message.size
            failed |= buffer_add(&out[0], &walk.uid, 4) | buffer_add(&out[1], &message.flags, 4)
            failed |= buffer_add(&out[2], &message.modseq, 8) | buffer_add(&out[3], &size, 4)
            if failed:
                raise MemoryError
            if message.keywords_length:
                words = (<char*>walk.value.mv_data + sizeof(message))[: message.keywords_length]
                if words != known:
                    known = words
                    keywords.add(words)
            limit -= 1
            try:
                more = walk_next(&walk)
            except Cold:
                break
        if not more and after == 0:
            require_all(reading, mailbox_id, out[0].length // 4)
        return (uint_array("I", &out[0]), uint_array("I", &out[1]), uint_array("Q", &out[2]), uint_array("I", &out[3]),
                keywords)
    finally:
        for i in range(4):
            buffer_free(&out[i])


cdef list ahead_of(Reading reading, Key* k):
    """Places of leaves that are not in memory and follow the one where k stands, in the order in which a walk reads them."""
    cdef size_t places[LEAVES_AHEAD]
    cdef int i
    return [(places[i], PAGE) for i in range(fm_cold_ahead(reading.map, <const char*>k.b, places, LEAVES_AHEAD))]


cdef tuple message_tuple(uint32_t uid, MDB_val* value):
    cdef MessageRecord message
    cdef char* at = <char*>value.mv_data + sizeof(message)
    memcpy(&message, value.mv_data, sizeof(message))
    return (uid, message.blob_id, message.flags, at[: message.keywords_length], message.modseq, message.date_s,
            message.tz_minutes, message.size,
            (at + message.keywords_length)[: message.prefix_length], message.saved_s)


def message_rows(Store store not None, uint64_t mailbox_id, uids):
    """The fields of store.mailboxes.MessageRow, as tuples, for these uids (ascending is fastest) or for all (None)."""
    cdef Reading reading = Reading(store)
    cdef Walk walk
    cdef list out = []
    cdef const unsigned int[::1] wanted
    cdef Py_ssize_t i
    if uids is not None and len(uids) == 0:
        return out
    walk_start(&walk, reading, T_MESSAGE, mailbox_id)
    if uids is None:
        while walk_next(&walk):
            out.append(message_tuple(walk.uid, &walk.value))
        require_all(reading, mailbox_id, len(out))
    else:
        wanted = uids
        for i in range(wanted.shape[0]):
            if walk_to(&walk, wanted[i]):
                out.append(message_tuple(walk.uid, &walk.value))
    return out


def message_columns(Store store not None, uint64_t mailbox_id, uids):
    """(here, flags, sizes, days, prefix lengths, keyword numbers, keyword lists) of these messages, in their order.

    `here` has an octet each: 0 for one that is gone, whose other columns are 0. Days are of the internal date in its own
    zone, since 1970. A keyword number indexes the lists; 0 is the empty one.
    """
    cdef Reading reading = Reading(store)
    cdef Walk walk
    cdef MessageRecord message
    cdef const unsigned int[::1] wanted = uids
    cdef Py_ssize_t i, n = wanted.shape[0]
    cdef bytearray here = bytearray(n)
    cdef char* present = here
    cdef list columns = [array("I", bytes(4 * n)) for _ in range(5)]
    cdef unsigned int[::1] flags, sizes, days, prefixes, words
    cdef dict known = {b"": 0}
    cdef int64_t local
    if n == 0:
        return b"", *columns, [b""]
    flags, sizes, days, prefixes, words = columns
    walk_start(&walk, reading, T_MESSAGE, mailbox_id)
    for i in range(n):
        if not walk_to(&walk, wanted[i]):
            continue
        memcpy(&message, walk.value.mv_data, sizeof(message))
        present[i] = 1
        flags[i] = message.flags
        sizes[i] = 0xFFFFFFFFu if message.size > 0xFFFFFFFFu else <uint32_t>message.size
        prefixes[i] = message.prefix_length
        local = message.date_s + message.tz_minutes * 60 if message.date_s > 0 else message.tz_minutes * 60
        days[i] = <unsigned int>(local // 86400) if local > 0 else 0
        if message.keywords_length:
            key = (<char*>walk.value.mv_data + sizeof(message))[: message.keywords_length]
            words[i] = known.setdefault(key, len(known))
    return bytes(here), *columns, list(known)


def mailbox_list(Store store not None, uint64_t account_id):
    """[(mailbox id, record)] of an account in order of name, from one moment."""
    cdef Reading reading = Reading(store)
    cdef void* cursor = reading.cursor(T_MAILBOX_NAME)
    cdef Key k, row
    cdef MDB_val key, value
    cdef uint64_t mailbox_id
    cdef list out = []
    cdef bint more
    k_id(&k, T_MAILBOX_NAME, account_id)
    more = seek(reading, cursor, &k, 9, &key, &value)
    while more:
        memcpy(&mailbox_id, value.mv_data, 8)
        k_id(&row, T_MAILBOX, mailbox_id)
        if not reading.get(&row, &value):
            reading.failed(FM_DISORDER, &row)
        out.append((mailbox_id, value_bytes(&value)))
        more = following(reading, cursor, &k, 9, &key, &value)
    return out


def message_fields(bytes record not None):
    """(blob id, flags, modseq, size, length of the prefix) of a message's record."""
    cdef MessageRecord* message = <MessageRecord*><char*>record
    if len(record) < <Py_ssize_t>sizeof(MessageRecord):
        raise ValueError("not a message's record")
    return message.blob_id, message.flags, message.modseq, message.size, message.prefix_length


def retained_fields(bytes record not None):
    """(mailbox's name, blob id, flags, keywords, internal date, its zone in minutes, size, prefix) of a retained message."""
    cdef Py_ssize_t at = sizeof(RetainedRecord)
    cdef MessageRecord message
    if not retained_fits(9 + RETAINED_KEY, <const uint8_t*><char*>record, len(record)):
        raise ValueError("not a retained message's record")
    at += (<RetainedRecord*><char*>record).name_length
    name = record[sizeof(RetainedRecord) : at]
    memcpy(&message, <char*>record + at, sizeof(message))
    at += sizeof(message)
    keywords = record[at : at + message.keywords_length]
    return (name, message.blob_id, message.flags, keywords, message.date_s, message.tz_minutes, message.size,
            record[at + message.keywords_length :])


def retained_totals(bytes record):
    """(messages, octets as they are charged) that an account retains; None counts as none."""
    cdef RetainedTotals* totals
    if record is None:
        return 0, 0
    totals = <RetainedTotals*><char*>record
    if len(record) != sizeof(RetainedTotals):
        raise ValueError("not the totals of what an account retains")
    return totals.messages, totals.bytes
