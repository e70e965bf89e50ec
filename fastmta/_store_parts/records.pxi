# Tables, keys, checksums and growable buffers: what both the committer and the readers build on.

cdef enum:
    DB_BLOB = 0
    DB_QUEUE = 1
    DB_MAIL = 2
    DB_DIRECTORY = 3
    DATABASES = 4
    LEVEL = 4  # what this program writes, as `meta` says it; store/upgrade.py has the steps from the levels before
    SHARED_FROM = 2  # the oldest level whose stores this program serves as they are, beside programs of that level
    TRIAL_LEVEL = LEVEL + 1  # what tests take for the next program's: there usage records have a format of their own
    TRIAL_USAGE_FORMAT = 3
    USAGE_FORMAT = 2
    USAGE_BEFORE = 40  # octets of a usage record in format 1
    ACCOUNT_LEVEL = 4  # from which modseqs are the account's, and rows of expunged messages have their ids
    FORMAT = 1  # of the records that every level has had so far
    BLOB_FORMAT = 2
    MESSAGE_FORMAT = 2
    HOP_FORMAT = 2
    INDEXED_LEVEL = 3  # from which the queue's recipients are all in its indexes and counts, but for fresh ones
    TENANT_LEVEL = 4  # from which those by tenant are among them
    BESIDE_LEVEL = 4  # from which rows of retained mail and of names of POP3 are written: a program before leaves them behind
    PAGE = 4096
    TAIL_MAX = 1024  # bytes kept in a blob's record rather than in a page of their own
    RECORD_MAX = 2000  # of a blob with such bytes: a larger value would have a page of its own in any case
    ID_BITS = 48  # of an identifier's counter; above them the environment's number, 1 to 32,767, or 0 in old stores
    NOW_CHUNKS = 16  # of a blob that is deleted in the transaction that drops its last reference: 64 KB
    HOP_MAX = 200
    LANES = 3
    HELD_LANE = 4  # added to the lane of a held recipient's row in the schedule, which no owner reads
    COUNTED = 6  # active 1, deferred 2, held 3, messages 4, bytes 5
    MESSAGES = 4
    BYTES = 5
    COUNTS_AT = 8  # where they begin in QueueCounts

cdef enum Indexed:  # where a queued recipient's rows are
    NOWHERE = 0  # never tried, as level 2 leaves it
    INDEXED_BEFORE = 1  # in the indexes of level 2: by sender, domain and age
    FRESH = 2  # as it was accepted: in none of them, but counted at its hop, and where it is held in the schedule
    INDEXED = 3  # in all of them and in the counts but for those by tenant; where it is held, in the schedule too
    INDEXED_BY_TENANT = 7  # in these too

cdef enum:
    HAS_ROWS = 1  # the bit of an Indexed that says so: by sender, domain and age

cdef extern from *:
    """
    #define NEVER INT64_MAX
    """
    const int64_t NEVER

cdef inline int database_of(int table) noexcept nogil:
    if table == T_BLOB or table == T_PENDING or table == T_TRASH:
        return DB_BLOB
    if T_QUEUE <= table <= T_COUNTER or table == T_BY_ERROR or table == T_QUEUE_COUNT or table == T_BY_TENANT:
        return DB_QUEUE
    if table == T_MAILBOX or T_MESSAGE <= table <= T_CHANGE or table == T_USAGE or table == T_RETAINED or table == T_UIDL:
        return DB_MAIL
    return DB_DIRECTORY


cdef const char* database_name[DATABASES]
database_name[DB_BLOB] = b"blob"
database_name[DB_QUEUE] = b"queue"
database_name[DB_MAIL] = b"mail"
database_name[DB_DIRECTORY] = b"directory"
DATABASE_NAMES = (b"blob", b"queue", b"mail", b"directory")
DATABASE_OF = tuple([DATABASE_NAMES[database_of(table)] for table in range(TABLES)])
STORE_LEVEL = LEVEL
OLDEST_SERVED_LEVEL = SHARED_FROM
ID_COUNTER_BITS = ID_BITS
HEAD_BYTES = HEAD_MAX
CUTS = CUTS_MAX
TABLE_BLOB = T_BLOB
TABLE_QUEUE = T_QUEUE
TABLE_SCHEDULE = T_SCHEDULE
TABLE_HOP = T_HOP
TABLE_HOP_STATE = T_HOP_STATE
TABLE_QUEUE_BY_SENDER = T_BY_SENDER
TABLE_QUEUE_BY_DOMAIN = T_BY_DOMAIN
TABLE_QUEUE_BY_AGE = T_BY_AGE
TABLE_COUNTER = T_COUNTER
TABLE_MAILBOX = T_MAILBOX
TABLE_MAILBOX_NAME = T_MAILBOX_NAME
TABLE_MESSAGE = T_MESSAGE
TABLE_ENVELOPE = T_ENVELOPE
TABLE_CHANGE = T_CHANGE
TABLE_ACCOUNT = T_ACCOUNT
TABLE_ACCOUNT_NAME = T_ACCOUNT_NAME
TABLE_SUBSCRIPTION = T_SUBSCRIPTION
TABLE_USAGE = T_USAGE
TABLE_ALIAS = T_ALIAS
TABLE_PENDING = T_PENDING
TABLE_TRASH = T_TRASH
TABLE_META = T_META
TABLE_DKIM_KEY = T_DKIM_KEY
TABLE_ANNOTATION = T_ANNOTATION
TABLE_CREDENTIAL = T_CREDENTIAL
TABLE_QUEUE_BY_ERROR = T_BY_ERROR
TABLE_QUEUE_COUNT = T_QUEUE_COUNT
TABLE_ACL = T_ACL
TABLE_ACL_INDEX = T_ACL_INDEX
TABLE_RETAINED = T_RETAINED
TABLE_UIDL = T_UIDL
TABLE_QUEUE_BY_TENANT = T_BY_TENANT
COUNTS_BY_RECIPIENT = BY_RECIPIENT
COUNTS_BY_SENDER = BY_SENDER
COUNTS_BY_TENANT = BY_TENANT
CHUNK_BYTES = CHUNK
TABLE_NAMES = ("root", "blob", "queue", "schedule", "hop", "hop_state", "queue_by_sender", "queue_by_domain", "queue_by_age",
               "counter", "mailbox", "mailbox_name", "message", "envelope", "change", "account", "account_name",
               "subscription", "usage", "alias", "pending", "trash", "meta", "dkim_key", "annotation", "credential",
               "queue_by_error", "queue_count", "acl", "acl_index", "retained", "queue_by_tenant", "uidl")


cdef struct Key:
    size_t n
    uint8_t b[KEY_MAX + 1]


cdef inline void k_start(Key* k, int table) noexcept nogil:
    k.b[0] = <uint8_t>table
    k.n = 1


# Every composition below stays under KEY_MAX: fixed fields take at most 35 bytes, and hops (200), names and paths (440) are
# bounded where they enter; k_bytes cuts rather than overruns.

cdef inline void k_u8(Key* k, uint8_t value) noexcept nogil:
    k.b[k.n] = value
    k.n += 1


cdef inline void k_u32(Key* k, uint32_t value) noexcept nogil:
    cdef int i
    for i in range(4):
        k.b[k.n + i] = <uint8_t>(value >> (24 - 8 * i))
    k.n += 4


cdef inline void k_u64(Key* k, uint64_t value) noexcept nogil:
    cdef int i
    for i in range(8):
        k.b[k.n + i] = <uint8_t>(value >> (56 - 8 * i))
    k.n += 8


cdef inline void k_bytes(Key* k, const void* data, size_t n) noexcept nogil:
    if n > KEY_MAX - 32 - k.n:
        n = KEY_MAX - 32 - k.n
    memcpy(k.b + k.n, data, n)
    k.n += n


cdef inline uint32_t be32(const uint8_t* p) noexcept nogil:
    return (<uint32_t>p[0] << 24) | (<uint32_t>p[1] << 16) | (<uint32_t>p[2] << 8) | p[3]


cdef inline uint64_t be64(const uint8_t* p) noexcept nogil:
    return (<uint64_t>be32(p) << 32) | be32(p + 4)


cdef inline void k_id(Key* k, int table, uint64_t number) noexcept nogil:
    k_start(k, table)
    k_u64(k, number)


cdef inline void k_id_n(Key* k, int table, uint64_t number, uint32_t n) noexcept nogil:
    k_start(k, table)
    k_u64(k, number)
    k_u32(k, n)


cdef inline void k_change(Key* k, uint64_t mailbox_id, int expunged, uint64_t modseq, uint32_t uid) noexcept nogil:
    k_start(k, T_CHANGE)
    k_u64(k, mailbox_id)
    k_u8(k, <uint8_t>expunged)
    k_u64(k, modseq)
    k_u32(k, uid)


cdef inline void k_schedule(Key* k, const char* hop, size_t hop_length, int lane) noexcept nogil:
    """The part of a schedule key that one lane of one hop shares."""
    k_start(k, T_SCHEDULE)
    k_u8(k, <uint8_t>hop_length)
    k_bytes(k, hop, hop_length)
    k_u8(k, <uint8_t>lane)


cdef inline void k_hop_state(Key* k, const char* hop, size_t hop_length) noexcept nogil:
    k_start(k, T_HOP_STATE)
    k_bytes(k, hop, hop_length)


# --- checksums ---

cdef uint32_t[256] crc_table


cdef void _fill_crc_table() noexcept nogil:
    cdef uint32_t value
    cdef int i, bit
    for i in range(256):
        value = i
        for bit in range(8):
            value = (value >> 1) ^ 0xEDB88320u if value & 1 else value >> 1
        crc_table[i] = value


_fill_crc_table()


cdef inline uint32_t crc32_of(const char* data, size_t n) noexcept nogil:
    """The same as zlib.crc32: a hop's partition is its low byte."""
    cdef uint32_t value = 0xFFFFFFFFu
    cdef size_t i
    for i in range(n):
        value = crc_table[(value ^ <uint8_t>data[i]) & 0xFF] ^ (value >> 8)
    return ~value


cdef extern from *:
    """
    #define P1 0x9E3779B185EBCA87ull
    #define P2 0xC2B2AE3D27D4EB4Full
    #define P3 0x165667B19E3779F9ull
    #define P4 0x85EBCA77C2B2AE63ull
    #define P5 0x27D4EB2F165667C5ull
    """
    const uint64_t P1, P2, P3, P4, P5


cdef inline uint64_t rotl(uint64_t value, int n) noexcept nogil:
    return (value << n) | (value >> (64 - n))


cdef inline uint64_t load64(const uint8_t* p) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, p, 8)
    return value


cdef inline uint64_t xx_round(uint64_t lane, uint64_t word) noexcept nogil:
    return rotl(lane + word * P2, 31) * P1


cdef uint64_t xxh64(const void* data, size_t n, uint64_t seed) noexcept nogil:
    """XXH64 of `data` on a little-endian machine: it detects damage, nobody's malice."""
    cdef const uint8_t* p = <const uint8_t*>data
    cdef const uint8_t* end = p + n
    cdef uint64_t a, b, c, d, h
    cdef uint32_t word
    if n >= 32:
        a = seed + P1 + P2
        b = seed + P2
        c = seed
        d = seed - P1
        while end - p >= 32:
            a = xx_round(a, load64(p))
            b = xx_round(b, load64(p + 8))
            c = xx_round(c, load64(p + 16))
            d = xx_round(d, load64(p + 24))
            p += 32
        h = rotl(a, 1) + rotl(b, 7) + rotl(c, 12) + rotl(d, 18)
        h = (h ^ xx_round(0, a)) * P1 + P4
        h = (h ^ xx_round(0, b)) * P1 + P4
        h = (h ^ xx_round(0, c)) * P1 + P4
        h = (h ^ xx_round(0, d)) * P1 + P4
    else:
        h = seed + P5
    h += n
    while end - p >= 8:
        h = rotl(h ^ xx_round(0, load64(p)), 27) * P1 + P4
        p += 8
    if end - p >= 4:
        memcpy(&word, p, 4)
        h = rotl(h ^ (word * P1), 23) * P2 + P3
        p += 4
    while p < end:
        h = rotl(h ^ (p[0] * P5), 11) * P1
        p += 1
    h = (h ^ (h >> 33)) * P2
    h = (h ^ (h >> 29)) * P3
    return h ^ (h >> 32)
