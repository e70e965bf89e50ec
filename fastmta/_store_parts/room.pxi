# The disk's reserve (queue_minfree): what brings new mail is refused before the disk is full, so that deleting, and the results
# of deliveries, can still be written. docs/adr/0006.
#
# A look at the disk gives an allowance that units then spend; there is no system call a unit.

cdef extern from "<sys/statvfs.h>" nogil:
    struct c_statvfs "statvfs":
        unsigned long f_frsize
        unsigned long f_bavail
    int fstatvfs(int, c_statvfs*)

cdef enum:
    LOOK_NS = 100000000  # a look is this old at most, since others write to the disk too
    LOOK_BYTES = 1 << 20  # and so much was allowed since, at most
    FLOOR_PART = 4  # of the reserve, one part: what the disk itself keeps, however much is free inside of the file
    OVERHEAD = 2 * PAGE  # of a blob's records, about

MINFREE_FLOOR = 1.0 / FLOOR_PART


cdef int64_t pages_in_list(StoreState* s, void* txn) noexcept nogil:
    """Pages inside the file that later transactions use before it grows; a row each transaction that freed some. <0: an error."""
    cdef void* cursor
    cdef MDB_val key, value
    cdef int64_t count, pages = 0
    # 0: LMDB's own list of free pages, its length in front
    cdef int rc = fm_cursor_open(<void*>s.calls.cursor_open, txn, 0, &cursor)
    if rc:
        return -1
    key.mv_size = 0
    key.mv_data = NULL
    rc = fm_cursor_own(<void*>s.calls.cursor_get, cursor, &key, &value, MDB_FIRST)
    while rc == 0 and value.mv_size >= 8:
        memcpy(&count, value.mv_data, 8)
        pages += count
        key.mv_size = 0  # these keys are numbers, in another order than that of bytes
        rc = fm_cursor_own(<void*>s.calls.cursor_get, cursor, &key, &value, MDB_NEXT)
    s.calls.cursor_close(cursor)
    return pages if rc == MDB_NOTFOUND else -1


cdef int64_t free_inside(StoreState* s) noexcept nogil:
    """Bytes of free pages inside the file, as the committer sees them; 0 where that cannot be told."""
    cdef void* txn = NULL
    cdef int64_t pages
    if fm_begin(<void*>s.calls.txn_begin, s.env, MDB_RDONLY, &txn):
        return 0
    pages = pages_in_list(s, txn)
    s.calls.txn_abort(txn)
    return pages * PAGE if pages > 0 else 0


cdef void look_at_disk(StoreState* s, Txn* t, int64_t now_ns) noexcept nogil:
    """Renews the allowance where the last look is old or well spent; between two transactions."""
    cdef c_statvfs disk
    cdef int64_t free_bytes, spare, room
    cdef int64_t reserve = t.reserve
    if reserve == 0:
        t.room = t.spare = NEVER
        t.looked_reserve = 0
        return
    if reserve == t.looked_reserve and t.looked_spare - t.spare < LOOK_BYTES and now_ns - t.looked_ns < LOOK_NS:
        return
    t.looked_reserve = reserve
    t.looked_ns = now_ns
    if fstatvfs(s.volume_fd, &disk):
        t.room = t.spare = t.looked_spare = NEVER  # the commit itself will tell
        return
    free_bytes = <int64_t>(disk.f_bavail * disk.f_frsize)
    spare = free_bytes - reserve // FLOOR_PART
    room = free_bytes - reserve
    if room < <int64_t>MAX_WEIGHT:
        room += free_inside(s)
    t.room = room if room < spare else spare
    t.spare = t.looked_spare = spare


cdef bint may_grow(Txn* t, int64_t n) noexcept nogil:
    """Whether n bytes may be added, and takes them from the allowance.

    A bounce may use all but the floor, and so may a copy: what happened to a recipient has to be recorded, and many clients
    delete by copying to Trash.
    """
    cdef Op* first = <Op*>t.unit.ops.data
    n += OVERHEAD
    if n > (t.spare if first.code == OP_MOVE or first.code == OP_COPY else t.room):
        t.s.hurry = 1
        t.s.turned_away += 1
        return False
    t.room -= n
    t.spare -= n
    return True
