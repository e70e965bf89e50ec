"""Declarations of the store: stored records, units of work, and what other extensions may cimport.

Stored structs are packed, little-endian, and begin with a format byte; a msgspec tail may follow each. Keys are a table byte and
big-endian fixed-size fields, so that byte order is numeric order.
"""

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef struct MDB_val:
    size_t mv_size
    void* mv_data


# --- stored records ---

# A message is a head (octets in front of what came), cuts (ranges of what came that are not shown) and a body (what came).

cdef packed struct BlobMeta:  # then the cuts, the head, and the body's last bytes, where they would waste a page of their own
    uint8_t format
    uint8_t kept  # a mailbox has held it: what is read there may take its time, so it is reaped late
    uint8_t cuts  # each a start and an end in the body, uint32_t, in order
    uint8_t encoding  # of the chunks; 0: as it came
    uint32_t bits
    uint32_t refs
    uint32_t chunks
    uint64_t size  # of what is shown: the head, and the body less the cuts
    uint64_t stored_size  # of the body's chunks and last bytes
    uint64_t digest  # of the chunks, one after the other, and of all that stands behind this struct
    uint16_t head_length
    uint16_t tail_length
    uint32_t key  # of encryption; 0: none

cdef packed struct PendingRecord:
    uint8_t format
    uint8_t unused[3]
    uint32_t chunks
    uint64_t incarnation
    uint64_t size
    uint64_t digest

cdef packed struct QueueRecord:  # then the envelope
    uint8_t format
    uint8_t head  # which of the blob's heads; 0: its own
    uint8_t unused[2]
    uint32_t live
    uint64_t blob_id

cdef packed struct RecipientRecord:  # then hop, tail, last reply
    uint8_t format
    uint8_t state
    uint8_t lane
    uint8_t indexed
    uint32_t attempts
    int64_t due_ms
    uint16_t hop_length
    uint16_t reply_length
    uint32_t tail_length

cdef packed struct HopRecord:
    uint8_t format
    uint8_t unused[3]
    uint32_t active
    uint32_t deferred
    uint32_t held
    int64_t due_ms  # earliest of the schedule; NEVER where it has none

cdef packed struct MailboxRecord:  # then name, special use
    uint8_t format
    uint8_t unused
    uint16_t name_length
    uint16_t special_length
    uint16_t unused2
    uint32_t uid_validity
    uint32_t uid_next
    uint32_t recent_uid
    uint32_t exists
    uint32_t unseen
    uint32_t deleted
    uint32_t expunged_rows
    uint32_t unused3
    uint64_t modseq
    uint64_t floor_modseq
    uint64_t size
    uint64_t account_id

cdef packed struct MessageRecord:  # then keywords, prefix
    uint8_t format
    uint8_t head  # which of the blob's heads; 0: its own
    int16_t tz_minutes
    uint32_t flags
    uint32_t keywords_length
    uint32_t prefix_length
    uint64_t blob_id
    uint64_t modseq
    int64_t date_s
    uint64_t size  # of what is shown: the prefix, the head, and the body less the cuts
    int64_t saved_s  # when it came into this mailbox (RFC 8514)

cdef packed struct UsageRecord:
    uint8_t format
    uint8_t unused[3]
    uint32_t uid_validity  # the last one given out
    uint32_t list_version
    uint32_t unused2
    uint64_t bytes
    uint64_t messages
    uint64_t quota


# --- work in memory ---

cdef struct Buffer:
    char* data
    size_t length
    size_t capacity

cdef struct Body:  # a blob's bytes that are not in the store yet; owned by its Blob or, once flushed, by a unit
    uint64_t blob_id
    uint64_t incarnation
    uint32_t first_chunk
    uint32_t bits
    uint8_t cuts
    uint16_t head_length
    uint64_t cut_length  # of the cuts together
    Buffer front  # the cuts and the head, as the record has them
    Buffer bytes

cdef struct Op:
    uint32_t length  # with the variable parts, rounded up to 8
    uint8_t code
    uint8_t table
    uint8_t mode
    uint8_t state
    uint8_t from_state
    uint8_t lane
    int16_t tz_minutes
    uint32_t n
    uint32_t flags
    uint64_t a
    uint64_t b
    uint64_t c
    int64_t d
    int64_t e
    Body* body
    uint32_t part[6]  # lengths of the parts that follow

cdef struct CUnit:
    CUnit* next
    void* owner  # the Unit, a reference of its own while submitted
    Buffer ops
    Buffer results
    size_t weight
    int status
    int code
    int sync
    int fail_at  # test only: the n-th write of this unit fails
    int finished

cdef struct StoreState  # the part of a Store that the committer works on


cdef class Blob:
    cdef Store store
    cdef Body* body
    cdef readonly uint64_t blob_id
    cdef readonly uint64_t size  # of what is shown: the head, and the body less the cuts
    cdef readonly uint64_t body_size  # of what came so far
    cdef public uint32_t bits
    cdef public object on_drain
    cdef size_t in_flight
    cdef bint failed
    cdef bint streamed
    cdef bint used
    cdef list cuts  # [(start, end)], in order
    cdef list flying  # units with chunks that are not known to be committed
    cdef bint was_congested
    cdef object __weakref__
    cdef int write(self, const char* data, Py_ssize_t n) except -1
    cdef int put_head(self, const char* data, Py_ssize_t n) except -1
    cpdef int feed(self, data) except -1
    cpdef abandon(self)
    cdef int _compose_front(self) except -1
    cdef int _flush(self) except -1
    cdef int _discard(self) except -1


cdef class Unit:
    cdef Store store
    cdef CUnit* u
    cdef object callback
    cdef Waiter waiter
    cdef object first_blob
    cdef list more_blobs
    cdef Body* body
    cdef bint submitted
    cdef Op* _op(self, int code, bytes p0=*, bytes p1=*, bytes p2=*, bytes p3=*, bytes p4=*, bytes p5=*) except NULL
    cpdef int put_new(self, int table, bytes key, bytes value) except -1
    cpdef int put(self, int table, bytes key, bytes value) except -1
    cpdef int delete(self, int table, bytes key) except -1
    cpdef int guard(self, int table, bytes key, bytes value) except -1
    cpdef int count(self, bytes key, int64_t delta, int64_t ceiling) except -1
    cpdef int blob(self, Blob blob) except -1
    cpdef int ref(self, uint64_t blob_id, int delta) except -1
    cpdef int append(self, uint64_t mailbox_id, uint64_t blob_id, bytes prefix, uint32_t flags, bytes keywords,
                     int64_t internal_date_s, int tz_minutes, bytes structure) except -1
    cpdef int enqueue(self, uint64_t queue_id, uint64_t blob_id, bytes envelope) except -1
    cpdef int recipient(self, uint64_t queue_id, int n, bytes hop, int lane, int state, int64_t due_ms,
                        bytes tail) except -1
    cpdef int deliver(self, uint64_t mailbox_id, uint64_t blob_id, bytes prefix, uint32_t flags, bytes keywords,
                      int64_t internal_date_s, int tz_minutes, bytes structure, uint64_t queue_id, int n, bytes hop,
                      bytes tail, bytes envelope) except -1
    cpdef int move_recipient(self, uint64_t queue_id, int n, int from_state, int to_state, int attempts,
                             int64_t due_ms, bytes last_reply) except -1
    cpdef int reroute(self, uint64_t queue_id, int n, bytes hop, int lane) except -1
    cpdef int flags(self, uint64_t mailbox_id, bytes uids, int mode, uint32_t flags, bytes keywords,
                    int64_t unchanged_since) except -1
    cpdef int expunge(self, uint64_t mailbox_id, bytes uids, bint only_deleted) except -1
    cpdef int copy(self, uint64_t source_id, bytes uids, uint64_t target_id, bint move) except -1
    cpdef int take_recent(self, uint64_t mailbox_id) except -1
    cpdef int mailbox_new(self, uint64_t mailbox_id, uint64_t account_id, bytes name, bytes special_use,
                          int64_t now_s) except -1
    cpdef int mailbox_gone(self, uint64_t mailbox_id) except -1
    cpdef int mailbox_rename(self, uint64_t mailbox_id, bytes old_name, bytes new_name) except -1
    cpdef int mailbox_list_version(self, uint64_t account_id, uint32_t expected) except -1
    cpdef int quota(self, uint64_t account_id, uint64_t quota_bytes) except -1


cdef class Waiter:
    cdef int unit_done(self, Unit unit) except -1


cdef class Store:
    cdef StoreState* s
    cdef readonly int event_fd
    cdef readonly str path
    cdef readonly int slot
    cdef readonly uint64_t damages  # damaged places met since the start, each time counted
    cdef readonly str damage  # the first of them, "" for none
    cdef readonly uint64_t heals  # how often the environment was opened anew
    cdef public object on_damage
    cdef object _observer
    cdef size_t _map_size
    cdef bint _sync
    cdef int _readers  # reads beside the one that `_reader` serves
    cdef uint64_t _device
    cdef uint64_t _inode
    cdef uint64_t _incarnation
    cdef uint64_t _environment  # the number that every identifier of this store begins with
    cdef object _metrics
    cdef int _lock_fd
    cdef readonly object holds
    cdef uint64_t _next_id
    cdef uint64_t _end_id
    cdef uint64_t _spare_id
    cdef bint _reserving
    cdef size_t _pending_bytes
    cdef size_t _pending_limit
    cdef object _congested
    cdef void* _reader
    cdef bint _reading
    cdef CUnit* _free
    cdef int _free_count
    cdef object __weakref__
    cdef CUnit* _take_unit(self) except NULL
    cdef void _give_unit(self, CUnit* u) noexcept
    cdef int submit_c(self, Unit unit, Waiter waiter) except -1
    cdef int _let_go(self, Unit unit) except -1
    cdef int _submit(self, Unit unit, int sync) except -1
    cdef bint _lock(self, uint64_t incarnation, int command) except -1
    cdef int _stop_thread(self) except -1
    cdef int _run_thread(self) except -1
    cdef int _cannot_begin(self, int rc) except -1
    cdef int _close_environment(self) except -1
    cdef int _observe(self, Buffer* touched, Buffer* hops) except -1
    cdef void* _begin_read(self) except NULL
    cdef void _end_read(self, void* txn) noexcept
    cdef int _chunk_done(self, Blob blob, size_t n, bint ok) except -1
    cpdef uint64_t new_id(self) except 0
    cpdef Unit new_unit(self)
    cpdef Blob new_blob(self)
