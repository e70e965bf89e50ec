# The one reader of messages: prefix, head, and the body less its cuts.

cdef struct BlobView:  # a blob's record where it lies in the map: good as long as the read
    uint64_t blob_id
    BlobMeta meta
    const char* rest  # cuts, head, last bytes
    const char* head
    const char* tail
    uint64_t in_chunks  # of the body


cdef inline void view_of(BlobView* view, uint64_t blob_id, MDB_val* value) noexcept nogil:
    """The value has been found to fit."""
    view.blob_id = blob_id
    memcpy(&view.meta, value.mv_data, sizeof(BlobMeta))
    view.rest = <const char*>value.mv_data + sizeof(BlobMeta)
    view.head = view.rest + 8 * <size_t>view.meta.cuts
    view.tail = view.head + view.meta.head_length
    view.in_chunks = view.meta.stored_size - view.meta.tail_length


cdef inline uint32_t cut_at(BlobView* view, int i, int end) noexcept nogil:
    """Where cut i starts, or ends."""
    cdef uint32_t at
    memcpy(&at, view.rest + 8 * i + 4 * end, 4)
    return at


cdef bint view_fits(BlobView* view) noexcept nogil:
    """Whether the cuts lie in the body, in order, and leave what is shown."""
    cdef uint64_t shown = view.meta.head_length + view.meta.stored_size
    cdef uint64_t before = 0
    cdef int i
    if view.meta.tail_length > view.meta.stored_size:
        return False
    for i in range(view.meta.cuts):
        if cut_at(view, i, 0) < before or cut_at(view, i, 1) <= cut_at(view, i, 0) or cut_at(view, i, 1) > view.meta.stored_size:
            return False
        before = cut_at(view, i, 1)
        shown -= before - cut_at(view, i, 0)
    return shown == view.meta.size


cdef bint blob_view(Reading reading, uint64_t blob_id, BlobView* view) except -1:
    """False where the blob is gone."""
    cdef Key k
    cdef MDB_val value
    k_id(&k, T_BLOB, blob_id)
    if not reading.get(&k, &value):
        return False
    view_of(view, blob_id, &value)
    if not view_fits(view):
        reading.failed(FM_DISORDER, &k)
    return True


# --- whether bytes are those that were received: a blob's digest, chained over what is read in order from its beginning ---

cdef inline Proof* proof_at(StoreState* s, uint64_t blob_id, uint64_t offset) noexcept nogil:
    """The place where a blob's digest is gathered, begun anew by who reads from the beginning."""
    cdef Proof* proof = &s.proofs[(blob_id ^ (blob_id >> 20)) % PROOFS]
    if offset == 0 and (proof.blob_id != blob_id or proof.chunk != PROVED):
        proof.blob_id = blob_id
        proof.chunk = 0
        proof.digest = 0
    return proof if proof.blob_id == blob_id and proof.chunk != PROVED else NULL


cdef inline void proof_chunk(Proof* proof, uint32_t chunk, MDB_val* value) noexcept nogil:
    """A chunk has been handed out to its end."""
    if proof != NULL and proof.chunk == chunk:
        proof.digest = xxh64(value.mv_data, value.mv_size, proof.digest)
        proof.chunk += 1


cdef inline bint proof_end(Proof* proof, BlobView* view) noexcept nogil:
    """The last byte has been handed out: False where the digest is another than the one that was kept."""
    cdef uint64_t digest
    cdef size_t n = rest_length(&view.meta)
    if proof == NULL or proof.chunk != view.meta.chunks:
        return True
    digest = xxh64(view.rest, n, proof.digest) if n else proof.digest
    if digest != view.meta.digest:
        proof.blob_id = 0
        return False
    proof.chunk = PROVED  # by this process: what is read again is the same page in memory, mostly
    return True


# --- copying ---

cdef Py_ssize_t chunks_copy(Reading reading, uint64_t blob_id, uint64_t offset, char* out, Py_ssize_t n, Proof* proof) except -2:
    """Copies n bytes of a blob's chunks from `offset` in one walk; fewer where a chunk is not there."""
    cdef Key k
    cdef MDB_val key, value
    cdef Py_ssize_t done = 0
    cdef uint32_t chunk = <uint32_t>(offset // CHUNK)  # every chunk but the last is full
    cdef size_t inside = <size_t>(offset % CHUNK)
    cdef size_t length
    cdef bint more
    cdef void* cursor
    if n <= 0:
        return 0
    cursor = reading.cursor(T_BLOB)
    k_id_n(&k, T_BLOB, blob_id, chunk)
    more = seek(reading, cursor, &k, k.n, &key, &value)
    while more and value.mv_size > inside and be32(<uint8_t*>key.mv_data + 9) == chunk:
        length = value.mv_size - inside
        if length > <size_t>(n - done):
            length = n - done
        memcpy(out + done, <char*>value.mv_data + inside, length)
        done += length
        if inside + length == value.mv_size:
            proof_chunk(proof, chunk, &value)
        if done == n:
            break
        chunk += 1
        inside = 0
        more = following(reading, cursor, &k, 9, &key, &value) and key.mv_size == k.n
    reading.close_last()
    return done


cdef Py_ssize_t pending_copy(Reading reading, uint64_t blob_id, uint64_t offset, char* out, Py_ssize_t n) except -2:
    """What of a blob that is being received lies in the store already."""
    return chunks_copy(reading, blob_id, offset, out, n, NULL)


cdef Py_ssize_t body_read(Reading reading, BlobView* view, uint64_t offset, char* out, Py_ssize_t n) except -2:
    """Copies n bytes of the body, which has them; -1 where it is being reaped."""
    cdef Key k
    cdef Py_ssize_t in_chunks = 0
    cdef Proof* proof = NULL if reading.trusts else proof_at(reading.store.s, view.blob_id, offset)
    if offset < view.in_chunks:
        in_chunks = n if <uint64_t>n < view.in_chunks - offset else <Py_ssize_t>(view.in_chunks - offset)
        if chunks_copy(reading, view.blob_id, offset, out, in_chunks, proof) != in_chunks:
            if view.meta.refs:  # nobody deletes the chunks of a blob that something refers to
                k_id_n(&k, T_BLOB, view.blob_id, <uint32_t>(offset // CHUNK))
                reading.failed(FM_DISORDER, &k)
            return -1
    if in_chunks < n:
        memcpy(out + in_chunks, view.tail + (offset + in_chunks - view.in_chunks), n - in_chunks)
    if offset + n == view.meta.stored_size and not proof_end(proof, view):
        tell_unlike(reading.store, view.blob_id)
    return n


cdef Py_ssize_t shown_copy(Reading reading, BlobView* view, uint64_t offset, char* out, Py_ssize_t n) except -2:
    """Copies up to n bytes of what is shown of a blob; -1 where it is being reaped."""
    cdef Py_ssize_t done = 0, part
    cdef uint64_t at, end
    cdef int i
    if offset >= view.meta.size or n <= 0:
        return 0
    if <uint64_t>n > view.meta.size - offset:
        n = <Py_ssize_t>(view.meta.size - offset)
    if offset == 0 and not reading.trusts:  # the body's first octets may be cut
        proof_at(reading.store.s, view.blob_id, 0)
    if offset < view.meta.head_length:
        done = n if <uint64_t>n < view.meta.head_length - offset else <Py_ssize_t>(view.meta.head_length - offset)
        memcpy(out, view.head + offset, done)
    at = offset + done - view.meta.head_length  # in the body, once the cuts before it are added
    for i in range(<int>view.meta.cuts + 1):
        end = cut_at(view, i, 0) if i < view.meta.cuts else view.meta.stored_size
        if at < end and done < n:
            part = n - done if <uint64_t>(n - done) < end - at else <Py_ssize_t>(end - at)
            if body_read(reading, view, at, out + done, part) < 0:
                return -1
            done += part
            at += part
        if i < view.meta.cuts:
            at += cut_at(view, i, 1) - cut_at(view, i, 0)
    return done


cdef bytes part_of_message(Reading reading, const char* prefix, size_t prefix_length, uint64_t blob_id, uint64_t offset,
                           uint64_t length, uint64_t whole):
    """Bytes of a message whose prefix stands in front of its blob; None where the blob is gone, which
    cannot be where the message's record says its size, `whole`."""
    cdef BlobView view
    cdef Key k
    cdef uint64_t size
    cdef Py_ssize_t from_prefix = 0, got
    cdef bytes out
    k_id(&k, T_BLOB, blob_id)
    if not blob_view(reading, blob_id, &view):
        if whole:
            reading.failed(FM_DISORDER, &k)
        return None
    size = prefix_length + view.meta.size
    if whole and whole != size:
        reading.failed(FM_DISORDER, &k)
    if offset >= size:
        return b""
    if length > size - offset:
        length = size - offset
    out = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>length)
    if offset < prefix_length:
        from_prefix = <Py_ssize_t>(prefix_length - offset if prefix_length - offset < length else length)
        memcpy(PyBytes_AS_STRING(out), prefix + offset, from_prefix)
    got = shown_copy(reading, &view, offset + from_prefix - prefix_length, PyBytes_AS_STRING(out) + from_prefix,
                     <Py_ssize_t>length - from_prefix)
    return out if got == <Py_ssize_t>length - from_prefix else None


def blob_read(Store store not None, uint64_t blob_id, uint64_t offset, uint64_t length, bint hot=False, bint fresh=False):
    """Bytes of what is shown of a blob, a copy; b"" at its end, None where it is gone. With `hot`, Cold where some of it is not
    in memory. `fresh`: it came a moment ago, so that its pages are those that were written, and are not held to its digest."""
    cdef Reading reading = Reading(store)
    cdef int before
    reading.trusts = fresh
    if not hot:
        return part_of_message(reading, NULL, 0, blob_id, offset, length, 0)
    before = fm_only_hot(True)
    try:
        return part_of_message(reading, NULL, 0, blob_id, offset, length, 0)
    finally:
        fm_only_hot(before)


def body_of_blob(Store store not None, uint64_t blob_id, uint64_t offset, uint64_t length):
    """Bytes of what came of a blob, without its head and with what is cut; b"" at its end, None where it is gone."""
    cdef Reading reading = Reading(store)
    cdef BlobView view
    cdef bytes out
    if not blob_view(reading, blob_id, &view):
        return None
    if offset >= view.meta.stored_size or length == 0:
        return b""
    if length > view.meta.stored_size - offset:
        length = view.meta.stored_size - offset
    out = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>length)
    return out if body_read(reading, &view, offset, PyBytes_AS_STRING(out), <Py_ssize_t>length) >= 0 else None


def message_read(Store store not None, uint64_t mailbox_id, uint32_t uid, uint64_t offset, uint64_t length):
    """Bytes of a message, the prefix in front of the blob; b"" at its end, None where it is gone."""
    cdef Reading reading = Reading(store)
    cdef Key k
    cdef MDB_val value
    cdef MessageRecord message
    k_id_n(&k, T_MESSAGE, mailbox_id, uid)
    if not reading.get(&k, &value):
        return None
    memcpy(&message, value.mv_data, sizeof(message))
    return part_of_message(reading, <char*>value.mv_data + sizeof(message) + message.keywords_length,
                           message.prefix_length, message.blob_id, offset, length, message.size)


cdef enum:
    PLACES = 64  # of one answer: what is farther on is asked for again


cdef list blob_places(Reading reading, uint64_t blob_id, uint64_t offset, uint64_t length):
    """Where bytes of what is shown of a blob lie in the file that are not in memory; its pages are not touched."""
    cdef Key k
    cdef MDB_val key
    cdef BlobView view
    cdef list out = []
    cdef uint64_t cut = 0, first, end, begin = 0
    cdef int i, rc, is_cold
    cdef void* cursor
    k_id(&k, T_BLOB, blob_id)
    if not blob_view(reading, blob_id, &view):
        return out
    for i in range(<int>view.meta.cuts):
        cut += cut_at(&view, i, 1) - cut_at(&view, i, 0)
    first = offset - view.meta.head_length if offset > view.meta.head_length else 0
    end = min(offset + length + cut, <uint64_t>view.meta.stored_size)
    if first >= min(end, view.in_chunks):
        return out
    length = 0
    cursor = reading.cursor(T_BLOB)
    k_id_n(&k, T_BLOB, blob_id, <uint32_t>(first // CHUNK))
    key.mv_size = k.n
    key.mv_data = k.b
    rc = place_step(reading, cursor, &key, MDB_SET_RANGE, &is_cold)
    while (rc == 0 and key.mv_size == k.n and memcmp(key.mv_data, k.b, 9) == 0
           and be32(<uint8_t*>key.mv_data + 9) * <uint64_t>CHUNK < end):
        if is_cold:
            if length and begin + length == fm_cold_at:  # pages side by side are one place
                length += fm_cold_length
            else:
                if length:
                    out.append((begin, length))
                if len(out) == PLACES:
                    break
                begin = fm_cold_at
                length = fm_cold_length
        rc = place_step(reading, cursor, &key, MDB_NEXT, &is_cold)
    else:
        if length:
            out.append((begin, length))
    reading.close_last()
    if rc == FM_COLD:
        out.append((fm_cold_at, fm_cold_length))
    return out


cdef inline int place_step(Reading reading, void* cursor, MDB_val* key, int op, int* is_cold) noexcept:
    return fm_place(<void*>reading.store.s.calls.cursor_get, reading.map, reading.txn_id, database_name[database_of(T_BLOB)], cursor, key, op, is_cold)


cdef list cold_places(Store store, uint64_t mailbox_id, uint32_t uid, uint64_t blob_id, uint64_t offset, uint64_t length):
    cdef Reading reading = Reading(store)
    cdef Key k
    cdef MDB_val value
    cdef MessageRecord message
    if mailbox_id:
        k_id_n(&k, T_MESSAGE, mailbox_id, uid)
        if not reading.get(&k, &value):
            return []
        memcpy(&message, value.mv_data, sizeof(message))
        blob_id = message.blob_id
        offset = offset - message.prefix_length if offset > message.prefix_length else 0
    return blob_places(reading, blob_id, offset, length)


def cold_bytes(Store store not None, uint64_t mailbox_id, uint32_t uid, uint64_t blob_id, uint64_t offset, uint64_t length):
    """[(offset in the file, length)] of what a read of these bytes would wait for the disk for; [] where all of it is in memory.

    Of a message of a mailbox, or with mailbox 0 of what is shown of a blob. It is no list of all: who has read these places
    asks again.
    """
    cdef int before = fm_only_hot(True)
    try:
        return cold_places(store, mailbox_id, uid, blob_id, offset, length)
    except Cold as cold:
        return cold.places
    except StorageFailure:
        return []  # who reads it will say so
    finally:
        fm_only_hot(before)


def blob_meta(bytes record not None):
    """A blob's record: refs, size of what is shown and of what came, arrival bits, chunks, digest, cuts, head, last bytes, and
    `rest`, all that stands behind the struct, which the digest covers last."""
    cdef BlobView view
    cdef MDB_val value
    cdef BlobMeta* meta = <BlobMeta*><char*>record
    value.mv_data = <char*>record
    value.mv_size = len(record)
    if value.mv_size < sizeof(BlobMeta) or value.mv_size != sizeof(BlobMeta) + rest_length(meta) or meta.format != BLOB_FORMAT:
        raise ValueError("not a blob's record")
    view_of(&view, 0, &value)
    if not view_fits(&view):
        raise ValueError("the cuts of a blob's record do not fit")
    cuts = tuple([(cut_at(&view, i, 0), cut_at(&view, i, 1)) for i in range(view.meta.cuts)])
    return BlobFields(meta.refs, meta.size, meta.stored_size, meta.bits, meta.chunks, meta.digest, cuts,
                      view.head[: meta.head_length], view.tail[: meta.tail_length], record[sizeof(BlobMeta) :])


class BlobFields(NamedTuple):
    """What a blob's record says."""

    refs: int
    size: int
    stored_size: int
    bits: int
    chunks: int
    digest: int
    cuts: tuple
    head: bytes
    tail: bytes
    rest: bytes


