# Records in memory instead of LMDB's file, behind the same calls: for tests, and for one process that keeps nothing.
#
# Each database is a treap whose nodes are copied before they change, so a reader keeps the roots it began with and no lock. What a
# transaction replaced is freed when no reader is left that began before its commit; what it made, where it is given up. A cursor
# knows the record where it stands and seeks the next one from the root.

cdef enum:
    FIRST_TREE = 2  # LMDB's own databases, 0 and 1, have nothing here

cdef struct MemoryRecord:  # then the key, the value
    uint32_t key_length
    uint32_t value_length

cdef struct MemoryNode:
    MemoryNode* left
    MemoryNode* right
    MemoryRecord* record
    uint64_t txn_id  # that made it; it may change it in place
    uint32_t priority

cdef struct Replaced:
    void* memory
    uint64_t txn_id

cdef struct MemoryTxn:
    MemoryEnvironment* env
    MemoryNode* roots[DATABASES]
    uint64_t txn_id
    uint64_t bytes
    int writing
    int failed
    int linked
    MemoryTxn* previous  # among the readers
    MemoryTxn* next
    Buffer made  # void*
    Buffer replaced  # void*

cdef struct MemoryEnvironment:
    MemoryNode* roots[DATABASES]
    uint64_t txn_id
    uint64_t bytes
    uint64_t limit  # of these
    uint32_t seed
    int is_open
    pthread_mutex_t writer
    pthread_mutex_t mutex  # of the fields above and the two below
    MemoryTxn* readers
    Buffer garbage  # Replaced, the oldest first

cdef struct MemoryCursor:
    MemoryTxn* txn
    MemoryNode* root
    MemoryRecord* at


cdef inline const char* memory_key(const MemoryRecord* record) noexcept nogil:
    return <const char*>record + sizeof(MemoryRecord)


cdef inline int memory_order(const void* key, size_t n, const MemoryRecord* record) noexcept nogil:
    cdef int order = memcmp(key, memory_key(record), n if n < record.key_length else record.key_length)
    return order if order else (n > record.key_length) - (n < record.key_length)


cdef inline void memory_value(const MemoryRecord* record, MDB_val* value) noexcept nogil:
    value.mv_size = record.value_length
    value.mv_data = <void*>(memory_key(record) + record.key_length)


# --- a tree of a write transaction ---

cdef void* memory_make(MemoryTxn* t, size_t n) noexcept nogil:
    """Memory that is freed where the transaction is given up; NULL marks it as failed."""
    cdef void* made = malloc(n)
    if made == NULL or buffer_add(&t.made, &made, sizeof(made)) < 0:
        free(made)
        t.failed = 1
        return NULL
    return made


cdef void memory_replace(MemoryTxn* t, void* old) noexcept nogil:
    if buffer_add(&t.replaced, &old, sizeof(old)) < 0:
        t.failed = 1


cdef MemoryNode* memory_own(MemoryTxn* t, MemoryNode* node) noexcept nogil:
    """The node, or this transaction's copy of it."""
    cdef MemoryNode* copy
    if node.txn_id == t.txn_id:
        return node
    copy = <MemoryNode*>memory_make(t, sizeof(MemoryNode))
    if copy == NULL:
        return node  # the transaction has failed and will not be seen
    copy[0] = node[0]
    copy.txn_id = t.txn_id
    memory_replace(t, node)
    return copy


cdef MemoryNode* memory_insert(MemoryTxn* t, MemoryNode* node, MemoryRecord* record) noexcept nogil:
    """The tree with the record in it."""
    cdef MemoryNode* child
    cdef int order
    if node == NULL:
        node = <MemoryNode*>memory_make(t, sizeof(MemoryNode))
        if node == NULL:
            return NULL
        t.env.seed = t.env.seed * 1664525u + 1013904223u
        node.left = node.right = NULL
        node.record = record
        node.txn_id = t.txn_id
        node.priority = t.env.seed
        return node
    node = memory_own(t, node)
    if t.failed:
        return node
    order = memory_order(memory_key(record), record.key_length, node.record)
    if order == 0:
        t.bytes -= node.record.value_length
        memory_replace(t, node.record)
        node.record = record
    elif order < 0:
        child = node.left = memory_insert(t, node.left, record)
        if child != NULL and child.priority > node.priority:
            node.left = child.right
            child.right = node
            return child
    else:
        child = node.right = memory_insert(t, node.right, record)
        if child != NULL and child.priority > node.priority:
            node.right = child.left
            child.left = node
            return child
    return node


cdef MemoryNode* memory_merge(MemoryTxn* t, MemoryNode* low, MemoryNode* high) noexcept nogil:
    """One tree of two, all of whose keys are in this order."""
    if low == NULL:
        return high
    if high == NULL or t.failed:
        return low
    if low.priority > high.priority:
        low = memory_own(t, low)
        if not t.failed:
            low.right = memory_merge(t, low.right, high)
        return low
    high = memory_own(t, high)
    if not t.failed:
        high.left = memory_merge(t, low, high.left)
    return high


cdef MemoryNode* memory_remove(MemoryTxn* t, MemoryNode* node, const void* key, size_t n) noexcept nogil:
    """The tree without a record that is in it."""
    cdef int order = memory_order(key, n, node.record)
    node = memory_own(t, node)
    if t.failed:
        return node
    if order < 0:
        node.left = memory_remove(t, node.left, key, n)
    elif order > 0:
        node.right = memory_remove(t, node.right, key, n)
    else:
        t.bytes -= node.record.key_length + node.record.value_length
        memory_replace(t, node.record)
        memory_replace(t, node)
        return memory_merge(t, node.left, node.right)
    return node


cdef MemoryRecord* memory_seek(MemoryNode* node, const void* key, size_t n, int least) noexcept nogil:
    """The first record at (`least` 0) or above (1) a key, or the last one below it (-1); NULL where there is none."""
    cdef MemoryRecord* found = NULL
    cdef int order
    while node != NULL:
        order = memory_order(key, n, node.record)
        if order == 0 and least == 0:
            return node.record
        if order < 0 or (order == 0 and least < 0):
            if least >= 0:
                found = node.record
            node = node.left
        else:
            if least < 0:
                found = node.record
            node = node.right
    return found


cdef MemoryRecord* memory_end(MemoryNode* node, int last) noexcept nogil:
    if node == NULL:
        return NULL
    while (node.right if last else node.left) != NULL:
        node = node.right if last else node.left
    return node.record


# --- LMDB's calls ---

cdef void memory_link(MemoryTxn* t) noexcept nogil:
    """Has a reader see what is committed now."""
    cdef MemoryEnvironment* env = t.env
    pthread_mutex_lock(&env.mutex)
    memcpy(t.roots, env.roots, sizeof(env.roots))
    t.txn_id = env.txn_id
    t.next = env.readers
    t.previous = NULL
    if t.next != NULL:
        t.next.previous = t
    env.readers = t
    t.linked = 1
    pthread_mutex_unlock(&env.mutex)


cdef void memory_unlink(MemoryTxn* t) noexcept nogil:
    cdef MemoryEnvironment* env = t.env
    if not t.linked:
        return
    pthread_mutex_lock(&env.mutex)
    if t.previous != NULL:
        t.previous.next = t.next
    else:
        env.readers = t.next
    if t.next != NULL:
        t.next.previous = t.previous
    t.linked = 0
    pthread_mutex_unlock(&env.mutex)


cdef void memory_sweep(MemoryEnvironment* env) noexcept nogil:
    """Frees what no reader can see any more; the mutex is held."""
    cdef Replaced* row = <Replaced*>env.garbage.data
    cdef size_t count = env.garbage.length // sizeof(Replaced)
    cdef size_t n = 0
    cdef uint64_t oldest = env.txn_id
    cdef MemoryTxn* reader = env.readers
    while reader != NULL:
        if reader.txn_id < oldest:
            oldest = reader.txn_id
        reader = reader.next
    while n < count and row[n].txn_id <= oldest:
        free(row[n].memory)
        n += 1
    if n:
        memmove(row, row + n, (count - n) * sizeof(Replaced))
        env.garbage.length = (count - n) * sizeof(Replaced)


cdef int memory_txn_begin(void* environment, void* parent, unsigned int flags, void** out) noexcept nogil:
    cdef MemoryEnvironment* env = <MemoryEnvironment*>environment
    cdef MemoryTxn* t = <MemoryTxn*>calloc(1, sizeof(MemoryTxn))
    if t == NULL:
        return ENOMEM
    t.env = env
    out[0] = t
    if flags & MDB_RDONLY:
        memory_link(t)
        return 0
    pthread_mutex_lock(&env.writer)  # who holds it alone changes what the mutex is for
    memcpy(t.roots, env.roots, sizeof(env.roots))
    t.txn_id = env.txn_id + 1
    t.bytes = env.bytes
    t.writing = 1
    return 0


cdef void memory_txn_free(MemoryTxn* t) noexcept nogil:
    if t.writing:
        pthread_mutex_unlock(&t.env.writer)
    buffer_free(&t.made)
    buffer_free(&t.replaced)
    free(t)


cdef void memory_txn_abort(void* txn) noexcept nogil:
    cdef MemoryTxn* t = <MemoryTxn*>txn
    cdef size_t i
    memory_unlink(t)
    for i in range(t.made.length // sizeof(void*)):
        free((<void**>t.made.data)[i])
    memory_txn_free(t)


cdef int memory_txn_commit(void* txn) noexcept nogil:
    cdef MemoryTxn* t = <MemoryTxn*>txn
    cdef MemoryEnvironment* env = t.env
    cdef size_t count = t.replaced.length // sizeof(void*)
    cdef Replaced row
    cdef size_t i
    if not t.writing:
        memory_txn_abort(t)
        return 0
    pthread_mutex_lock(&env.mutex)
    if t.failed or buffer_room(&env.garbage, count * sizeof(row) + 1) < 0:
        pthread_mutex_unlock(&env.mutex)
        memory_txn_abort(t)
        return ENOMEM
    memcpy(env.roots, t.roots, sizeof(env.roots))
    env.txn_id = row.txn_id = t.txn_id
    env.bytes = t.bytes
    for i in range(count):
        row.memory = (<void**>t.replaced.data)[i]
        buffer_add(&env.garbage, &row, sizeof(row))
    memory_sweep(env)
    pthread_mutex_unlock(&env.mutex)
    memory_txn_free(t)
    return 0


cdef void memory_txn_reset(void* txn) noexcept nogil:
    memory_unlink(<MemoryTxn*>txn)


cdef int memory_txn_renew(void* txn) noexcept nogil:
    memory_link(<MemoryTxn*>txn)
    return 0


cdef size_t memory_txn_id(void* txn) noexcept nogil:
    return (<MemoryTxn*>txn).txn_id


cdef int memory_get(void* txn, MDB_dbi dbi, MDB_val* key, MDB_val* value) noexcept nogil:
    cdef MemoryRecord* found = memory_seek((<MemoryTxn*>txn).roots[dbi - FIRST_TREE], key.mv_data, key.mv_size, 0)
    if found == NULL or memory_order(key.mv_data, key.mv_size, found) != 0:
        return MDB_NOTFOUND
    memory_value(found, value)
    return 0


cdef int memory_put(void* txn, MDB_dbi dbi, MDB_val* key, MDB_val* value, unsigned int flags) noexcept nogil:
    cdef MemoryTxn* t = <MemoryTxn*>txn
    cdef MemoryRecord* record
    cdef MDB_val old
    if key.mv_size - 1 >= KEY_MAX:
        return MDB_BAD_VALSIZE
    if t.bytes + key.mv_size + value.mv_size > t.env.limit:
        return MDB_MAP_FULL
    record = <MemoryRecord*>memory_make(t, sizeof(MemoryRecord) + key.mv_size + value.mv_size)
    if record == NULL:
        return ENOMEM
    record.key_length = <uint32_t>key.mv_size
    record.value_length = <uint32_t>value.mv_size
    memcpy(record + 1, key.mv_data, key.mv_size)
    if value.mv_size:
        memcpy(<char*>(record + 1) + key.mv_size, value.mv_data, value.mv_size)
    if memory_get(txn, dbi, key, &old):
        t.bytes += key.mv_size
    t.bytes += value.mv_size
    t.roots[dbi - FIRST_TREE] = memory_insert(t, t.roots[dbi - FIRST_TREE], record)
    return ENOMEM if t.failed else 0


cdef int memory_del(void* txn, MDB_dbi dbi, MDB_val* key, MDB_val* value) noexcept nogil:
    cdef MemoryTxn* t = <MemoryTxn*>txn
    cdef MDB_val found
    if memory_get(txn, dbi, key, &found):
        return MDB_NOTFOUND
    t.roots[dbi - FIRST_TREE] = memory_remove(t, t.roots[dbi - FIRST_TREE], key.mv_data, key.mv_size)
    return ENOMEM if t.failed else 0


cdef int memory_cursor_open(void* txn, MDB_dbi dbi, void** out) noexcept nogil:
    cdef MemoryCursor* cursor = <MemoryCursor*>calloc(1, sizeof(MemoryCursor))
    if cursor == NULL:
        return ENOMEM
    cursor.txn = <MemoryTxn*>txn
    cursor.root = cursor.txn.roots[dbi - FIRST_TREE] if dbi >= FIRST_TREE else NULL
    out[0] = cursor
    return 0


cdef void memory_cursor_close(void* cursor) noexcept nogil:
    free(cursor)


cdef int memory_cursor_get(void* position, MDB_val* key, MDB_val* value, int op) noexcept nogil:
    cdef MemoryCursor* cursor = <MemoryCursor*>position
    cdef MemoryRecord* found
    if op == MDB_SET_RANGE:
        found = memory_seek(cursor.root, key.mv_data, key.mv_size, 0)
    elif cursor.at == NULL or op == MDB_FIRST or op == MDB_LAST:
        found = memory_end(cursor.root, op == MDB_LAST or op == MDB_PREV)
    else:
        found = memory_seek(cursor.root, memory_key(cursor.at), cursor.at.key_length, 1 if op == MDB_NEXT else -1)
    if found == NULL:
        return MDB_NOTFOUND
    cursor.at = found
    key.mv_size = found.key_length
    key.mv_data = <void*>memory_key(found)
    memory_value(found, value)
    return 0


cdef int memory_env_info(void* environment, MDB_envinfo* info) noexcept nogil:
    cdef MemoryEnvironment* env = <MemoryEnvironment*>environment
    cdef MemoryTxn* reader
    memset(info, 0, sizeof(info[0]))
    pthread_mutex_lock(&env.mutex)
    info.me_last_txnid = env.txn_id
    info.me_last_pgno = env.bytes // PAGE
    reader = env.readers
    while reader != NULL:
        info.me_numreaders += 1
        reader = reader.next
    pthread_mutex_unlock(&env.mutex)
    return 0


cdef int memory_reader_check(void* environment, int* dead) noexcept nogil:
    dead[0] = 0
    return 0


cdef int memory_reader_list(void* environment, int (*tell)(const char*, void*) noexcept, void* context) noexcept nogil:
    return 0


cdef int memory_env_copyfd2(void* environment, int fd, unsigned int flags) noexcept nogil:
    return EINVAL  # Store.copy_to has refused it in words


cdef void memory_env_close(void* environment) noexcept nogil:
    """What is stored stays, for the next opening in this process."""
    (<MemoryEnvironment*>environment).is_open = 0


cdef MemoryEnvironment* memory_new() except NULL:
    cdef MemoryEnvironment* env = <MemoryEnvironment*>calloc(1, sizeof(MemoryEnvironment))
    if env == NULL:
        raise MemoryError
    pthread_mutex_init(&env.writer, NULL)
    pthread_mutex_init(&env.mutex, NULL)
    env.seed = 1
    return env


cdef void memory_tree_free(MemoryNode* node) noexcept nogil:
    if node != NULL:
        memory_tree_free(node.left)
        memory_tree_free(node.right)
        free(node.record)
        free(node)


cdef void memory_free(MemoryEnvironment* env) noexcept nogil:
    """Of an environment that nobody reads or writes."""
    cdef int i
    memory_sweep(env)
    for i in range(DATABASES):
        memory_tree_free(env.roots[i])
    buffer_free(&env.garbage)
    pthread_mutex_destroy(&env.writer)
    pthread_mutex_destroy(&env.mutex)
    free(env)


cdef Calls memory_calls
memory_calls.env_close = memory_env_close
memory_calls.env_info = memory_env_info
memory_calls.env_copyfd2 = memory_env_copyfd2
memory_calls.reader_check = memory_reader_check
memory_calls.reader_list = memory_reader_list
memory_calls.txn_begin = memory_txn_begin
memory_calls.txn_commit = memory_txn_commit
memory_calls.txn_abort = memory_txn_abort
memory_calls.txn_reset = memory_txn_reset
memory_calls.txn_renew = memory_txn_renew
memory_calls.txn_id = memory_txn_id
memory_calls.get = memory_get
memory_calls.put = memory_put
memory_calls.delete = memory_del
memory_calls.cursor_open = memory_cursor_open
memory_calls.cursor_close = memory_cursor_close
memory_calls.cursor_get = memory_cursor_get
