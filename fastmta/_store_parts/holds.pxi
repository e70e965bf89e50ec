# Who reads a message's bytes: the trash leaves them alone meanwhile.

@cython.final
cdef class Holds:
    """The blobs that this process reads. A hold is a lock on the blob's number in the file of writers' locks (both come from
    one counter), seen by the reapers of all processes; the kernel lets go on death."""

    cdef int fd
    cdef dict held

    def __init__(self, int fd):
        self.fd = fd
        self.held = {}

    def take(self, uint64_t blob_id):
        """Keeps a blob's bytes; for each, `release` once. StorageFailure."""
        count = self.held.get(blob_id, 0)
        if count == 0:
            self._lock(blob_id, F_RDLCK)
        self.held[blob_id] = count + 1

    def release(self, uint64_t blob_id):
        """One reader less."""
        count = self.held.get(blob_id, 0)
        if count > 1:
            self.held[blob_id] = count - 1
        elif count:
            del self.held[blob_id]
            self._lock(blob_id, F_UNLCK)

    def close(self):
        """The store is closed: the locks have gone with its file."""
        self.fd = -1

    cdef int _lock(self, uint64_t blob_id, int kind) except -1:
        cdef flock lock
        memset(&lock, 0, sizeof(lock))
        lock.l_type = <short>kind
        lock.l_start = <long>(blob_id & 0x3FFFFFFFFFFFFFFFull)
        lock.l_len = 1
        if self.fd >= 0 and fcntl(self.fd, F_OFD_SETLK_, &lock) < 0:
            raise StorageFailure("cannot lock a message that is being read")
        return 0


cdef bint is_held(StoreState* s, uint64_t blob_id) noexcept nogil:
    """Whether somebody reads this blob, in whatever process."""
    cdef flock lock
    if s.holds_fd < 0:
        return False
    memset(&lock, 0, sizeof(lock))
    lock.l_type = F_WRLCK
    lock.l_start = <long>(blob_id & 0x3FFFFFFFFFFFFFFFull)
    lock.l_len = 1
    return fcntl(s.holds_fd, F_OFD_GETLK_, &lock) == 0 and lock.l_type != F_UNLCK
