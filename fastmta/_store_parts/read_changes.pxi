# Read loops over changes: what is told of other sessions, CHANGEDSINCE, VANISHED and SEARCH MODSEQ (RFC 7162); and over dates,
# for OLDER and SORT.

def mailbox_changes(Store store not None, uint64_t mailbox_id, uint64_t since_modseq, Py_ssize_t limit=-1):
    """(uids, modseqs of messages changed after `since_modseq`, in its order; their keyword lists, each once; uids expunged
    after it, ascending; the modseq up to which these are all, 0 where they are all that there are). At most `limit` of a
    kind (-1: all) and the rest of the last one's modseq: what one unit did is never cut.
    """
    cdef Reading reading = Reading(store)
    cdef Walk walk
    cdef Key k
    cdef Buffer uids[2]
    cdef Buffer modseqs[2]
    cdef uint64_t cut = 0
    cdef uint64_t* end
    cdef set keywords = set()
    cdef int kind
    if since_modseq >= 0x7FFFFFFFFFFFFFFFu:
        return array("I"), array("Q"), keywords, array("I"), 0
    memset(uids, 0, sizeof(uids))
    memset(modseqs, 0, sizeof(modseqs))
    try:
        walk_start(&walk, reading, T_MESSAGE, mailbox_id)
        for kind in range(2):
            k_change(&k, mailbox_id, kind, since_modseq + 1, 0)
            cut = changes_of(reading, &k, limit, &uids[kind], &modseqs[kind], NULL if kind else &walk, keywords, cut)
        for kind in range(2):
            while cut and modseqs[kind].length:
                end = <uint64_t*>(modseqs[kind].data + modseqs[kind].length - 8)  # 8-octet entries, and there is one
                if end[0] <= cut:
                    break
                modseqs[kind].length -= 8
                uids[kind].length -= 4
        return (uint_array("I", &uids[0]), uint_array("Q", &modseqs[0]), keywords,
                array("I", sorted(uint_array("I", &uids[1]))), cut)
    finally:
        for kind in range(2):
            buffer_free(&uids[kind])
            buffer_free(&modseqs[kind])


cdef uint64_t changes_of(Reading reading, Key* k, Py_ssize_t limit, Buffer* uids, Buffer* modseqs, Walk* walk, set keywords,
                         uint64_t cut) except? 0xFFFFFFFFFFFFFFFFu:
    """Changes of one kind from k on; gives the lower one of `cut` and where these end, 0 where neither does."""
    cdef void* cursor = reading.cursor(T_CHANGE)
    cdef MDB_val key, value
    cdef Key row
    cdef MessageRecord message
    cdef uint32_t uid
    cdef uint64_t modseq, last = 0
    cdef bytes words, known = b""
    cdef bint more = seek(reading, cursor, k, 10, &key, &value)
    while more:
        modseq = be64(<uint8_t*>key.mv_data + 10)
        uid = be32(<uint8_t*>key.mv_data + 18)
        if limit == 0 and modseq != last:
            return last if cut == 0 or last < cut else cut
        if limit > 0:
            limit -= 1
        last = modseq
        if buffer_add(uids, &uid, 4) | buffer_add(modseqs, &modseq, 8):
            raise MemoryError
        if walk != NULL:
            if not walk_to(walk, uid):  # a message's change row leaves with it
                k_id_n(&row, T_MESSAGE, be64(<uint8_t*>key.mv_data + 1), uid)
                reading.failed(FM_DISORDER, &row)
            memcpy(&message, walk.value.mv_data, sizeof(message))
            if message.keywords_length:
                words = (<char*>walk.value.mv_data + sizeof(message))[: message.keywords_length]
                if words != known:
                    known = words
                    keywords.add(words)
        more = following(reading, cursor, k, 10, &key, &value)
    return cut


def changed_uids(Store store not None, uint64_t mailbox_id, int kind, uint64_t since_modseq, Py_ssize_t limit):
    """(uids whose last change came after `since_modseq`, in its order; up to which modseq these are all, 0: there are no
    more). `kind` 0: of messages that are there; 1: of expunged ones. About `limit` of them: no modseq is cut."""
    cdef Reading reading = Reading(store)
    cdef void* cursor
    cdef Key k
    cdef MDB_val key, value
    cdef Buffer out
    cdef uint32_t uid
    cdef uint64_t modseq, last = 0
    cdef bint more
    if since_modseq >= 0x7FFFFFFFFFFFFFFFu:
        return array("I"), 0
    memset(&out, 0, sizeof(out))
    cursor = reading.cursor(T_CHANGE)
    k_change(&k, mailbox_id, kind, since_modseq + 1, 0)
    try:
        more = seek(reading, cursor, &k, 10, &key, &value)
        while more:
            modseq = be64(<uint8_t*>key.mv_data + 10)
            if limit <= 0 and modseq != last:
                return uint_array("I", &out), last
            uid = be32(<uint8_t*>key.mv_data + 18)
            if buffer_add(&out, &uid, 4) < 0:
                raise MemoryError
            last = modseq
            limit -= 1
            more = following(reading, cursor, &k, 10, &key, &value)
        return uint_array("I", &out), 0
    finally:
        buffer_free(&out)


def expunged_ids(Store store not None, uint64_t mailbox_id, uint64_t since_modseq, Py_ssize_t limit):
    """As changed_uids of expunged messages, each (uid, blob id, digest of its prefix), which are its id; 0 and 0 where it
    was expunged before such were kept."""
    cdef Reading reading = Reading(store)
    cdef void* cursor
    cdef Key k
    cdef MDB_val key, value
    cdef uint64_t[2] email_id
    cdef uint64_t modseq, last = 0
    cdef list out = []
    cdef bint more
    if since_modseq >= 0x7FFFFFFFFFFFFFFFu:
        return out, 0
    cursor = reading.cursor(T_CHANGE)
    k_change(&k, mailbox_id, 1, since_modseq + 1, 0)
    more = seek(reading, cursor, &k, 10, &key, &value)
    while more:
        modseq = be64(<uint8_t*>key.mv_data + 10)
        if limit <= 0 and modseq != last:
            return out, last
        memset(email_id, 0, sizeof(email_id))
        if value.mv_size == sizeof(email_id):
            memcpy(email_id, value.mv_data, sizeof(email_id))
        out.append((be32(<uint8_t*>key.mv_data + 18), email_id[0], email_id[1]))
        last = modseq
        limit -= 1
        more = following(reading, cursor, &k, 10, &key, &value)
    return out, 0


def changed_mailboxes(Store store not None, uint64_t account_id, uint64_t since_modseq, bytes after not None, Py_ssize_t look):
    """([(mailbox id, modseq, floor_modseq)] of an account's mailboxes that changed after `since_modseq`, in order of their
    names; the token behind them). A page looks at the records of `look` mailboxes, never at their messages."""
    cdef Reading reading = Reading(store)
    cdef void* cursor = reading.cursor(T_MAILBOX_NAME)
    cdef MailboxRecord* box
    cdef Key k, start, row
    cdef MDB_val key, value
    cdef uint64_t mailbox_id
    cdef list out = []
    cdef bint more
    k_id(&k, T_MAILBOX_NAME, account_id)
    start = k
    k_bytes(&start, <const char*>after, len(after))
    more = seek(reading, cursor, &start, 9, &key, &value)
    while more:
        if look <= 0:
            return out, (<const char*>key.mv_data + 9)[: key.mv_size - 9]
        look -= 1
        memcpy(&mailbox_id, value.mv_data, 8)
        k_id(&row, T_MAILBOX, mailbox_id)
        if not reading.get(&row, &value):
            reading.failed(FM_DISORDER, &row)
        box = <MailboxRecord*>value.mv_data
        if box.modseq > since_modseq:
            out.append((mailbox_id, box.modseq, box.floor_modseq))
        more = following(reading, cursor, &k, 9, &key, &value)
    return out, b""


def cold_rows(Store store not None, uint64_t mailbox_id, uids):
    """[(offset in the file, length)] of rows of these messages, ascending, and of their last changes, that are not in memory; []
    where all of them are. It is no list of all: who has read these places asks again."""
    cdef Reading reading
    cdef Walk walk
    cdef MessageRecord message
    cdef MDB_val value
    cdef Key k
    cdef const unsigned int[::1] wanted = uids
    cdef Py_ssize_t i
    cdef int before = fm_only_hot(True)
    try:
        reading = Reading(store)
        walk_start(&walk, reading, T_MESSAGE, mailbox_id)
        for i in range(wanted.shape[0]):
            try:
                if not walk_to(&walk, wanted[i]):
                    continue
            except Cold as cold:
                return ahead_of(reading, &walk.key) or cold.places
            memcpy(&message, walk.value.mv_data, sizeof(message))
            k_change(&k, mailbox_id, 0, message.modseq, wanted[i])
            try:
                reading.get(&k, &value)
            except Cold as cold:
                return ahead_of(reading, &k) or cold.places
        return []
    except StorageFailure:
        return []  # who reads it will say so
    finally:
        fm_only_hot(before)


def message_modseqs(Store store not None, uint64_t mailbox_id, uids):
    """The modseq of each of these messages, as array('Q'); 0 for one that is gone."""
    cdef Reading reading = Reading(store)
    cdef Walk walk
    cdef MessageRecord message
    cdef const unsigned int[::1] wanted = uids
    cdef Py_ssize_t i, n = wanted.shape[0]
    cdef unsigned long long[::1] modseqs
    out = array("Q", bytes(8 * n))
    if n == 0:
        return out
    modseqs = out
    walk_start(&walk, reading, T_MESSAGE, mailbox_id)
    for i in range(n):
        if walk_to(&walk, wanted[i]):
            memcpy(&message, walk.value.mv_data, sizeof(message))
            modseqs[i] = message.modseq
    return out


def message_dates(Store store not None, uint64_t mailbox_id, uids, bint saved=False):
    """The internal date of each of these messages, or when it was `saved`, in seconds since 1970, as array('q'); 0 for one
    that is gone."""
    cdef Reading reading = Reading(store)
    cdef Walk walk
    cdef MessageRecord message
    cdef const unsigned int[::1] wanted = uids
    cdef Py_ssize_t i, n = wanted.shape[0]
    cdef long long[::1] dates
    out = array("q", bytes(8 * n))
    if n == 0:
        return out
    dates = out
    walk_start(&walk, reading, T_MESSAGE, mailbox_id)
    for i in range(n):
        if walk_to(&walk, wanted[i]):
            memcpy(&message, walk.value.mv_data, sizeof(message))
            dates[i] = message.saved_s if saved else message.date_s
    return out
