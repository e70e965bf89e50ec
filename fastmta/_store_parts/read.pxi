# Reads: each in one short transaction that is renewed for it, and none of them hands out memory of the map.

cdef extern from "Python.h":
    object PyBytes_FromStringAndSize(const char*, Py_ssize_t)
    char* PyBytes_AS_STRING(object)


cdef inline bytes value_bytes(MDB_val* value):
    return PyBytes_FromStringAndSize(<const char*>value.mv_data, <Py_ssize_t>value.mv_size)


@cython.final
cdef class Reading:
    """One read transaction, for as long as this object is alive; kept inside one call."""

    cdef Store store
    cdef void* txn

    def __cinit__(self, Store store not None):
        self.store = store
        self.txn = store._begin_read()

    def __dealloc__(self):
        if self.txn != NULL:
            self.store._end_read(self.txn)

    cdef void* cursor(self, int table) except NULL:
        cdef void* cursor
        cdef int rc = mdb_cursor_open(self.txn, self.store.s.dbi[database_of(table)], &cursor)
        if rc:
            raise StorageFailure(lmdb_error(rc))
        return cursor

    cdef bint get(self, Key* k, MDB_val* value) except -1:
        cdef MDB_val key
        cdef int rc
        key.mv_size = k.n
        key.mv_data = k.b
        rc = mdb_get(self.txn, self.store.s.dbi[database_of(k.b[0])], &key, value)
        if rc == 0:
            return True
        if rc == MDB_NOTFOUND:
            return False
        raise StorageFailure(lmdb_error(rc))


cdef inline bint seek(void* cursor, Key* k, size_t prefix, MDB_val* key, MDB_val* value) noexcept nogil:
    """To the first record at or after k that shares its first `prefix` bytes."""
    key.mv_size = k.n
    key.mv_data = k.b
    if mdb_cursor_get(cursor, key, value, MDB_SET_RANGE):
        return False
    return key.mv_size >= prefix and memcmp(key.mv_data, k.b, prefix) == 0


cdef inline bint following(void* cursor, Key* k, size_t prefix, MDB_val* key, MDB_val* value) noexcept nogil:
    if mdb_cursor_get(cursor, key, value, MDB_NEXT):
        return False
    return key.mv_size >= prefix and memcmp(key.mv_data, k.b, prefix) == 0


cdef object read_record(Reading reading, int table, bytes key):
    cdef Key k
    cdef MDB_val value
    require_key(table, key)
    k_given(&k, table, key, len(key))
    return value_bytes(&value) if reading.get(&k, &value) else None


cdef list read_range(Reading reading, int table, bytes prefix, bytes start, Py_ssize_t limit):
    cdef void* cursor
    cdef Key first, wanted
    cdef MDB_val key, value
    cdef list out = []
    cdef bint more
    require_key(table, prefix)
    require_key(table, start)
    k_given(&wanted, table, prefix, len(prefix))
    k_given(&first, table, max(prefix, start), len(max(prefix, start)))
    cursor = reading.cursor(table)
    more = seek(cursor, &first, 1, &key, &value)
    while (more and len(out) < limit and key.mv_size >= wanted.n
           and memcmp(key.mv_data, wanted.b, wanted.n) == 0):
        out.append((PyBytes_FromStringAndSize(<char*>key.mv_data + 1, key.mv_size - 1), value_bytes(&value)))
        more = following(cursor, &wanted, 1, &key, &value)
    mdb_cursor_close(cursor)
    return out


@cython.final
cdef class Snapshot:
    """The store as of one moment, for checks and listings that need more than one read to agree.

    While it is held no page that it sees can be used again, so it is closed soon (`with`), and never kept over an await.
    """

    cdef Reading reading

    def __cinit__(self, Store store not None):
        self.reading = Reading(store)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """Lets go of the moment; calling it twice does nothing."""
        self.reading = None

    def get(self, int table, bytes key not None):
        """The value of a record, a copy; None where there is none."""
        if self.reading is None:
            raise RuntimeError("the snapshot is closed")
        return read_record(self.reading, table, key)

    def scan(self, int table, bytes prefix not None=b"", bytes start not None=b"", Py_ssize_t limit=1000):
        """[(key, value)] of the records whose key begins with `prefix` and is not before `start`."""
        if self.reading is None:
            raise RuntimeError("the snapshot is closed")
        return read_range(self.reading, table, prefix, start, limit)

    def blobs_before(self, uint64_t blob_id, Py_ssize_t limit):
        """[(blob id, record)] of at most `limit` blobs below `blob_id`, the newest first."""
        if self.reading is None:
            raise RuntimeError("the snapshot is closed")
        return read_blobs_before(self.reading, blob_id, limit)


cdef list read_blobs_before(Reading reading, uint64_t blob_id, Py_ssize_t limit):
    """[(blob id, record)] of at most `limit` blobs below `blob_id`, the newest first."""
    cdef void* cursor = reading.cursor(T_BLOB)
    cdef MDB_val key, value
    cdef Key k
    cdef list out = []
    cdef int rc
    k_id(&k, T_BLOB, blob_id)
    rc = mdb_cursor_get(cursor, &key, &value, MDB_PREV if seek(cursor, &k, 0, &key, &value) else MDB_LAST)
    while rc == 0 and len(out) < limit:
        if (<uint8_t*>key.mv_data)[0] != T_BLOB:
            if (<uint8_t*>key.mv_data)[0] < T_BLOB:
                break
        elif key.mv_size == 9:
            out.append((be64(<uint8_t*>key.mv_data + 1), value_bytes(&value)))
        rc = mdb_cursor_get(cursor, &key, &value, MDB_PREV)
    mdb_cursor_close(cursor)
    return out


cdef int oldest_of_line(const char* line, void* oldest) noexcept:
    """One line of mdb_reader_list, `pid thread transaction`; an idle reader has "-", the heading no digit."""
    cdef size_t n = strlen(line)
    cdef uint64_t number = 0, place = 1
    while n and line[n - 1] <= c" ":
        n -= 1
    if n == 0 or not c"0" <= line[n - 1] <= c"9":
        return 0
    while n and c"0" <= line[n - 1] <= c"9":
        number += place * <uint64_t>(line[n - 1] - c"0")
        place *= 10
        n -= 1
    if n and line[n - 1] == c" " and number < (<uint64_t*>oldest)[0]:
        (<uint64_t*>oldest)[0] = number
    return 0


cdef uint64_t reader_lag(Store store, uint64_t last_txn_id) noexcept:
    """How many transactions the oldest reader of any process is behind: what they freed cannot be used before it ends."""
    cdef uint64_t oldest = last_txn_id
    mdb_reader_list(store.s.env, oldest_of_line, &oldest)
    return last_txn_id - oldest


cdef uint64_t free_pages(Reading reading) except? 0:
    """Pages inside the file that later transactions will use before it grows."""
    cdef int64_t pages = pages_in_list(reading.txn)
    if pages < 0:
        raise StorageFailure("the list of free pages cannot be read")
    return pages


cdef Py_ssize_t blob_copy(Reading reading, uint64_t blob_id, uint64_t offset, char* out, Py_ssize_t n) except -2:
    """Copies up to n bytes of a blob from `offset`; -1 where the blob is gone."""
    cdef Key k
    cdef MDB_val key, value
    cdef BlobMeta meta
    cdef Py_ssize_t done = 0
    cdef size_t inside, length
    cdef uint64_t in_chunks
    cdef uint32_t chunk
    cdef const char* tail
    cdef void* cursor = NULL
    k_id(&k, T_BLOB, blob_id)
    if not reading.get(&k, &value):
        return -1
    memcpy(&meta, value.mv_data, sizeof(meta))
    if offset >= meta.size or n == 0:
        return 0
    if <uint64_t>n > meta.size - offset:
        n = <Py_ssize_t>(meta.size - offset)
    # Every chunk but the last is full: a body flushes whole chunks, and its rest begins the next.
    chunk = <uint32_t>(offset // CHUNK)
    inside = <size_t>(offset % CHUNK)
    in_chunks = meta.size - meta.tail_length
    tail = <const char*>value.mv_data + sizeof(meta)
    try:
        if offset < in_chunks:
            cursor = reading.cursor(T_BLOB)
        while done < n:
            if offset + done >= in_chunks:
                memcpy(out + done, tail + (offset + done - in_chunks), n - done)
                return n
            k_id_n(&k, T_BLOB, blob_id, chunk)
            if not seek(cursor, &k, k.n, &key, &value) or value.mv_size <= inside:
                return -1
            length = value.mv_size - inside
            if length > <size_t>(n - done):
                length = n - done
            memcpy(out + done, <char*>value.mv_data + inside, length)
            done += length
            chunk += 1
            inside = 0
    finally:
        if cursor != NULL:
            mdb_cursor_close(cursor)
    return done


cdef bytes part_of_message(Reading reading, const char* prefix, size_t prefix_length, uint64_t blob_id, uint64_t offset,
                           uint64_t length):
    """Bytes of a message whose prefix stands in front of its blob; None where the blob is gone."""
    cdef BlobMeta meta
    cdef Key k
    cdef MDB_val value
    cdef uint64_t size
    cdef Py_ssize_t from_prefix = 0, got
    cdef bytes out
    k_id(&k, T_BLOB, blob_id)
    if not reading.get(&k, &value):
        return None
    memcpy(&meta, value.mv_data, sizeof(meta))
    size = prefix_length + meta.size
    if offset >= size:
        return b""
    if length > size - offset:
        length = size - offset
    out = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>length)
    if offset < prefix_length:
        from_prefix = <Py_ssize_t>(prefix_length - offset if prefix_length - offset < length else length)
        memcpy(PyBytes_AS_STRING(out), prefix + offset, from_prefix)
    got = blob_copy(reading, blob_id, offset + from_prefix - prefix_length, PyBytes_AS_STRING(out) + from_prefix,
                    <Py_ssize_t>length - from_prefix)
    return out if got == <Py_ssize_t>length - from_prefix else None


def blob_read(Store store not None, uint64_t blob_id, uint64_t offset, uint64_t length):
    """Bytes of a blob, a copy; b"" at its end, None where it is gone."""
    return part_of_message(Reading(store), NULL, 0, blob_id, offset, length)


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
                           message.prefix_length, message.blob_id, offset, length)


def blob_meta(bytes record not None):
    """(refs, size, bits, chunks, digest, tail) of a blob's record; the tail stands behind the chunks."""
    cdef BlobMeta* meta = <BlobMeta*><char*>record
    if len(record) < <Py_ssize_t>sizeof(BlobMeta) or len(record) != <Py_ssize_t>sizeof(BlobMeta) + meta.tail_length:
        raise ValueError("not a blob's record")
    return meta.refs, meta.size, meta.bits, meta.chunks, meta.digest, record[sizeof(BlobMeta) :]


def digest_of(bytes data not None, uint64_t seed=0):
    """The chained digest of blobs: one chunk's, given the one of the chunk before."""
    return xxh64(<char*>data, len(data), seed)


def partition_of(bytes hop not None):
    """The partition by which slots share out next hops."""
    return crc32_of(hop, len(hop)) & 255
