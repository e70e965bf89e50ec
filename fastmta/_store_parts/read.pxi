# Reads: each in one short transaction that is renewed for it, and none of them hands out memory of the map.

cdef extern from "Python.h":
    object PyBytes_FromStringAndSize(const char*, Py_ssize_t)
    char* PyBytes_AS_STRING(object)


cdef enum:
    CURSORS = 4  # of one read, at most


cdef inline bytes value_bytes(MDB_val* value):
    return PyBytes_FromStringAndSize(<const char*>value.mv_data, <Py_ssize_t>value.mv_size)


@cython.final
@cython.no_gc_clear  # its end needs the store
cdef class Reading:
    """One read transaction, for as long as this object is alive; kept inside one call. It closes the cursors left open."""

    cdef Store store
    cdef void* txn
    cdef MapBounds* map
    cdef size_t txn_id
    cdef void* opened[CURSORS]
    cdef int cursors
    cdef bint trusts  # what is handed out of a blob has just come: its digest is not made

    def __cinit__(self, Store store not None):
        self.store = store
        self.map = &store.s.map
        self.txn = store._begin_read()
        self.txn_id = store.s.calls.txn_id(self.txn)

    def __dealloc__(self):
        if self.txn != NULL:
            while self.cursors:
                self.cursors -= 1
                self.store.s.calls.cursor_close(self.opened[self.cursors])
            self.store._end_read(self.txn)

    cdef void* cursor(self, int table) except NULL:
        cdef void* cursor = NULL
        cdef Key k
        cdef int rc
        if self.cursors >= CURSORS:
            raise RuntimeError("too many cursors in one read")
        rc = fm_cursor_open(<void*>self.store.s.calls.cursor_open, self.txn, self.store.s.dbi[database_of(table)], &cursor)
        if rc:
            k_start(&k, table)
            self.failed(rc, &k)
        self.opened[self.cursors] = cursor
        self.cursors += 1
        return cursor

    cdef void close_last(self) noexcept:
        """Closes the cursor that was opened last."""
        self.cursors -= 1
        self.store.s.calls.cursor_close(self.opened[self.cursors])

    cdef int failed(self, int rc, Key* k) except -1:
        """Raises what LMDB's error means; k is the place that was sought. Cold, where this thread wants hot bytes alone."""
        if rc == FM_COLD:
            raise Cold([(fm_cold_at, fm_cold_length)])
        if is_damage(rc):
            raise_damage(self.store, rc, k.b[0], k.b + 1, k.n - 1)
        raise StorageFailure(read_error(rc))

    cdef bint get(self, Key* k, MDB_val* value) except -1:
        cdef MDB_val key
        cdef int rc
        key.mv_size = k.n
        key.mv_data = k.b
        rc = fm_get(<void*>self.store.s.calls.get, self.map, self.txn_id, database_name[database_of(k.b[0])], self.txn,
                    self.store.s.dbi[database_of(k.b[0])], &key, value)
        if rc == 0:
            if not record_fits(self.store.s.knows, k.b[0], k.n, value.mv_data, value.mv_size) and not self.store.s.any_format:
                self.failed(unfit(self.store.s.knows, k.b[0], k.n, value.mv_data, value.mv_size), k)
            return True
        if rc == MDB_NOTFOUND:
            return False
        self.failed(rc, k)


cdef inline bint arrived(Reading reading, int rc, Key* k, size_t prefix, MDB_val* key, MDB_val* value) except -1:
    """Whether a step of a cursor came to a record that shares k's first `prefix` bytes."""
    cdef const uint8_t* at
    if rc:
        if rc == MDB_NOTFOUND:
            return False
        reading.failed(rc, k)
    at = <const uint8_t*>key.mv_data
    if key.mv_size < prefix or memcmp(at, k.b, prefix) != 0:
        return False
    if not record_fits(reading.store.s.knows, at[0], key.mv_size, value.mv_data, value.mv_size) and not reading.store.s.any_format:
        raise_damage(reading.store, unfit(reading.store.s.knows, at[0], key.mv_size, value.mv_data, value.mv_size), at[0], at + 1, key.mv_size - 1)
    return True


cdef inline int step(Reading reading, void* cursor, int table, MDB_val* key, MDB_val* value, int op) noexcept:
    return fm_cursor(<void*>reading.store.s.calls.cursor_get, reading.map, reading.txn_id, database_name[database_of(table)], cursor, key, value, op)


cdef inline bint seek(Reading reading, void* cursor, Key* k, size_t prefix, MDB_val* key, MDB_val* value) except -1:
    """To the first record at or after k that shares its first `prefix` bytes."""
    key.mv_size = k.n
    key.mv_data = k.b
    return arrived(reading, step(reading, cursor, k.b[0], key, value, MDB_SET_RANGE), k, prefix, key, value)


cdef inline bint following(Reading reading, void* cursor, Key* k, size_t prefix, MDB_val* key, MDB_val* value) except -1:
    """To the record behind `key`, which is where the cursor stands."""
    return arrived(reading, step(reading, cursor, k.b[0], key, value, MDB_NEXT), k, prefix, key, value)


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
    more = seek(reading, cursor, &first, 1, &key, &value)
    while (more and len(out) < limit and key.mv_size >= wanted.n
           and memcmp(key.mv_data, wanted.b, wanted.n) == 0):
        out.append((PyBytes_FromStringAndSize(<char*>key.mv_data + 1, key.mv_size - 1), value_bytes(&value)))
        more = following(reading, cursor, &wanted, 1, &key, &value)
    reading.close_last()
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
    cdef bint more
    k_id(&k, T_BLOB, blob_id)
    more = seek(reading, cursor, &k, 0, &key, &value)
    more = arrived(reading, step(reading, cursor, T_BLOB, &key, &value, MDB_PREV if more else MDB_LAST), &k, 0, &key, &value)
    while more and len(out) < limit:
        if (<uint8_t*>key.mv_data)[0] != T_BLOB:
            if (<uint8_t*>key.mv_data)[0] < T_BLOB:
                break
        elif key.mv_size == 9:
            out.append((be64(<uint8_t*>key.mv_data + 1), value_bytes(&value)))
        more = arrived(reading, step(reading, cursor, T_BLOB, &key, &value, MDB_PREV), &k, 0, &key, &value)
    reading.close_last()
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
    store.s.calls.reader_list(store.s.env, oldest_of_line, &oldest)
    return last_txn_id - oldest


cdef uint64_t free_pages(Reading reading) except? 0:
    """Pages inside the file that later transactions will use before it grows."""
    cdef int64_t pages = pages_in_list(reading.store.s, reading.txn)
    if pages < 0:
        raise StorageFailure("the list of free pages cannot be read")
    return pages


def hot(call not None):
    """What `call`, which reads, gives while this thread does not wait for the disk; Cold where it would. Of reads that take `hot`
    themselves it says nothing."""
    cdef int before = fm_only_hot(True)
    try:
        return call()
    finally:
        fm_only_hot(before)


def digest_of(bytes data not None, uint64_t seed=0):
    """The chained digest of blobs: one chunk's, given the one of the chunk before."""
    return xxh64(<char*>data, len(data), seed)


def partition_of(bytes hop not None):
    """The partition by which slots share out next hops."""
    return crc32_of(hop, len(hop)) & 255
