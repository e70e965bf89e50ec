"""Units of work: the closed list of operations, packed, without pointers; and the engine that carries them out.

A unit is a buffer of `Op`s with their parts, and the bodies that its BLOB and CHUNKS bring. It says all that it does, so that it can
be written down (`Unit.pack`) and carried out elsewhere. And the face of reading rows: who gives them, and who takes them.
Known to sessions, to _imap and to the store; it knows none of them, nor LMDB.
"""

from libc.stdint cimport int16_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

cdef enum OpCode:  # a number keeps its meaning for ever: journals hold them
    OP_PUT_NEW = 1
    OP_PUT = 2
    OP_DELETE = 3
    OP_GUARD = 4
    OP_COUNT = 5
    OP_BLOB = 6
    OP_REF = 7
    OP_APPEND = 8
    OP_ENQUEUE = 9
    OP_RECIPIENT = 10
    OP_DELIVER = 11
    OP_MOVE = 12
    OP_FLAGS = 13
    OP_EXPUNGE = 14
    OP_COPY = 15
    OP_TAKE_RECENT = 16
    OP_MAILBOX_NEW = 17
    OP_MAILBOX_GONE = 18
    OP_MAILBOX_RENAME = 19
    OP_LIST_VERSION = 20
    OP_QUOTA = 21
    OP_REROUTE = 22
    OP_CHUNKS = 23
    OP_ABANDON = 24
    OP_FAIL = 25
    OP_INDEX = 26
    OP_LIST_CHANGED = 27
    OP_MOVE_EACH = 28
    OP_RELEASE = 29
    OP_UIDL = 30

cdef enum:
    OP_CODES = 31

cdef enum Table:  # a key begins with its number
    T_BLOB = 1          # blob id -> BlobMeta; blob id, chunk -> bytes
    T_QUEUE = 2         # queue id -> QueueRecord, envelope; queue id, n -> RecipientRecord, hop, tail, reply
    T_SCHEDULE = 3      # length and hop, lane, due, queue id, n -> nothing
    T_HOP = 4           # partition, earliest due, hop -> nothing
    T_HOP_STATE = 5     # hop -> HopRecord
    T_BY_SENDER = 6     # reverse path, 0, queue id, n -> nothing
    T_BY_DOMAIN = 7     # domain, 0, queue id, n -> nothing
    T_BY_AGE = 8        # received at, queue id, n -> nothing
    T_COUNTER = 9       # name -> int64
    T_MAILBOX = 10      # mailbox id -> MailboxRecord, name, special use
    T_MAILBOX_NAME = 11  # account id, name -> mailbox id
    T_MESSAGE = 12      # mailbox id, uid -> MessageRecord, keywords, prefix
    T_ENVELOPE = 13     # mailbox id, uid -> structure
    T_CHANGE = 14       # mailbox id, 0 changed or 1 expunged, modseq, uid -> nothing; of an expunged one blob id, digest of its prefix
    T_ACCOUNT = 15      # account id -> record
    T_ACCOUNT_NAME = 16  # address -> account id
    T_SUBSCRIPTION = 17  # account id, name -> nothing
    T_USAGE = 18        # account id -> UsageRecord
    T_ALIAS = 19        # address -> record
    T_PENDING = 20      # blob id -> PendingRecord
    T_TRASH = 21        # due, kind, number -> blob ids, or nothing where the number is a mailbox id
    T_META = 22         # name -> value
    T_DKIM_KEY = 23     # domain, 0, selector -> record
    T_ANNOTATION = 24   # account id, mailbox id or 0, entry -> value
    T_CREDENTIAL = 25   # account id, kind, name -> record
    T_BY_ERROR = 26     # last reply, 0, queue id, n -> nothing
    T_QUEUE_COUNT = 27  # nothing -> QueueCounts; kind, domain or tenant, 0, minute of arrival -> CountRecord
    T_ACL = 28          # account id of the owner, mailbox id -> record
    T_ACL_INDEX = 29    # who, account id of the owner, mailbox id -> nothing
    T_RETAINED = 30     # account id, when it was expunged, mailbox id, uid -> RetainedRecord; account id -> RetainedTotals
    T_BY_TENANT = 31    # tenant, 0, queue id, n -> nothing
    T_UIDL = 32         # mailbox id, uid -> what POP3 calls the message, where that came with it
    TABLES = 33

cdef enum Code:  # what an operation, and a unit, comes to
    DONE = 0
    POISONED = -1  # the whole transaction must be given up
    REFUSE_EXISTS = 1
    REFUSE_MISSING = 2
    REFUSE_CHANGED = 3
    REFUSE_QUOTA = 4
    REFUSE_STATE = 5
    REFUSE_LIMIT = 6
    FAIL_FULL = 7
    FAIL_IO = 8
    FAIL_DAMAGED = 9

cdef enum:
    CHUNK = 4064  # a page less LMDB's header and 16 octets for the tag of an encryption: any free page will do
    KEY_MAX = 511
    HEAD_MAX = 3500  # with the cuts a blob's record still fits in a page
    CUTS_MAX = 64
    BODY_MEMORY = 262144  # what a blob keeps in memory before its chunks commit as they come
    BLOB_IN_FLIGHT = 1048576  # of one blob, handed to the committer and not committed yet
    MAX_WEIGHT = 4194304  # of one operation, and of the units of one transaction
    LIST_WEIGHT = 256  # of one uid in FLAGS or EXPUNGE, in bytes: it bounds what one transaction does
    COPY_WEIGHT = 1024  # and in COPY
    UIDL_MAX = 70  # RFC 1939 §7
    RETAINED_KEY = 20  # when it was expunged (seconds), mailbox id, uid, big-endian, as they stand in keys behind the account's id
    MOVE_KEY = 12  # queue id and n, big-endian, as they stand in keys
    MOVE_WEIGHT = 4096  # of one recipient in MOVE_EACH, which changes some ten rows
    UNITS_KEPT = 256  # of those that are done, for the next ones

cdef struct Buffer:
    char* data
    size_t length
    size_t capacity

cdef struct Body:  # a blob's bytes that are not in the store yet; owned by its Blob and, once it was given to one, by a unit
    uint64_t blob_id
    uint64_t incarnation
    uint32_t first_chunk
    uint32_t bits
    uint8_t cuts
    uint8_t whole  # the end of a blob, as opposed to chunks that come before it
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
    uint32_t n  # of a recipient; of BLOB, CHUNKS and FAIL: which of the unit's bodies
    uint32_t flags
    uint64_t a
    uint64_t b
    uint64_t c
    int64_t d
    int64_t e
    uint32_t part[6]  # lengths of the parts that follow

cdef struct CUnit:
    CUnit* next
    void* owner  # the Unit, a reference of its own while submitted
    Buffer ops
    Buffer bodies  # Body*, which it owns
    Buffer results
    size_t weight
    int status
    int code
    int sync
    int fail_at  # test only: the n-th write of this unit fails
    int finished

cdef packed struct PackedUnit:  # then the ops, and for each body a PackedBody, its front, its bytes
    uint32_t magic
    uint32_t bodies
    uint64_t ops_length

cdef packed struct PackedBody:
    uint64_t blob_id
    uint64_t incarnation
    uint32_t first_chunk
    uint32_t bits
    uint8_t cuts
    uint8_t whole
    uint16_t head_length
    uint32_t front_length
    uint64_t cut_length
    uint64_t bytes_length


# --- growable buffers ---

cdef inline int buffer_room(Buffer* buffer, size_t n) noexcept nogil:
    """Room for n more bytes; -1 without memory."""
    cdef size_t capacity
    cdef char* data
    if buffer.capacity - buffer.length >= n:
        return 0
    capacity = buffer.capacity * 2 if buffer.capacity else 512
    while capacity - buffer.length < n:
        capacity *= 2
    data = <char*>realloc(buffer.data, capacity)
    if data == NULL:
        return -1
    buffer.data = data
    buffer.capacity = capacity
    return 0


cdef inline int buffer_add(Buffer* buffer, const void* data, size_t n) noexcept nogil:
    if n == 0:  # `data` may be NULL then, which memcpy must not be given
        return 0
    if buffer_room(buffer, n) < 0:
        return -1
    memcpy(buffer.data + buffer.length, data, n)
    buffer.length += n
    return 0


cdef inline void buffer_free(Buffer* buffer) noexcept nogil:
    free(buffer.data)
    buffer.data = NULL
    buffer.length = buffer.capacity = 0


# --- a unit's memory ---

cdef enum Status:  # of a unit
    PENDING_ = 0
    COMMITTED_ = 1
    REFUSED_ = 2
    FAILED_ = 3

cdef int require_key(int table, bytes key) except -1

cdef inline Body* unit_body(CUnit* u, const Op* op) noexcept nogil:
    """The body that an operation brings; the builder has put it there."""
    return (<Body**>u.bodies.data)[op.n]

cdef void unit_free_bodies(CUnit* u) noexcept nogil
cdef int unit_pack(CUnit* u, Buffer* out) noexcept nogil


cdef class Engine
cdef class Unit
cdef class Waiter


cdef class Blob:
    cdef Engine engine
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
    cpdef int spill(self) except -1
    cdef int _flush(self) except -1


cdef class Unit:
    cdef Engine engine
    cdef CUnit* u
    cdef object callback
    cdef Waiter waiter
    cdef bint submitted
    cdef readonly Py_ssize_t answers  # results that the operations so far will give
    cdef int _own(self, Op* op, Body* body) except -1
    cdef Op* _op(self, int code, bytes p0=*, bytes p1=*, bytes p2=*, bytes p3=*, bytes p4=*, bytes p5=*) except NULL
    cpdef int put_new(self, int table, bytes key, bytes value) except -1
    cpdef int put(self, int table, bytes key, bytes value) except -1
    cpdef int delete(self, int table, bytes key) except -1
    cpdef int guard(self, int table, bytes key, bytes value) except -1
    cpdef int count(self, bytes key, int64_t delta, int64_t ceiling) except -1
    cpdef int blob(self, Blob blob) except -1
    cdef int abandon(self, uint64_t blob_id) except -1
    cpdef int ref(self, uint64_t blob_id, int delta) except -1
    cpdef int append(self, uint64_t mailbox_id, uint64_t blob_id, bytes prefix, uint32_t flags, bytes keywords,
                     int64_t internal_date_s, int tz_minutes, bytes structure) except -1
    cpdef int enqueue(self, uint64_t queue_id, uint64_t blob_id, bytes envelope, bint goes_on=*) except -1
    cpdef int recipient(self, uint64_t queue_id, int n, bytes hop, int lane, int state, int64_t due_ms,
                        bytes tail) except -1
    cpdef int deliver(self, uint64_t mailbox_id, uint64_t blob_id, bytes prefix, uint32_t flags, bytes keywords,
                      int64_t internal_date_s, int tz_minutes, bytes structure, uint64_t queue_id, int n, bytes hop,
                      bytes tail, bytes envelope, bint reports=*) except -1
    cpdef int move_recipient(self, uint64_t queue_id, int n, int from_state, int to_state, int attempts,
                             int64_t due_ms, bytes last_reply) except -1
    cpdef int index_recipient(self, uint64_t queue_id, int n) except -1
    cpdef int move_each(self, bytes keys, int from_states, int64_t due_ms, int to_state) except -1
    cpdef int reroute(self, uint64_t queue_id, int n, bytes hop, int lane) except -1
    cpdef int flags(self, uint64_t mailbox_id, bytes uids, int mode, uint32_t flags, bytes keywords,
                    int64_t unchanged_since, uint32_t kept=*) except -1
    cpdef int expunge(self, uint64_t mailbox_id, bytes uids, bint only_deleted, bint required=*, uint64_t retained=*) except -1
    cpdef int release(self, uint64_t account_id, bytes keys, bint required=*) except -1
    cpdef int copy(self, uint64_t source_id, bytes uids, uint64_t target_id, bint move, uint32_t lost=*) except -1
    cpdef int take_recent(self, uint64_t mailbox_id) except -1
    cpdef int uidl(self, uint64_t mailbox_id, bytes text) except -1
    cpdef int mailbox_new(self, uint64_t mailbox_id, uint64_t account_id, bytes name, bytes special_use,
                          int64_t now_s) except -1
    cpdef int mailbox_gone(self, uint64_t mailbox_id) except -1
    cpdef int mailbox_rename(self, uint64_t mailbox_id, bytes old_name, bytes new_name) except -1
    cpdef int mailbox_list_version(self, uint64_t account_id, uint32_t expected) except -1
    cpdef int mailbox_list_changed(self, uint64_t account_id) except -1
    cpdef int quota(self, uint64_t account_id, uint64_t quota_bytes, uint32_t quota_messages=*) except -1


cdef class Waiter:
    cdef int unit_done(self, Unit unit) except -1


cdef class Engine:
    """What carries units out. `Store` is the one that there is; it has two homes for its records, LMDB and memory."""
    cdef size_t pending_bytes  # of all blobs, handed over and not committed yet
    cdef size_t pending_limit
    cdef set congested
    cdef CUnit* _free
    cdef int _free_count
    cdef CUnit* take_unit(self) except NULL
    cdef void give_unit(self, CUnit* u) noexcept
    cdef int chunk_done(self, Blob blob, size_t n, bint ok) except -1
    cdef int let_go(self, Unit unit, bint stopping) except -1
    cpdef Unit new_unit(self)
    cpdef uint64_t new_id(self) except 0
    cpdef Blob new_blob(self)
    cpdef Unit unpack(self, const unsigned char[::1] packed)
    cdef int submit_c(self, Unit unit, Waiter waiter) except -1
    cdef Py_ssize_t read_pending(self, uint64_t blob_id, uint64_t offset, char* out, Py_ssize_t n) except -2


# --- rows: what an engine hands out of a mailbox, without an object for each ---

cdef enum:
    ROWS = 32  # of one block

cdef struct Row:  # of a message, as it lies in the store: its pointers are good until RowSink.take returns
    Py_ssize_t index  # among those that were asked for
    uint32_t number  # the caller's, which came with the uid
    uint32_t uid
    uint32_t flags
    int tz_minutes
    int64_t date_s
    int64_t saved_s  # 0: not known
    uint64_t modseq
    uint64_t size  # of what is shown
    uint64_t blob_id
    const char* keywords
    size_t keywords_length
    const char* prefix
    size_t prefix_length
    const char* structure  # where the sink wants it
    size_t structure_length

cdef struct Beginning:  # of what is shown behind the prefix, as far as it lies in one piece; as long-lived as a Row
    const char* head
    size_t head_length
    const char* body  # NULL where it has cuts
    size_t body_length
    uint64_t size  # of head and body, as they are shown
    bint whole  # `body` is all of it


cdef class RowSource:
    """Where rows come from, in one short snapshot: what they do not hold can be asked for meanwhile. StoreDamaged."""
    cdef int begin(self, const Row* row, Beginning* out) except -1
    cdef int read(self, const Row* row, uint64_t offset, char* out, size_t n) except -1
    cdef int read_all(self, const Row* row, Buffer* out) except -1
    cdef uint64_t digest(self, const char* data, size_t n) noexcept
    cdef int wrong_structure(self, const Row* row) except -1


cdef class RowSink:
    """Who takes rows."""
    cdef readonly bint wants_structure
    cdef readonly int block  # rows that are gathered before `take`; ROWS at most
    cdef int take(self, RowSource source, const Row* rows, int count) except -1
    cdef Py_ssize_t stopped_at(self) noexcept
