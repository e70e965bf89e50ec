# Reading pages that may be damaged. LMDB has no checksums and trusts what it finds: a wild offset in a page is a wild pointer,
# a page behind the end of a file that was cut is SIGBUS, an impossible page is abort().
#
# So every step of a read is taken behind a guard: a fault inside of it comes back as FAULT, an error like any other. What a step
# gives is looked at before anybody else touches it: it lies in a page of the right kind, inside of the file, and in order. The
# guard costs a dozen instructions (__builtin_setjmp), and no lock is held while LMDB reads, so that leaving it half-way is safe.
# A write is guarded too, but a transaction that faulted can only be thrown away with its thread (committer.pxi, `heal`).

cdef extern from *:
    """
    static inline int fm_in_order(const fm_val *before, const fm_val *key, int op)
    {
        size_t n = before->mv_size < key->mv_size ? before->mv_size : key->mv_size;
        int order;
        if (op != 8 && op != 12 && op != 17)
            return 1;
        order = memcmp(key->mv_data, before->mv_data, n);
        if (order == 0)
            order = (key->mv_size > before->mv_size) - (key->mv_size < before->mv_size);
        return op == 12 ? order < 0 : op == 8 ? order > 0 : order >= 0;
    }

    static inline int fm_touch(const fm_val *value)
    {
        size_t step;
        if (value->mv_size > (size_t)1 << 32)
            return 0;
        for (step = 0; step < value->mv_size; step += 4096)
            (void)*((const volatile char *)value->mv_data + step);
        return 1;
    }

    typedef int (*fm_get_function)(void *, unsigned, void *, void *);
    typedef int (*fm_put_function)(void *, unsigned, void *, void *, unsigned);
    typedef int (*fm_cursor_function)(void *, void *, void *, int);
    typedef int (*fm_begin_function)(void *, void *, unsigned, void *);
    typedef int (*fm_open_function)(void *, unsigned, void *);
    typedef int (*fm_dbi_function)(void *, const char *, unsigned, void *);
    typedef int (*fm_function)(void *);

    #define FM_GUARDED(expression) FM_GUARDED_AS(expression, FM_FAULT)
    #define FM_GUARDED_AS(expression, fault) \\
        void *volatile buffer[5]; \\
        volatile int rc; \\
        if (__builtin_setjmp((void **)buffer)) \\
            return fault; \\
        fm_guard = buffer; \\
        rc = (expression);

    static __attribute__((noinline)) int fm_get(void *get, MapBounds *map, size_t txnid, const char *name, void *txn,
                                                unsigned dbi, void *key, void *value)
    {
        const fm_val *sought = key, *found = value;
        FM_GUARDED(fm_hot_only && map->base != NULL
                           && (fm_way_is_cold(map, txnid, name, sought->mv_data, sought->mv_size)
                               || fm_value_is_cold(map, sought->mv_data, sought->mv_size))
                       ? FM_COLD : ((fm_get_function)get)(txn, dbi, key, value))
        if (map->base == NULL) { /* records in memory have no pages */
            fm_guard = NULL;
            return rc;
        }
        if (rc == 0 ? !fm_sound(map, NULL, value)
                          || (found->mv_size && !fm_leaf_seen(map, found->mv_data)
                              && !fm_way_fits(map, txnid, name, sought->mv_data, sought->mv_size))
                    : rc == FM_NOTFOUND && !fm_way_fits(map, txnid, name, sought->mv_data, sought->mv_size))
            rc = FM_DISORDER;
        fm_guard = NULL;
        return rc;
    }

    static inline int fm_on_page(MapBounds *map, const void *key)
    {
        const char *at = key;
        size_t place = (size_t)(at - map->base);
        return at >= map->base + 24 && (place & (map->page - 1)) >= 24 && (place < map->bytes || fm_grown(map, place + 1));
    }

    /* Whether a step comes to a leaf that is not in memory. Of the steps from record to record only one from a leaf's last does. */
    static inline int fm_step_is_cold(MapBounds *map, size_t txnid, const char *name, const fm_val *key, int op)
    {
        const char *page;
        unsigned lower;
        if (op == 8) {
            if (!fm_on_page(map, key->mv_data))
                return 0;
            page = (const char *)key->mv_data - ((size_t)((const char *)key->mv_data - map->base) & (map->page - 1));
            lower = fm_u16(page + 12);
            if (lower < 18 || lower > map->page || page + fm_u16(page + lower - 2) + 8 != (const char *)key->mv_data)
                return 0;
        } else if (op != 17) {
            return 0;
        }
        return fm_way_is_cold(map, txnid, name, key->mv_data, key->mv_size)
               || fm_behind_is_cold(map, txnid, name, key->mv_data, key->mv_size, op);
    }

    /* A step that waits for no disk. LMDB touches a value that has pages of its own
       when it is asked for it, so it is asked for the key alone. */
    static int fm_cursor_hot(void *get, MapBounds *map, size_t txnid, const char *name, void *cursor, void *key, void *value,
                             int op)
    {
        const fm_val *found = key;
        fm_val *data = value;
        const char *node;
        size_t number;
        int rc;
        if (fm_step_is_cold(map, txnid, name, found, op))
            return FM_COLD;
        rc = ((fm_cursor_function)get)(cursor, key, NULL, op);
        if (rc)
            return rc;
        if (!fm_on_page(map, found->mv_data))
            return FM_DISORDER;
        node = (const char *)found->mv_data - 8;
        number = fm_value_apart(node, &data->mv_size);
        if (number == 0) {
            data->mv_data = (void *)(node + 8 + found->mv_size);
            return 0;
        }
        if (number >= map->bytes / map->page && !fm_grown(map, (number + 1) * map->page))
            return FM_DISORDER;
        data->mv_data = (void *)(map->base + number * map->page + 16);
        return fm_hot(map, data->mv_data, data->mv_size) ? 0 : FM_COLD;
    }

    /* op: MDB_NEXT and MDB_PREV from `key`, MDB_SET_RANGE at or after it. */
    static __attribute__((noinline)) int fm_cursor(void *get, MapBounds *map, size_t txnid, const char *name, void *cursor,
                                                   void *key, void *value, int op)
    {
        const fm_val before = *(fm_val *)key, *found = key;
        FM_GUARDED(fm_hot_only && map->base != NULL ? fm_cursor_hot(get, map, txnid, name, cursor, key, value, op)
                                                    : ((fm_cursor_function)get)(cursor, key, value, op))
        if (map->base == NULL) {
            fm_guard = NULL;
            return rc;
        }
        if (rc == 0) {
            if (!fm_sound(map, key, value) || !fm_in_order(&before, key, op)
                || (!fm_leaf_seen(map, found->mv_data) && !fm_way_fits(map, txnid, name, found->mv_data, found->mv_size)))
                rc = FM_DISORDER;
        }
        if ((rc == 0 && op == 17 && (found->mv_size != before.mv_size || memcmp(found->mv_data, before.mv_data, before.mv_size)))
            || rc == FM_NOTFOUND)
            if (before.mv_size && !fm_way_fits(map, txnid, name, before.mv_data, before.mv_size))
                rc = FM_DISORDER;
        fm_guard = NULL;
        return rc;
    }

    /* Steps and says whether the value is in memory, which is not touched. Its place: `fm_cold_at`, if it is not. */
    static __attribute__((noinline)) int fm_place(void *get, MapBounds *map, size_t txnid, const char *name, void *cursor,
                                                  void *key, int op, int *is_cold)
    {
        const fm_val before = *(fm_val *)key, *found = key;
        FM_GUARDED(map->base == NULL ? FM_NOTFOUND
                   : fm_step_is_cold(map, txnid, name, &before, op)
                       ? FM_COLD : ((fm_cursor_function)get)(cursor, key, NULL, op))
        *is_cold = rc == 0 && fm_on_page(map, found->mv_data) && fm_node_is_cold(map, (const char *)found->mv_data - 8);
        fm_guard = NULL;
        return rc;
    }

    /* In a write transaction a page may lie in LMDB's own memory: what is found there is only touched. */
    static __attribute__((noinline)) int fm_get_own(void *get, void *txn, unsigned dbi, void *key, void *value)
    {
        FM_GUARDED(((fm_get_function)get)(txn, dbi, key, value))
        if (rc == 0 && !fm_touch(value))
            rc = FM_DISORDER;
        fm_guard = NULL;
        return rc;
    }

    static __attribute__((noinline)) int fm_cursor_own(void *get, void *cursor, void *key, void *value, int op)
    {
        const fm_val before = *(fm_val *)key;
        FM_GUARDED(((fm_cursor_function)get)(cursor, key, value, op))
        if (rc == 0 && (!fm_touch(value) || ((fm_val *)key)->mv_size - 1 > 510 || !fm_in_order(&before, key, op)))
            rc = FM_DISORDER;
        fm_guard = NULL;
        return rc;
    }

    static __attribute__((noinline)) int fm_put(void *put, void *txn, unsigned dbi, void *key, void *value)
    {
        FM_GUARDED_AS(((fm_put_function)put)(txn, dbi, key, value, 0), FM_TORN)
        fm_guard = NULL;
        return rc;
    }

    static __attribute__((noinline)) int fm_del(void *del, void *txn, unsigned dbi, void *key)
    {
        FM_GUARDED_AS(((fm_get_function)del)(txn, dbi, key, NULL), FM_TORN)
        fm_guard = NULL;
        return rc;
    }

    static __attribute__((noinline)) int fm_call(void *function, void *argument)
    {
        FM_GUARDED_AS(((fm_function)function)(argument), FM_TORN)
        fm_guard = NULL;
        return rc;
    }

    static __attribute__((noinline)) int fm_begin(void *begin, void *env, unsigned flags, void *txn)
    {
        FM_GUARDED_AS(((fm_begin_function)begin)(env, NULL, flags, txn), FM_TORN)
        fm_guard = NULL;
        return rc;
    }

    static __attribute__((noinline)) int fm_open(void *open, void *txn, const char *name, unsigned flags, void *dbi)
    {
        FM_GUARDED_AS(((fm_dbi_function)open)(txn, name, flags, dbi), FM_TORN)
        fm_guard = NULL;
        return rc;
    }

    static __attribute__((noinline)) int fm_cursor_open(void *open, void *txn, unsigned dbi, void *cursor)
    {
        FM_GUARDED(((fm_open_function)open)(txn, dbi, cursor))
        fm_guard = NULL;
        return rc;
    }
    """
    ctypedef struct MapBounds:
        const char* base
        size_t bytes
        size_t page
        size_t pages
        unsigned long* seen
        int fd
    const int FM_FAULT
    const int FM_DISORDER
    const int FM_TORN
    const int FM_FORMAT
    const int FM_COLD
    int fm_only_hot(int) noexcept nogil
    int fm_cold_ahead(MapBounds*, const char*, size_t*, int) noexcept nogil
    unsigned int fm_maps
    size_t fm_cold_at
    size_t fm_cold_length
    int fm_place(void*, MapBounds*, size_t, const char*, void*, void*, int, int*) noexcept nogil
    int fm_install() nogil
    const char* fm_leaf_of(MapBounds*, const void*, unsigned int*) noexcept nogil
    int fm_beside(MapBounds*, const char*, unsigned int*, void*, void*) noexcept nogil
    void fm_on_assert(void*, const char*) noexcept nogil
    int fm_get(void*, MapBounds*, size_t, const char*, void*, unsigned int, void*, void*) noexcept nogil
    int fm_cursor(void*, MapBounds*, size_t, const char*, void*, void*, void*, int) noexcept nogil
    int fm_get_own(void*, void*, unsigned int, void*, void*) noexcept nogil
    int fm_cursor_own(void*, void*, void*, void*, int) noexcept nogil
    int fm_put(void*, void*, unsigned int, void*, void*) noexcept nogil
    int fm_del(void*, void*, unsigned int, void*) noexcept nogil
    int fm_call(void*, void*) noexcept nogil
    int fm_begin(void*, void*, unsigned int, void*) noexcept nogil
    int fm_open(void*, void*, const char*, unsigned int, void*) noexcept nogil
    int fm_cursor_open(void*, void*, unsigned int, void*) noexcept nogil


cdef bint is_damage(int rc) noexcept nogil:
    """What was read cannot be right, as opposed to a lack of memory, disk or readers."""
    return (rc == FM_FAULT or rc == FM_DISORDER or rc == FM_FORMAT or rc == FM_TORN or rc == MDB_CORRUPTED or rc == MDB_PAGE_NOTFOUND or rc == MDB_BAD_TXN
            or rc == MDB_CURSOR_FULL or rc == MDB_INVALID or rc == MDB_BAD_VALSIZE or rc == MDB_BAD_DBI
            or rc == MDB_INCOMPATIBLE or rc == EINVAL)


cdef str read_error(int rc):
    if rc == FM_FAULT or rc == FM_TORN:
        return "a page leads outside of the file, or is no page of this table"
    if rc == FM_FORMAT:
        return "a record has a format that this program does not know"
    if rc == FM_DISORDER:
        return "a record does not lie where its page says, or has the wrong size or order"
    return lmdb_error(rc)


cdef enum:
    HOP_BEFORE = sizeof(HopRecord) - 8  # of the first format


cdef inline size_t hop_size(int format) noexcept nogil:
    return sizeof(HopRecord) if format == HOP_FORMAT else HOP_BEFORE


cdef inline size_t rest_length(const BlobMeta* meta) noexcept nogil:
    """What stands behind a blob's struct: its cuts, its head, its last bytes."""
    return 8 * <size_t>meta.cuts + meta.head_length + meta.tail_length


cdef inline size_t usage_size(int format) noexcept nogil:
    return USAGE_BEFORE if format == FORMAT else sizeof(UsageRecord)


cdef int format_of(int table, size_t key_length, int level) noexcept nogil:
    """The format of a level's records; 0: those of this table have no struct."""
    if table == T_USAGE:
        if level >= ACCOUNT_LEVEL:
            return TRIAL_USAGE_FORMAT if level >= TRIAL_LEVEL else USAGE_FORMAT
        return FORMAT
    if table == T_MESSAGE:
        return MESSAGE_FORMAT
    if table == T_BLOB:
        return BLOB_FORMAT if key_length == 9 else 0
    if table == T_HOP_STATE:
        return HOP_FORMAT if level >= INDEXED_LEVEL else FORMAT
    return FORMAT if table == T_QUEUE or table == T_MAILBOX or table == T_QUEUE_COUNT or table == T_RETAINED else 0


cdef bint is_known_format(int level, int table, size_t key_length, int found) noexcept nogil:
    """Whether a record may have this format: that of its own level, or of one that is served beside it."""
    return format_of(table, key_length, SHARED_FROM) <= found <= format_of(table, key_length, level)


cdef int unfit(int level, int table, size_t key_length, const void* data, size_t n) noexcept nogil:
    """Why a record does not fit: its format is another one, or it is none."""
    if format_of(table, key_length, level) and n and not is_known_format(level, table, key_length, (<const uint8_t*>data)[0]):
        return FM_FORMAT
    return FM_DISORDER


cdef bint retained_fits(size_t key_length, const uint8_t* p, size_t n) noexcept nogil:
    cdef size_t at = sizeof(RetainedRecord)
    if key_length == 9:
        return n == sizeof(RetainedTotals) and p[0] == FORMAT
    if key_length != 9 + RETAINED_KEY or n < at or p[0] != FORMAT:
        return False
    at += (<RetainedRecord*>p).name_length
    return at <= n and record_fits(0, T_MESSAGE, 13, p + at, n - at)


cdef bint record_fits(int level, int table, size_t key_length, const void* data, size_t n) noexcept nogil:
    """Whether a value is long enough for the struct that its table keeps, of a format known at `level`, and holds its parts."""
    cdef const uint8_t* p = <const uint8_t*>data
    if table == T_MESSAGE:
        return (n >= sizeof(MessageRecord) and p[0] == MESSAGE_FORMAT and key_length == 13
                and sizeof(MessageRecord) + <uint64_t>(<MessageRecord*>p).keywords_length
                + (<MessageRecord*>p).prefix_length == n)
    if table == T_BLOB:
        return key_length == 13 or (n >= sizeof(BlobMeta) and p[0] == BLOB_FORMAT and key_length == 9
                                    and sizeof(BlobMeta) + rest_length(<BlobMeta*>p) == n
                                    and (<BlobMeta*>p).encoding == 0 and (<BlobMeta*>p).key == 0)
    if table == T_QUEUE:
        if key_length == 9:
            return n >= sizeof(QueueRecord) and p[0] == FORMAT
        return (n >= sizeof(RecipientRecord) and p[0] == FORMAT and key_length == 13
                and sizeof(RecipientRecord) + (<RecipientRecord*>p).hop_length + (<RecipientRecord*>p).reply_length
                + <uint64_t>(<RecipientRecord*>p).tail_length == n)
    if table == T_MAILBOX:
        return (n >= sizeof(MailboxRecord) and p[0] == FORMAT
                and sizeof(MailboxRecord) + (<MailboxRecord*>p).name_length + (<MailboxRecord*>p).special_length <= n)
    if table == T_USAGE:
        return n >= USAGE_BEFORE and is_known_format(level, T_USAGE, key_length, p[0]) and n == usage_size(p[0])
    if table == T_HOP_STATE:
        return n >= HOP_BEFORE and is_known_format(level, T_HOP_STATE, key_length, p[0]) and n == hop_size(p[0])
    if table == T_QUEUE_COUNT:
        return n == (sizeof(QueueCounts) if key_length == 1 else sizeof(CountRecord)) and p[0] == FORMAT
    if table == T_RETAINED:
        return retained_fits(key_length, p, n)
    if table == T_MAILBOX_NAME or table == T_ACCOUNT_NAME or table == T_COUNTER:
        return n == 8
    return True
