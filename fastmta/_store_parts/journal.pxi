# The journal: each transaction that units made, written down after its commit and before anybody is answered; and the way back.
#
# A frame is a batch: its time, and the units that were carried out, packed. Carried out again, by `replay`, on a store that was equal
# before, it gives an equal store, since an operation reads no clock, no disk and no chance: what it may know of them is in the frame. The trash
# is emptied by each store for itself.

cdef enum:
    FRAME_MAGIC = 0x314A4D46  # "FMJ1"
    MISFIT = -31010  # a unit of a frame was refused


cdef packed struct Frame:  # then the units: the length of each, uint64_t, and the unit
    uint32_t magic
    uint32_t units
    uint64_t number  # frames of one journal count from 1
    uint64_t length  # of what follows
    int64_t now_ms
    uint64_t digest  # of this struct with 0 here, and of what follows


FRAME_HEAD_BYTES = sizeof(Frame)


cdef uint64_t frame_digest(Frame* head, const void* rest) noexcept nogil:
    cdef Frame bare = head[0]
    bare.digest = 0
    return xxh64(rest, bare.length, xxh64(&bare, sizeof(bare), 0))


cdef int frame_pack(StoreState* s, Txn* t, CUnit** units, int n) noexcept nogil:
    """Puts the frame of a batch together; how many units it holds, -1 without memory."""
    cdef Buffer* out = &s.frame
    cdef Frame head
    cdef uint64_t length
    cdef size_t at
    cdef int i
    memset(&head, 0, sizeof(head))
    out.length = 0
    if buffer_add(out, &head, sizeof(head)) < 0:
        return -1
    for i in range(n):
        if units[i].status != COMMITTED_:
            continue
        at = out.length
        if buffer_add(out, &length, 8) < 0 or unit_pack(units[i], out) < 0:
            return -1
        length = out.length - at - 8
        memcpy(out.data + at, &length, 8)
        head.units += 1
    head.magic = FRAME_MAGIC
    head.number = s.frames + 1
    head.length = out.length - sizeof(head)
    head.now_ms = t.now_ms
    head.digest = frame_digest(&head, out.data + sizeof(head))
    memcpy(out.data, &head, sizeof(head))
    return <int>head.units


cdef void journal_batch(StoreState* s, Txn* t, CUnit** units, int n) noexcept nogil:
    """Writes a committed batch into the journal; one that cannot be written ends the journal, and mail goes on."""
    cdef size_t done = 0
    cdef ssize_t taken
    n = frame_pack(s, t, units, n)
    if n == 0:  # all were refused, after writes that were taken back
        return
    if n < 0:
        s.journal_errno = ENOMEM
    while s.journal_errno == 0 and done < s.frame.length:
        taken = write(s.journal_fd, s.frame.data + done, s.frame.length - done)
        if taken > 0:
            done += taken
        elif errno != EINTR:
            s.journal_errno = errno if errno else EIO
    if s.journal_errno:
        s.journal_fd = -1
        return
    s.frames += 1
    if s.frame.capacity > MAX_WEIGHT:
        buffer_free(&s.frame)


cdef Frame frame_head(const unsigned char[::1] frame) except *:
    """The head of a whole frame. ValueError where it is none."""
    cdef Frame head
    memset(&head, 0, sizeof(head))
    if frame.shape[0] < <Py_ssize_t>sizeof(head):
        raise ValueError("a frame of a journal has a head of 40 octets")
    memcpy(&head, &frame[0], sizeof(head))
    if head.magic != FRAME_MAGIC or not 0 < head.units <= MAX_UNITS:
        raise ValueError("this is no frame of a journal")
    return head


def frame_fields(const unsigned char[::1] frame not None):
    """(number, octets of the whole frame) from the beginning of a frame. ValueError."""
    cdef Frame head = frame_head(frame)
    return head.number, sizeof(head) + head.length


cdef int replay_frame(Store self, const unsigned char[::1] frame) except -1:
    """Carries one frame out, in one transaction and with its time: all of it or nothing. ValueError, StorageFailure."""
    cdef Frame head = frame_head(frame)
    cdef CUnit* units[MAX_UNITS]
    cdef StoreState* s = self.s
    cdef Unit unit
    cdef Txn t
    cdef uint64_t length
    cdef Py_ssize_t at = sizeof(head)
    cdef list kept = []
    cdef int n = 0
    cdef int rc
    if <uint64_t>(frame.shape[0] - at) != head.length or frame_digest(&head, &frame[0] + at) != head.digest:
        raise ValueError("a frame of a journal was cut or damaged")
    while at < frame.shape[0]:
        if frame.shape[0] - at < 8 or n == <int>head.units:
            raise ValueError("a frame of a journal is longer than it says")
        memcpy(&length, &frame[0] + at, 8)
        at += 8
        if length > <uint64_t>(frame.shape[0] - at):
            raise ValueError("a unit of a journal was cut")
        unit = self.unpack(frame[at : at + <Py_ssize_t>length])
        unit.submitted = True
        kept.append(unit)
        units[n] = unit.u
        n += 1
        at += <Py_ssize_t>length
    if n != <int>head.units:
        raise ValueError("a frame of a journal is shorter than it says")
    if s.heal:
        open_anew(self)
    if s.env == NULL or s.failed or s.heal:
        raise StorageFailure("the store is closed")
    memset(&t, 0, sizeof(t))
    t.s = s
    t.room = t.spare = NEVER
    t.replayed_ms = head.now_ms
    with nogil:
        rc = batch_try(s, &t, units, n)
        txn_release(&t)
    if rc == MISFIT:
        raise StorageFailure(f"frame {head.number} of the journal does not fit this store")
    if rc:
        if is_fatal(rc) or is_healed(rc):
            s.failed = rc
        raise StorageFailure(read_error(rc))
    return 0
