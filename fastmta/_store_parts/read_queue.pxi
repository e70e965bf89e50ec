# Read loops over the queue: what an owner has to do next, and what people list.

cdef int[LANES] lane_weight
lane_weight[0] = 6  # small
lane_weight[1] = 3  # normal
lane_weight[2] = 1  # bulk

cdef enum:
    POSITION = 20  # due, queue id, n of one lane in a token


def queue_fields(bytes record not None):
    """(blob id, live recipients, envelope) of a queue row."""
    cdef QueueRecord* row = <QueueRecord*><char*>record
    if len(record) < <Py_ssize_t>sizeof(QueueRecord):
        raise ValueError("not a queue row")
    return row.blob_id, row.live, record[sizeof(QueueRecord) :]


cdef tuple recipient_tuple(uint64_t queue_id, uint32_t n, const char* data, size_t length):
    cdef RecipientRecord record
    cdef const char* at = data + sizeof(record)
    if length < sizeof(record):
        raise ValueError("not a recipient's row")
    memcpy(&record, data, sizeof(record))
    if sizeof(record) + record.hop_length + record.tail_length + record.reply_length > length:
        raise ValueError("not a recipient's row")
    return (queue_id, n, at[: record.hop_length], record.lane, record.state, record.attempts, record.due_ms,
            (at + record.hop_length + record.tail_length)[: record.reply_length],
            (at + record.hop_length)[: record.tail_length])


def recipient_fields(uint64_t queue_id, uint32_t n, bytes record not None):
    """(queue id, n, hop, lane, state, attempts, due, last reply, tail) of a recipient's row."""
    return recipient_tuple(queue_id, n, record, len(record))


def queue_load(Store store not None, uint64_t queue_id, numbers):
    """((blob id, live, envelope), [recipient tuples]) of a message, of the given recipients or of all (None); None: gone."""
    cdef Reading reading = Reading(store)
    return load_message(reading, queue_id, numbers)


def queue_load_many(Store store not None, list wanted not None):
    """The same for [(queue id, [n, ...])] in one read transaction; messages that are gone give None."""
    cdef Reading reading = Reading(store)
    return [load_message(reading, queue_id, numbers) for queue_id, numbers in wanted]


def queue_movable(Store store not None, list pairs not None, int states):
    """[(queue id, n, forward path)] of those of the recipients (queue id, n) whose state is one of the bits, 1 << state."""
    cdef Reading reading = Reading(store)
    cdef RecipientRecord* record
    cdef const uint8_t* path
    cdef size_t length
    cdef Key k
    cdef MDB_val value
    cdef list out = []
    for queue_id, n in pairs:
        k_id_n(&k, T_QUEUE, queue_id, n)
        if not reading.get(&k, &value):
            continue
        record = <RecipientRecord*>value.mv_data
        if <uint64_t>sizeof(record[0]) + record.hop_length + record.tail_length > value.mv_size:
            reading.failed(FM_DISORDER, &k)
        if states >> record.state & 1:
            forward_path(<const char*>value.mv_data + sizeof(record[0]) + record.hop_length, record.tail_length, &path, &length)
            out.append((queue_id, n, (<const char*>path)[:length]))
    return out


cdef object message_of(Reading reading, Key* k, MDB_val* value):
    if value.mv_size < sizeof(QueueRecord):
        reading.failed(FM_DISORDER, k)
    return queue_fields(value_bytes(value))


cdef object recipient_of(Reading reading, Key* k, uint64_t queue_id, uint32_t n, MDB_val* value):
    try:
        return recipient_tuple(queue_id, n, <char*>value.mv_data, value.mv_size)
    except ValueError:
        reading.failed(FM_DISORDER, k)


cdef object load_message(Reading reading, uint64_t queue_id, numbers):
    cdef Key k
    cdef MDB_val key, value
    cdef void* cursor
    cdef list recipients = []
    cdef bint more
    k_id(&k, T_QUEUE, queue_id)
    if numbers is not None:
        if not reading.get(&k, &value):
            return None
        message = message_of(reading, &k, &value)
        for n in numbers:
            k_id_n(&k, T_QUEUE, queue_id, n)
            if reading.get(&k, &value):
                recipients.append(recipient_of(reading, &k, queue_id, n, &value))
        return message, recipients
    cursor = reading.cursor(T_QUEUE)
    more = seek(reading, cursor, &k, 9, &key, &value)
    if more and key.mv_size == 9:
        message = message_of(reading, &k, &value)
        more = following(reading, cursor, &k, 9, &key, &value)
        while more:
            recipients.append(recipient_of(reading, &k, queue_id, be32(<uint8_t*>key.mv_data + 9), &value))
            more = following(reading, cursor, &k, 9, &key, &value)
        if len(recipients) != message[1]:
            reading.failed(FM_DISORDER, &k)
    elif more:  # recipients without their message
        reading.failed(FM_DISORDER, &k)
    else:
        message = None
    reading.close_last()
    return None if message is None else (message, recipients)


cdef struct DueRow:
    int64_t due_ms
    uint64_t queue_id
    uint32_t n
    int lane


cdef Py_ssize_t due_rows(Reading reading, bytes hop, int64_t now_ms, DueRow* out, Py_ssize_t limit, bytes after) except -1:
    """What of a hop is due, lanes in weighted turns, after the positions of a token: how many rows, at most `limit`."""
    cdef void* cursors[LANES]
    cdef Key prefix[LANES]
    cdef MDB_val keys[LANES]
    cdef MDB_val value
    cdef bint more[LANES]
    cdef size_t base
    cdef int64_t due
    cdef const uint8_t* at
    cdef Key start
    cdef Py_ssize_t found = 0
    cdef int lane, turn
    cdef bint any_left = True
    if after and len(after) != LANES * POSITION:
        raise ValueError("not a position in the schedule")
    if len(hop) > HOP_MAX:
        raise ValueError("a hop has at most 200 bytes")
    for lane in range(LANES):
        cursors[lane] = reading.cursor(T_SCHEDULE)
        k_schedule(&prefix[lane], hop, len(hop), lane)
        start = prefix[lane]
        if after:
            memcpy(start.b + start.n, <const char*>after + lane * POSITION, POSITION)
            start.n += POSITION
        more[lane] = seek(reading, cursors[lane], &start, prefix[lane].n, &keys[lane], &value)
        if more[lane] and after and memcmp(keys[lane].mv_data, start.b, start.n) == 0:
            more[lane] = following(reading, cursors[lane], &prefix[lane], prefix[lane].n, &keys[lane], &value)
    base = prefix[0].n
    while any_left and found < limit:
        any_left = False
        for lane in range(LANES):
            for turn in range(lane_weight[lane]):
                if not more[lane] or found >= limit:
                    break
                if keys[lane].mv_size != base + POSITION:
                    reading.failed(FM_DISORDER, &prefix[lane])
                at = <const uint8_t*>keys[lane].mv_data + base
                due = <int64_t>be64(at)
                if due > now_ms:
                    more[lane] = False
                    break
                out[found].due_ms = due
                out[found].lane = lane
                out[found].queue_id = be64(at + 8)
                out[found].n = be32(at + 16)
                found += 1
                more[lane] = following(reading, cursors[lane], &prefix[lane], base, &keys[lane], &value)
                any_left = True
    return found


cdef DueRow* due_room(Py_ssize_t limit) except NULL:
    cdef DueRow* rows = <DueRow*>malloc(max(limit, 1) * sizeof(DueRow))
    if rows == NULL:
        raise MemoryError
    return rows


def hop_due(Store store not None, bytes hop not None, int64_t now_ms, Py_ssize_t limit, bytes after not None):
    """[(due, lane, queue id, n)] of one hop that are due, lanes in weighted turns, after the positions of a token."""
    cdef DueRow* rows = due_room(limit)
    cdef Py_ssize_t i
    try:
        return [(rows[i].due_ms, rows[i].lane, rows[i].queue_id, rows[i].n)
                for i in range(due_rows(Reading(store), hop, now_ms, rows, limit, after))]
    finally:
        free(rows)


def hop_take(Store store not None, bytes hop not None, int64_t now_ms, Py_ssize_t limit, set in_flight not None,
             dict withheld not None):
    """(how many rows hop_due gives, [(queue id, queue_load's of them)] but for (queue id, n) of the two), from one moment."""
    cdef Reading reading = Reading(store)
    cdef DueRow* rows = due_room(limit)
    cdef dict wanted = {}
    cdef Py_ssize_t i, found
    try:
        found = due_rows(reading, hop, now_ms, rows, limit, b"")
        for i in range(found):
            key = (rows[i].queue_id, rows[i].n)
            if key not in in_flight and key not in withheld:
                numbers = wanted.get(key[0])
                if numbers is None:
                    wanted[key[0]] = [key[1]]
                else:
                    numbers.append(key[1])
    finally:
        free(rows)
    return found, [(queue_id, load_message(reading, queue_id, numbers)) for queue_id, numbers in wanted.items()]


cdef bint is_folded(const uint8_t* p, size_t n, bytes wanted) noexcept:
    """Whether p[:n], its ASCII letters in lower case, is `wanted`."""
    cdef const uint8_t* other = <const uint8_t*>PyBytes_AS_STRING(wanted)
    cdef size_t i
    if n != <size_t>len(wanted):
        return False
    for i in range(n):
        if (p[i] + 32 if c'A' <= p[i] <= c'Z' else p[i]) != other[i]:
            return False
    return True


cdef bint is_active_to(MDB_val* value, bint unindexed, object domain) noexcept:
    """Whether this recipient's row is that of an active one, and in the domain; `unindexed`: and in no index."""
    cdef RecipientRecord* record = <RecipientRecord*>value.mv_data
    cdef const uint8_t* at = <const uint8_t*>value.mv_data + sizeof(record[0]) + record.hop_length
    cdef const uint8_t* path
    cdef size_t length = 0
    cdef size_t start
    if record.state != ACTIVE or (unindexed and record.indexed & HAS_ROWS):
        return False
    if domain is None:
        return True
    if record.tail_length < 2 or not pack_bytes(at + 1, record.tail_length - 1, &path, &length):
        return False
    start = length
    while start > 0 and path[start - 1] != c'@':
        start -= 1
    return is_folded(path + start, length - start, <bytes>domain)


cdef bint is_from(MDB_val* value, object sender) noexcept:
    """Whether this queue row is that of a message from `sender`."""
    cdef const uint8_t* at = <const uint8_t*>value.mv_data + sizeof(QueueRecord)
    cdef size_t left = value.mv_size - sizeof(QueueRecord)
    cdef size_t lead = 3 if left and at[0] == 0xDC else 1
    cdef const uint8_t* path
    cdef size_t length = 0
    return left > lead and pack_bytes(at + lead, left - lead, &path, &length) and is_folded(path, length, <bytes>sender)


cdef bint is_chosen(Reading reading, uint64_t queue_id, uint32_t n, bint unindexed, object domain, object sender) except -1:
    """Whether this recipient is active, and one whom active_rows is asked for."""
    cdef Key k
    cdef MDB_val value
    k_id_n(&k, T_QUEUE, queue_id, n)
    if not reading.get(&k, &value) or not is_active_to(&value, unindexed, domain):
        return False
    if sender is None:
        return True
    k_id(&k, T_QUEUE, queue_id)
    return reading.get(&k, &value) and is_from(&value, sender)


def active_scan(Store store not None, bytes after not None, Py_ssize_t limit, Py_ssize_t look, bint unindexed, domain, sender):
    """As active_rows, in the order of the queue and whatever their due: every row of the queue is looked at, the next in
    order, which costs a small part of what it costs to seek it. Cheaper, hence, where many of the queued are active.
    """
    cdef Reading reading = Reading(store)
    cdef void* cursor = reading.cursor(T_QUEUE)
    cdef Key k
    cdef MDB_val key, value
    cdef const uint8_t* at
    cdef list out = []
    cdef uint64_t from_sender = 0  # the message whose rows are at hand, where it is from the sender
    cdef bint more
    if len(after) > 12:
        raise ValueError("not a position in the queue")
    k_start(&k, T_QUEUE)
    k_bytes(&k, <const char*>after, len(after))
    if len(after) == 12 and sender is not None:  # in the middle of a message
        k.n = 9
        if reading.get(&k, &value) and is_from(&value, sender):
            from_sender = be64(k.b + 1)
        k.n = 13
    more = seek(reading, cursor, &k, 1, &key, &value)
    while more:
        at = <const uint8_t*>key.mv_data + 1
        if look <= 0 or len(out) >= limit:
            return out, (<const char*>at)[: key.mv_size - 1]
        look -= 1
        if key.mv_size == 9:
            if sender is not None:
                from_sender = be64(at) if is_from(&value, sender) else 0
        elif (sender is None or from_sender == be64(at)) and is_active_to(&value, unindexed, domain):
            out.append((be64(at), be32(at + 8)))
        more = following(reading, cursor, &k, 1, &key, &value)
    return out, b""


def active_rows(Store store not None, bytes after not None, int64_t due_ms, Py_ssize_t limit, Py_ssize_t look,
                bint unindexed, domain, sender):
    """([(queue id, n)] of active recipients that are due up to then, the token behind them, b"": these were the last).

    Looks at no more than `look` rows. `unindexed`: those alone that were never deferred or held, whom no other index
    has. `domain` and `sender`, in lower case, choose; None: any. Hops that have none active cost a row.
    """
    cdef Reading reading = Reading(store)
    cdef void* hops = reading.cursor(T_HOP_STATE)
    cdef void* cursor = reading.cursor(T_SCHEDULE)
    cdef Key first, state_prefix, prefix, start
    cdef MDB_val hop_key, hop_value, key, value
    cdef HopRecord* hop
    cdef const char* name
    cdef size_t name_length
    cdef list out = []
    cdef int lane, from_lane = 0
    cdef const uint8_t* at
    cdef uint64_t queue_id
    cdef uint32_t n
    cdef bint more, more_hops, resumed = False
    k_start(&state_prefix, T_HOP_STATE)
    k_start(&first, T_HOP_STATE)
    if after:
        if len(after) < 1 + POSITION or len(after) - 1 - POSITION > HOP_MAX:
            raise ValueError("not a position among the active")
        k_bytes(&first, <const char*>after + 1 + POSITION, len(after) - 1 - POSITION)
        from_lane = (<const uint8_t*><const char*>after)[0]
        resumed = True
    more_hops = seek(reading, hops, &first, 1, &hop_key, &hop_value)
    while more_hops:
        name = <const char*>hop_key.mv_data + 1
        name_length = hop_key.mv_size - 1
        resumed = resumed and hop_key.mv_size == first.n and memcmp(hop_key.mv_data, first.b, first.n) == 0
        if not resumed:
            from_lane = 0
        hop = <HopRecord*>hop_value.mv_data
        look -= 1
        for lane in range(from_lane, LANES if hop.active and name_length <= HOP_MAX else from_lane):
            k_schedule(&prefix, name, name_length, lane)
            start = prefix
            if resumed:
                memcpy(start.b + start.n, <const char*>after + 1, POSITION)
                start.n += POSITION
            more = seek(reading, cursor, &start, prefix.n, &key, &value)
            if more and resumed and key.mv_size == start.n and memcmp(key.mv_data, start.b, start.n) == 0:
                more = following(reading, cursor, &prefix, prefix.n, &key, &value)
            resumed = False
            while more:
                if key.mv_size != prefix.n + POSITION:
                    reading.failed(FM_DISORDER, &prefix)
                at = <const uint8_t*>key.mv_data + prefix.n
                if <int64_t>be64(at) > due_ms:
                    break
                queue_id = be64(at + 8)
                n = be32(at + 16)
                look -= 1
                if is_chosen(reading, queue_id, n, unindexed, domain, sender):
                    out.append((queue_id, n))
                if look <= 0 or len(out) >= limit:
                    return out, bytes([lane]) + (<const char*>at)[:POSITION] + name[:name_length]
                more = following(reading, cursor, &prefix, prefix.n, &key, &value)
        resumed = False
        more_hops = following(reading, hops, &state_prefix, 1, &hop_key, &hop_value)
        if more_hops and look <= 0:
            name = <const char*>hop_key.mv_data + 1
            return out, b"\0" * (1 + POSITION) + name[: hop_key.mv_size - 1]
    return out, b""


def schedule_token(rows, bytes previous not None=b""):
    """The `after` that continues behind these rows of hop_due, or behind an earlier token."""
    cdef list places = [previous[i * POSITION : (i + 1) * POSITION] or b"\0" * POSITION for i in range(LANES)]
    for due, lane, queue_id, n in rows:
        place = due.to_bytes(8, "big") + queue_id.to_bytes(8, "big") + n.to_bytes(4, "big")
        if place > places[lane]:
            places[lane] = place
    return b"".join(places)


def hops_due(Store store not None, partitions, int64_t now_ms, Py_ssize_t limit):
    """[(earliest due, hop)] of these partitions where that is not after now, in order of due, at most `limit` a partition."""
    cdef Reading reading = Reading(store)
    cdef void* cursor = reading.cursor(T_HOP)
    cdef Key k
    cdef MDB_val key, value
    cdef list out = []
    cdef int64_t due
    cdef Py_ssize_t n
    cdef bint more
    for partition in partitions:
        k_start(&k, T_HOP)
        k_u8(&k, partition)
        more = seek(reading, cursor, &k, 2, &key, &value)
        n = 0
        while more and n < limit:
            if key.mv_size < 10:
                reading.failed(FM_DISORDER, &k)
            due = <int64_t>be64(<uint8_t*>key.mv_data + 2)
            if due > now_ms:
                break
            out.append((due, (<char*>key.mv_data + 10)[: key.mv_size - 10]))
            n += 1
            more = following(reading, cursor, &k, 2, &key, &value)
    out.sort()
    return out[:limit]


def hops_next_due(Store store not None, partitions):
    """The earliest due of all hops of these partitions; None where they have none."""
    cdef Reading reading = Reading(store)
    cdef void* cursor = reading.cursor(T_HOP)
    cdef Key k
    cdef MDB_val key, value
    cdef int64_t due, earliest = NEVER
    for partition in partitions:
        k_start(&k, T_HOP)
        k_u8(&k, partition)
        if seek(reading, cursor, &k, 2, &key, &value):
            if key.mv_size < 10:
                reading.failed(FM_DISORDER, &k)
            due = <int64_t>be64(<uint8_t*>key.mv_data + 2)
            if due < earliest:
                earliest = due
    return None if earliest == NEVER else earliest


def hop_fields(bytes record not None):
    """(active, deferred, held, earliest due or None, active that are in no index yet) of a hop's record."""
    cdef HopRecord hop
    memset(&hop, 0, sizeof(hop))
    if not HOP_BEFORE <= len(record) <= <Py_ssize_t>sizeof(hop):
        raise ValueError("not a hop's record")
    memcpy(&hop, <const char*>record, len(record))
    return hop.active, hop.deferred, hop.held, None if hop.due_ms == NEVER else hop.due_ms, hop.fresh
