# A mailbox's rows, given in blocks to whoever writes what a protocol says of them.

cdef enum:
    ROWS_A_CALL = 4000  # looked at by one call of give_rows: of messages that are gone there may be many


@cython.final
cdef class Rows(RowSource):
    """The source of one call: one read transaction, and its cursor over blobs."""
    cdef Reading reading
    cdef void* blobs
    cdef uint64_t mailbox_id

    cdef int open_blob(self, const Row* row, BlobView* view, MDB_val* key) except -1:
        """The blob's record, with the cursor on it and on `key`."""
        cdef Key k
        cdef MDB_val value
        if self.blobs == NULL:
            self.blobs = self.reading.cursor(T_BLOB)
        k_id(&k, T_BLOB, row.blob_id)
        if not seek(self.reading, self.blobs, &k, 9, key, &value) or key.mv_size != 9:
            self.reading.failed(FM_DISORDER, &k)
        view_of(view, row.blob_id, &value)
        if not view_fits(view) or row.prefix_length + view.meta.size != row.size:
            self.reading.failed(FM_DISORDER, &k)
        return 0

    cdef int disorder(self, const Row* row) except -1:
        cdef Key k
        k_id(&k, T_BLOB, row.blob_id)
        self.reading.failed(FM_DISORDER, &k)

    cdef int begin(self, const Row* row, Beginning* out) except -1:
        cdef BlobView view
        cdef Key k
        cdef MDB_val key, value
        self.open_blob(row, &view, &key)
        out.head = view.head
        out.head_length = view.meta.head_length
        out.size = view.meta.size
        out.body = NULL
        out.body_length = 0
        out.whole = False
        if view.meta.cuts:
            return 0
        out.body = view.tail
        out.body_length = view.meta.tail_length
        if view.meta.chunks:
            k_id(&k, T_BLOB, row.blob_id)
            if not following(self.reading, self.blobs, &k, 9, &key, &value):
                self.disorder(row)
            out.body = <const char*>value.mv_data
            out.body_length = value.mv_size
        out.whole = out.body_length == view.meta.stored_size
        return 0

    cdef int read(self, const Row* row, uint64_t offset, char* out, size_t n) except -1:
        cdef BlobView view
        cdef MDB_val key
        self.open_blob(row, &view, &key)
        if shown_copy(self.reading, &view, offset, out, <Py_ssize_t>n) != <Py_ssize_t>n:
            self.disorder(row)
        return 0

    cdef int read_all(self, const Row* row, Buffer* out) except -1:
        cdef Key k
        cdef MDB_val key, value
        cdef BlobView view
        cdef size_t body = out.length
        cdef uint32_t i
        cdef Proof* proof
        cdef int failed
        self.open_blob(row, &view, &key)
        failed = buffer_room(out, row.size + 1) or buffer_add(out, row.prefix, row.prefix_length)
        if failed:
            return 1
        if view.meta.cuts:
            if shown_copy(self.reading, &view, 0, out.data + out.length, <Py_ssize_t>view.meta.size) < 0:
                self.disorder(row)
            out.length += view.meta.size
            return 0
        k_id(&k, T_BLOB, row.blob_id)
        proof = proof_at(self.reading.store.s, row.blob_id, 0)
        failed = buffer_add(out, view.head, view.meta.head_length)
        for i in range(view.meta.chunks):
            if (not following(self.reading, self.blobs, &k, 9, &key, &value)
                    or out.length - body + value.mv_size + view.meta.tail_length > row.size):
                self.disorder(row)
            failed |= buffer_add(out, value.mv_data, value.mv_size)
            proof_chunk(proof, i, &value)
        failed |= buffer_add(out, view.tail, view.meta.tail_length)
        if failed:
            return 1
        if out.length - body != row.size:
            self.disorder(row)
        if not proof_end(proof, &view):
            tell_unlike(self.reading.store, row.blob_id)
        return 0

    cdef uint64_t digest(self, const char* data, size_t n) noexcept:
        return xxh64(data, n, 0) if n else 0

    cdef int wrong_structure(self, const Row* row) except -1:
        cdef Key k
        k_id_n(&k, T_ENVELOPE, self.mailbox_id, row.uid)
        self.reading.failed(FM_DISORDER, &k)


cdef inline void row_of(Row* row, MDB_val* value) noexcept nogil:
    """The value has been found to fit."""
    cdef MessageRecord message
    memcpy(&message, value.mv_data, sizeof(message))
    row.flags = message.flags
    row.tz_minutes = message.tz_minutes
    row.date_s = message.date_s
    row.saved_s = message.saved_s
    row.modseq = message.modseq
    row.size = message.size
    row.blob_id = message.blob_id
    row.keywords = <const char*>value.mv_data + sizeof(message)
    row.keywords_length = message.keywords_length
    row.prefix = row.keywords + message.keywords_length
    row.prefix_length = message.prefix_length


def give_rows(Store store not None, uint64_t mailbox_id, numbers, uids, Py_ssize_t start, RowSink sink not None, bint hot=False):
    """Gives `sink` the rows of uids[start:], each with its number, and the index that the next call begins with.

    It ends where the sink has enough, after ROWS_A_CALL, or before a row that is damaged; StoreDamaged where that is the first.
    With `hot` it ends before what is not in memory too; Cold where that is the first. A message that is gone is passed over.
    """
    cdef int before = fm_only_hot(hot)
    try:
        return rows_given(store, mailbox_id, numbers, uids, start, sink)
    finally:
        fm_only_hot(before)


cdef Py_ssize_t rows_given(Store store, uint64_t mailbox_id, numbers, uids, Py_ssize_t start, RowSink sink) except -1:
    cdef const unsigned int[::1] given = numbers
    cdef const unsigned int[::1] wanted = uids
    cdef Py_ssize_t count = min(given.shape[0], wanted.shape[0])
    cdef Py_ssize_t i = start
    cdef Py_ssize_t stop, first
    cdef Walk messages, structures
    cdef Rows source = Rows.__new__(Rows)
    cdef Row rows[ROWS]
    cdef Row* row
    cdef int filled, taken, block
    cdef object error
    if start < 0:
        raise ValueError("start is negative")
    block = min(max(sink.block, 1), ROWS)
    source.reading = Reading(store)
    source.mailbox_id = mailbox_id
    walk_start(&messages, source.reading, T_MESSAGE, mailbox_id)
    if sink.wants_structure:
        walk_start(&structures, source.reading, T_ENVELOPE, mailbox_id)
    stop = min(count, start + ROWS_A_CALL)
    while i < stop:
        filled = 0
        error = None
        try:
            while i < stop and filled < block:
                if walk_to(&messages, wanted[i]):
                    row = &rows[filled]
                    row.index = i
                    row.number = given[i]
                    row.uid = wanted[i]
                    row_of(row, &messages.value)
                    if sink.wants_structure:
                        if not walk_to(&structures, wanted[i]):
                            source.wrong_structure(row)
                        row.structure = <const char*>structures.value.mv_data
                        row.structure_length = structures.value.mv_size
                    filled += 1
                i += 1
        except (StoreDamaged, Cold) as failure:
            error = failure
        if filled:
            first = rows[0].index
            try:
                taken = sink.take(source, rows, filled)
            except (StoreDamaged, Cold):
                first = sink.stopped_at()
                if first == start:
                    raise
                return first  # those before it are told; the next call begins with it
            if taken < filled:
                return rows[taken - 1].index + 1 if taken else first
        if error is not None:
            if i == start:
                raise error
            return i
    return i
