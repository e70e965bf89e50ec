# What the committer's thread shares with the store.

cdef enum:
    INJECT_PUT = 1
    INJECT_DEL = 2
    INJECT_COMMIT = 3
    INJECT_BEGIN = 4
    MAX_UNITS = 256
    CRASH_APPEND = 1
    CRASH_COMMIT = 2
    SLICE_NS = 2000000  # of reaping at a time
    BUSY_SLICE_PAUSE_MS = 50  # between two slices while units keep coming
    READER_CHECK_MS = 60000
    MAX_PATIENCE_NS = 1000000
    SLICE_PAUSE_MS = 4  # between two slices of reaping while no units come: another process's writers get in
    MEEK_UNITS = 32  # of one transaction of a process that gives way
    MEEK_WEIGHT = 524288
    MEEK_SHARE = 8  # the part of a transaction's length that it pauses for while nobody else writes
    OTHERS_NS = 1000000000  # for so long somebody who wrote is taken to write on
    MEEK_PAUSE_NS = 20000000  # the longest pause

cdef enum:
    PROOFS = 16381  # blobs whose digests are being gathered, or were found right; a prime, 384 KB where all are in use
    DAMAGE_KEY = 64  # bytes of a key that are told

cdef extern from *:
    """
    #define PROVED 0xFFFFFFFFu
    """
    const uint32_t PROVED

cdef struct Proof:
    uint64_t blob_id
    uint64_t digest
    uint32_t chunk  # the next one, or PROVED

cdef struct StoreState:
    Calls calls
    void* env
    MapBounds map
    Proof proofs[PROOFS]
    MDB_dbi dbi[DATABASES]
    int event_fd
    int observed
    int failed
    int heal  # the committer has ended: the environment must be opened anew before anything else
    int stopping
    int damages  # of the committer, not told yet
    int damage_rc
    uint8_t damage_table
    size_t damage_length
    uint8_t damage_key[DAMAGE_KEY]
    int sleeping
    int reap_now  # somebody waits for all due trash to go
    int hurry  # the disk is low: all trash goes at once, however young
    int holds_fd  # asks who reads a blob: its own open file, for a process's locks do not meet themselves
    int volume_fd  # on the disk that the environment lies on
    uint64_t reserve  # bytes of that disk that new mail leaves free
    int64_t trash_delay_ms
    int64_t trash_due_ms  # the earliest row; may be early, never late for rows of our own
    int64_t reader_check_ms
    int64_t slice_ms  # when the last slice of reaping ended
    pthread_t thread
    pthread_mutex_t mutex
    pthread_cond_t wake
    pthread_cond_t finished
    CUnit* head
    CUnit* tail
    CUnit* done_head
    CUnit* done_tail
    int done_ready
    int journal_fd  # where the committer writes what it has committed; -1: nowhere
    int journal_errno  # why it does so no more
    uint64_t frames  # of this journal so far
    Buffer frame
    Buffer done_touched
    Buffer done_hops
    int pending
    int wake_at  # pending units that end the committer's sleep
    int company  # units expected at once, from what came during the last commits
    int64_t patience_ns  # how long a batch may wait for them: a commit's own length
    int gives_way  # a command beside a server: small transactions, and a pause after each for the others' writers
    int64_t others_ns  # when another process was last seen to have written
    int64_t spent_ns  # that the last transaction held the writers' lock
    int knows  # the newest level that is read and written here
    int level  # that records are written at: the one in `meta`
    int level_stale  # `meta` was written since it was looked at
    Buffer quota_rules  # as `meta` had them then
    int any_format  # an upgrade reads what other formats have left: nothing but plain records is read and written
    # figures
    uint64_t commits
    uint64_t units
    uint64_t own_txn_id
    uint64_t busy_ns
    uint64_t reaped
    uint64_t turned_away  # operations refused for the reserve
    uint64_t* cells
    int cell_seconds
    int cell_messages
    # tests
    int inject_kind
    int inject_after
    int inject_rc
    int crash_at
    int crash_after
