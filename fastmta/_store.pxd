"""Declarations of the store: stored records. Units, the abstract engine and the face of rows are _unit's.

Stored structs are packed, little-endian, and begin with a format byte; a msgspec tail may follow each. Keys are a table byte and
big-endian fixed-size fields, so that byte order is numeric order.
"""

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from fastmta._unit cimport Blob, Buffer, CUnit, Engine, Unit, Waiter


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
    uint8_t counted  # in QueueCounts: its message and bytes
    uint8_t unused
    uint32_t live
    uint64_t blob_id

cdef packed struct RecipientRecord:  # then hop, tail, last reply
    uint8_t format
    uint8_t state
    uint8_t lane
    uint8_t indexed  # an Indexed
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
    uint32_t fresh  # of the active and held: in no index yet. From here on format 2
    uint32_t unused2

cdef packed struct QueueCounts:
    uint8_t format
    uint8_t unused[7]
    int64_t active
    int64_t deferred
    int64_t held
    int64_t messages
    int64_t bytes

cdef packed struct CountRecord:  # recipients of a domain whose messages came in one minute, by state
    uint8_t format
    uint8_t unused[3]
    uint32_t count[3]

cdef packed struct MailboxRecord:  # then name, special use
    uint8_t format
    uint8_t has_uidls  # some of its messages may have rows of T_UIDL
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

cdef packed struct RetainedRecord:  # then the mailbox's name, and the message's record as it was, with keywords and prefix
    uint8_t format
    uint8_t unused
    uint16_t name_length
    uint32_t unused2

cdef packed struct RetainedTotals:  # of an account
    uint8_t format
    uint8_t unused[7]
    uint64_t messages
    uint64_t bytes  # as they are charged: RETAINED_OVERHEAD for each beside its size

cdef packed struct UsageRecord:
    uint8_t format
    uint8_t settled  # no mailbox of the account has a modseq above this one's, and floor_modseq is right
    uint8_t unused[2]
    uint32_t uid_validity  # the last one given out
    uint32_t list_version
    uint32_t quota_messages  # 0 in records of programs that had none
    uint64_t bytes
    uint64_t messages
    uint64_t quota
    uint64_t modseq  # of the last change in any of its mailboxes. From here on format 2
    uint64_t floor_modseq  # what was expunged up to there is not known any more: its mailbox is gone

cdef packed struct QuotaRules:  # then a QuotaRule with its name for each mailbox that has one
    uint8_t format
    uint8_t unused[3]
    uint32_t messages  # what accounts may hold that have no limit of their own; 0: no limit
    uint64_t bytes

cdef packed struct QuotaRule:  # then the mask of a mailbox's name
    uint8_t kind
    uint8_t unused
    uint16_t name_length
    uint32_t unused2
    int64_t bytes  # more, or less, than the account's limit
    int64_t messages

cdef struct StoreState  # the part of a Store that the committer works on


cdef class Store(Engine):
    cdef StoreState* s
    cdef readonly int event_fd
    cdef readonly str path
    cdef readonly int slot
    cdef readonly bint in_memory
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
    cdef uint64_t _free_pages  # when they were counted last,
    cdef size_t _free_txn_id   # after this transaction, and
    cdef int64_t _free_until_ns  # by the monotonic clock, until when that must do
    cdef int _lock_fd
    cdef int _level_fd  # of the lock that says what levels are known to who has the store open
    cdef readonly object holds
    cdef uint64_t _next_id
    cdef uint64_t _end_id
    cdef uint64_t _spare_id
    cdef bint _reserving
    cdef void* _reader
    cdef bint _reading
    cdef object __weakref__
    cdef int _submit(self, Unit unit, int sync) except -1
    cdef bint _lock(self, uint64_t incarnation, int command) except -1
    cdef int _stop_thread(self) except -1
    cdef int _run_thread(self) except -1
    cdef int _cannot_begin(self, int rc) except -1
    cdef int _close_environment(self) except -1
    cdef uint64_t _count_free_pages(self, size_t last_txn_id) except? 0
    cdef int _observe(self, Buffer* touched, Buffer* hops) except -1
    cdef void* _begin_read(self) except NULL
    cdef void _end_read(self, void* txn) noexcept
