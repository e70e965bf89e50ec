# Read loops over one column: modseqs for CHANGEDSINCE, VANISHED and SEARCH MODSEQ (RFC 7162), dates for OLDER and SORT.

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
