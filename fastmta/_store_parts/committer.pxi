# The committer: one native thread that never takes the GIL. It takes what is pending, applies it in one transaction, commits,
# and signals an eventfd. Between commits it empties the trash.

cdef inline int64_t clock_ns(int which) noexcept nogil:
    cdef timespec at
    clock_gettime(which, &at)
    return <int64_t>at.tv_sec * 1000000000 + at.tv_nsec


cdef inline int64_t wall_ms() noexcept nogil:
    return clock_ns(CLOCK_REALTIME) // 1000000


cdef void crash_point(StoreState* s, int which) noexcept nogil:
    if s.crash_at == which:
        s.crash_after -= 1
        if s.crash_after <= 0:
            kill(getpid(), SIGKILL)


cdef bint is_fatal(int rc) noexcept nogil:
    """After these nothing more is accepted here: another process looks at the store and opens it."""
    return rc != MDB_MAP_FULL and rc != MDB_TXN_FULL and rc != ENOMEM and not is_damage(rc) and not is_healed(rc)


cdef bint is_healed(int rc) noexcept nogil:
    """After these the environment must be opened anew, and in this process: a full disk has harmed nothing, and a transaction
    that fell over a damaged page can only be thrown away with its thread, whose end gives the writers' lock back.
    """
    return rc == ENOSPC or rc == EDQUOT or rc == MDB_PANIC or rc == FM_TORN


# --- one transaction ---

cdef void txn_release(Txn* t) noexcept nogil:
    buffer_free(&t.undo)
    buffer_free(&t.scratch)
    buffer_free(&t.scratch2)
    buffer_free(&t.unreferenced)
    buffer_free(&t.envelope)
    buffer_free(&t.hops)
    buffer_free(&t.dead)
    buffer_free(&t.let_go)
    buffer_free(&t.touched)


cdef void txn_reset(Txn* t) noexcept nogil:
    t.rc = t.writes = t.no_undo = t.fail_in = 0
    t.hops.length = t.dead.length = t.let_go.length = t.touched.length = t.unreferenced.length = 0
    memset(t.counts, 0, sizeof(t.counts))


cdef int unit_run(Txn* t, CUnit* u) noexcept nogil:
    """Applies one unit or nothing of it; POISONED where the whole transaction must be given up."""
    cdef size_t at = 0
    cdef size_t dead = t.dead.length
    cdef size_t let_go = t.let_go.length
    cdef size_t touched = t.touched.length
    cdef Op* op
    cdef int rc = DONE
    unit_begin(t)
    t.unit = u
    t.fail_in = u.fail_at
    u.results.length = 0
    while at < u.ops.length:
        op = <Op*>(u.ops.data + at)
        rc = apply_op(t, op)
        if rc:
            break
        at += op.length
    if rc == DONE:
        rc = unit_end(t)
    t.fail_in = 0
    if rc < 0:
        return POISONED
    if rc == DONE:
        u.status = 1
        u.code = 0
        return DONE
    u.status = 3 if rc >= FAIL_FULL else 2
    u.code = rc
    u.results.length = 0
    t.dead.length = dead
    t.let_go.length = let_go
    t.touched.length = touched
    return t_undo(t)


cdef int commit_txn(StoreState* s, void* txn) noexcept nogil:
    """LMDB's commit. A write that the disk took only the first part of is EIO to LMDB, though no call has failed, which
    errno tells: the disk is full.
    """
    cdef int rc
    global errno
    errno = 0
    rc = fm_call(<void*>s.calls.txn_commit, txn)
    return ENOSPC if rc == EIO and errno == 0 else rc


cdef int batch_try(StoreState* s, Txn* t, CUnit** units, int n) noexcept nogil:
    """One transaction over n units; 0, or LMDB's error with nothing kept."""
    cdef int i, rc
    cdef int64_t started = clock_ns(CLOCK_MONOTONIC)
    cdef int64_t begun
    if s.inject_kind == INJECT_BEGIN and s.inject_after:
        s.inject_after -= 1
        if s.inject_after == 0:
            return s.inject_rc
    rc = fm_begin(<void*>s.calls.txn_begin, s.env, 0, &t.txn)
    if rc:
        return rc
    begun = clock_ns(CLOCK_MONOTONIC)
    txn_reset(t)
    t.now_ms = t.replayed_ms if t.replayed_ms else wall_ms()
    txn_level(t)
    for i in range(n):
        if t.rc or unit_run(t, units[i]) < 0:
            break
        if t.replayed_ms and units[i].status != COMMITTED_:
            t.rc = MISFIT
            break
        if s.crash_at:
            crash_point(s, CRASH_APPEND)
    if t.rc == 0:
        txn_flush(t)
    if t.rc:
        if t.rc != FM_TORN:
            s.calls.txn_abort(t.txn)
        return t.rc
    if t.writes == 0:
        s.calls.txn_abort(t.txn)
        return 0
    if s.inject_kind == INJECT_COMMIT and s.inject_after:
        s.inject_after -= 1
        if s.inject_after == 0:
            s.calls.txn_abort(t.txn)
            return s.inject_rc
    t.txn_id = s.calls.txn_id(t.txn)
    rc = commit_txn(s, t.txn)
    if rc:
        return rc
    if s.journal_fd >= 0:
        journal_batch(s, t, units, n)
    if s.crash_at:
        crash_point(s, CRASH_COMMIT)
    s.spent_ns = clock_ns(CLOCK_MONOTONIC) - begun
    if t.txn_id != s.own_txn_id + 1:
        s.others_ns = begun
    s.own_txn_id = t.txn_id
    s.commits += 1
    record_commit(s, begun + s.spent_ns - started, n)
    if (t.dead.length or t.let_go.length) and t.now_ms + s.trash_delay_ms < s.trash_due_ms:
        s.trash_due_ms = t.now_ms + s.trash_delay_ms
    batch_tell(s, t)
    return 0


cdef void record_commit(StoreState* s, int64_t took_ns, int n) noexcept nogil:
    """The two histograms of runtime/metrics.py: the sum, then buckets whose bounds are powers of two from a first one."""
    s.busy_ns += took_ns
    s.units += n
    if s.cells != NULL:
        record_value(s.cells + s.cell_seconds, <uint64_t>(took_ns // 1000), 6, 17)
        record_value(s.cells + s.cell_messages, n, 0, 9)


cdef inline void record_value(uint64_t* cells, uint64_t value, int first_bit, int buckets) noexcept nogil:
    cdef int bucket = 0
    while bucket < buckets and value > (<uint64_t>1 << (first_bit + bucket)):
        bucket += 1
    cells[0] += value
    cells[1 + bucket] += 1


cdef void batch_tell(StoreState* s, Txn* t) noexcept nogil:
    """Leaves for the observer what this transaction touched; bounded, since everything can be reread."""
    cdef size_t i
    cdef HopTouch* touch
    if not s.observed:
        return
    pthread_mutex_lock(&s.mutex)
    if s.done_touched.length < (1 << 20):
        buffer_add(&s.done_touched, t.touched.data, t.touched.length)
    if s.done_hops.length < (1 << 22):
        for i in range(t.hops.length // sizeof(HopTouch)):
            touch = <HopTouch*>t.hops.data + i
            if touch.new_work:
                buffer_add(&s.done_hops, &touch.length, 2)
                buffer_add(&s.done_hops, touch.name, touch.length)
    pthread_mutex_unlock(&s.mutex)


cdef void batch_fail(CUnit** units, int n, int rc) noexcept nogil:
    cdef int i
    for i in range(n):
        units[i].status = 3
        units[i].code = (FAIL_FULL if rc == MDB_MAP_FULL or rc == ENOSPC or rc == EDQUOT
                         else FAIL_DAMAGED if is_damage(rc) else FAIL_IO)
        units[i].results.length = 0


cdef void batch_run(StoreState* s, Txn* t, CUnit** units, int n) noexcept nogil:
    """Runs a batch; where it fails, its halves, until the unit at fault stands alone."""
    cdef int rc
    if s.failed or s.heal:
        batch_fail(units, n, s.heal if s.heal else EIO)
        return
    rc = batch_try(s, t, units, n)
    if rc == 0:
        return
    if is_healed(rc):
        s.heal = rc
        batch_fail(units, n, rc)
    elif is_fatal(rc):
        s.failed = rc
        batch_fail(units, n, rc)
    elif n == 1:
        batch_fail(units, n, rc)
    else:
        batch_run(s, t, units, n // 2)
        batch_run(s, t, units + n // 2, n - n // 2)


# --- the thread ---

cdef int take_batch(StoreState* s, CUnit** units) noexcept nogil:
    """The next units of at most MAX_UNITS and MAX_WEIGHT together, at least one; the mutex is held."""
    cdef int n = 0
    cdef int most = MEEK_UNITS if s.gives_way else MAX_UNITS
    cdef size_t heaviest = MEEK_WEIGHT if s.gives_way else MAX_WEIGHT
    cdef size_t weight = 0
    while s.head != NULL and n < most:
        weight += s.head.weight
        if n and weight > heaviest:
            break
        units[n] = s.head
        s.head = s.head.next
        n += 1
    if s.head == NULL:
        s.tail = NULL
    s.pending -= n
    return n


cdef void finish_batch(StoreState* s, CUnit** units, int n) noexcept nogil:
    cdef int i
    cdef bint waiters = False
    cdef bint signal = False
    cdef uint64_t one = 1
    pthread_mutex_lock(&s.mutex)
    i = n + s.pending if n + s.pending < MAX_UNITS else MAX_UNITS
    s.company = i if i > s.company else s.company - (s.company - i + 3) // 4
    for i in range(n):
        units[i].finished = 1
        if units[i].sync:
            waiters = True
            continue
        units[i].next = NULL
        if s.done_tail == NULL:
            s.done_head = units[i]
        else:
            s.done_tail.next = units[i]
        s.done_tail = units[i]
    if not s.done_ready and (s.done_head != NULL or s.done_touched.length or s.done_hops.length):
        s.done_ready = 1
        signal = True
    if waiters:
        pthread_cond_broadcast(&s.finished)
    pthread_mutex_unlock(&s.mutex)
    if signal:
        write(s.event_fd, &one, 8)


cdef int64_t idle_wait_ms(StoreState* s) noexcept nogil:
    """How long there is nothing to do but wait for units; 0: housekeeping is due."""
    cdef int64_t now = wall_ms()
    cdef int64_t until = s.trash_due_ms
    if s.reap_now or s.hurry:
        return 0
    if until < s.slice_ms + SLICE_PAUSE_MS and s.slice_ms <= now:  # else the clock was set back
        until = s.slice_ms + SLICE_PAUSE_MS
    if s.reader_check_ms < until:
        until = s.reader_check_ms
    if until <= now:
        return 0
    return until - now if until - now < READER_CHECK_MS else READER_CHECK_MS


cdef void sleep_ns(StoreState* s, int64_t ns) noexcept nogil:
    """Waits for a signal, at most so long; the mutex is held before and after."""
    cdef timespec until
    clock_gettime(CLOCK_MONOTONIC, &until)
    ns += until.tv_nsec
    until.tv_sec += ns // 1000000000
    until.tv_nsec = ns % 1000000000
    s.sleeping = 1
    pthread_cond_timedwait(&s.wake, &s.mutex, &until)
    s.sleeping = 0


cdef void gather(StoreState* s) noexcept nogil:
    """Waits for the units that usually come together, no longer than a commit takes; docs/adr/0005. The mutex is held.

    A commit costs the same whatever it carries. Sessions that were answered together come back together, a moment after
    the others' units: without this pause a crowd falls into two halves that take turns. A lone client never waits.
    """
    cdef int64_t patience = s.patience_ns if s.patience_ns < MAX_PATIENCE_NS else MAX_PATIENCE_NS
    cdef int64_t deadline = clock_ns(CLOCK_MONOTONIC) + patience
    cdef int64_t now
    while s.pending < s.company and not s.stopping:
        now = clock_ns(CLOCK_MONOTONIC)
        if now >= deadline:
            break
        s.wake_at = s.company
        sleep_ns(s, deadline - now)
        if s.wake_at == 0:
            break


cdef void give_way(StoreState* s) noexcept nogil:
    """Lets other processes' writers in: LMDB's lock is not a queue, and who takes it again at once takes it from all.

    As long as the transaction was, while others write; where nobody does, hardly at all.
    """
    cdef timespec pause
    cdef int64_t ns = s.spent_ns
    if clock_ns(CLOCK_MONOTONIC) - s.others_ns > OTHERS_NS:
        ns //= MEEK_SHARE
    s.spent_ns = 0
    if ns > MEEK_PAUSE_NS:
        ns = MEEK_PAUSE_NS
    pause.tv_sec = 0
    pause.tv_nsec = ns
    nanosleep(&pause, NULL)


cdef void* committer_main(void* argument) noexcept nogil:
    cdef StoreState* s = <StoreState*>argument
    cdef CUnit* units[MAX_UNITS]
    cdef Txn t
    cdef sigset_t signals
    cdef int64_t wait_ms, started
    cdef int n
    sigfillset(&signals)
    sigdelset(&signals, SIGSEGV)  # a damaged page: guard.pxi
    sigdelset(&signals, SIGBUS)
    pthread_sigmask(SIG_BLOCK, &signals, NULL)
    memset(&t, 0, sizeof(t))
    t.s = s
    t.room = t.spare = NEVER
    while True:
        pthread_mutex_lock(&s.mutex)
        while s.head == NULL and not s.stopping:
            wait_ms = READER_CHECK_MS if s.failed else idle_wait_ms(s)
            if wait_ms == 0:
                break
            s.wake_at = 1
            sleep_ns(s, wait_ms * 1000000)
        if s.head != NULL:
            gather(s)
        n = take_batch(s, units)
        t.reserve = s.reserve
        if n == 0 and s.stopping:
            pthread_mutex_unlock(&s.mutex)
            break
        pthread_mutex_unlock(&s.mutex)
        if n:
            started = clock_ns(CLOCK_MONOTONIC)
            if not s.failed:
                look_at_disk(s, &t, started)
            batch_run(s, &t, units, n)
            s.patience_ns += (clock_ns(CLOCK_MONOTONIC) - started - s.patience_ns) // 8
            finish_batch(s, units, n)
            if s.gives_way and s.spent_ns:
                give_way(s)
        if not s.failed and not s.heal:
            housekeeping(s, &t, n != 0)
        elif s.failed and s.reap_now:
            reap_told(s)
        if s.heal:
            ask_to_heal(s)
            break
    if s.reap_now and not s.heal:  # nobody will reap any more
        reap_told(s)
    txn_release(&t)
    return NULL


cdef void ask_to_heal(StoreState* s) noexcept nogil:
    """Tells the loop that the environment has to be opened anew, and who waits for a commit that he must do it himself."""
    cdef uint64_t one = 1
    pthread_mutex_lock(&s.mutex)
    s.reap_now = 0
    s.done_ready = 1
    pthread_cond_broadcast(&s.finished)
    pthread_mutex_unlock(&s.mutex)
    write(s.event_fd, &one, 8)


cdef void fail_rest(StoreState* s) noexcept nogil:
    """Ends the units that no committer will take any more."""
    cdef CUnit* units[MAX_UNITS]
    cdef int n
    while True:
        pthread_mutex_lock(&s.mutex)
        n = take_batch(s, units)
        pthread_mutex_unlock(&s.mutex)
        if n == 0:
            break
        batch_fail(units, n, s.heal if s.heal else EIO)
        finish_batch(s, units, n)
