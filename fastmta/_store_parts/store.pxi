# The store of one process: opening, submitting, dispatching, closing.

ID_BLOCK = 1 << 20
_NETWORK_FILE_SYSTEMS = {0x6969: "NFS", 0xFF534D42: "CIFS", 0xFE534D42: "SMB", 0x517B: "SMB", 0x01021997: "9p",
                         0x00C36400: "Ceph", 0x5346414F: "AFS", 0x7461636F: "OCFS2", 0x01161970: "GFS2"}
_open_here = set()  # identities (device, inode) of the environments that this process has open



cdef inline void eventfd_drain(int fd) noexcept nogil:
    cdef uint64_t count
    c_read(fd, &count, 8)


cdef str lmdb_error(int rc):
    return mdb_strerror(rc).decode("utf-8", "replace")


@cython.final
cdef class Store(Engine):
    """One environment, opened once in this process.

    `path` is a directory; it is made where it is missing. The records lie there in an LMDB file or, with `engine="memory"`, in this
    process's memory, from one opening to the next, for as long as the directory is there. All methods belong to one thread (the
    loop's), except that reads may come from others. `sync=False` gives durability away and is for tests. `gives_way`: other
    processes write first. `level`: the newest one that is known, for tests of programs before and after this one.
    """

    def __cinit__(self, path, *, size_t map_size_bytes=0, bint sync=True, int slot=0, int64_t trash_delay_ms=60000,
                  bint create=True, bint any_format=False, bint gives_way=False, str engine=None, int level=LEVEL):
        cdef int rc
        self.event_fd = -1
        self._lock_fd = self._level_fd = -1
        self.damage = ""
        self.path = os.fspath(path)
        self.slot = slot
        if engine is None:
            engine = os.environ.get("FASTMTA_TEST_ENGINE", "lmdb")
        if engine not in ("lmdb", "memory"):
            raise ValueError(f"no engine {engine!r}: lmdb or memory")
        self.in_memory = engine == "memory"
        if create:
            os.makedirs(self.path, mode=0o700, exist_ok=True)
        elif not os.path.exists(os.path.join(self.path, "memory" if self.in_memory else "data.mdb")):
            raise FileNotFoundError(f"no store at {self.path}")
        self._require_local()
        info = os.stat(self.path)
        if (info.st_dev, info.st_ino) in _open_here:
            raise StorageFailure(f"the store {self.path} is open in this process already")
        self.s = <StoreState*>calloc(1, sizeof(StoreState))
        if self.s == NULL:
            raise MemoryError
        self.s.journal_fd = -1
        self.s.trash_delay_ms = trash_delay_ms
        self.s.any_format = any_format
        self.s.knows = self.s.level = level
        self.s.level_stale = 1
        self.s.gives_way = gives_way
        self.s.trash_due_ms = 0
        self.s.reader_check_ms = wall_ms() + READER_CHECK_MS
        self.s.event_fd = self.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if self.event_fd < 0:
            raise OSError(errno, "eventfd")
        if map_size_bytes == 0:
            volume = os.statvfs(self.path)
            map_size_bytes = max(64 << 30, volume.f_frsize * volume.f_blocks)
        rc = fm_install()
        if rc:
            raise OSError(rc, "sigaction")
        self._map_size = map_size_bytes
        self._sync = sync
        open_environment(self, False)
        self._device, self._inode = info.st_dev, info.st_ino
        _open_here.add((self._device, self._inode))
        self._read_test_variables()
        self._start_thread()
        try:
            prepare(self)
        except BaseException:
            self.close()
            raise

    def _require_local(self):
        cdef c_statfs volume
        cdef bytes name = os.fsencode(self.path)
        if c_statfs_of(name, &volume) == 0:
            kind = _NETWORK_FILE_SYSTEMS.get(volume.f_type & 0xFFFFFFFF)
            if kind is not None:
                raise StorageFailure(f"{self.path} lies on {kind}: the store needs a local file system")

    def _read_test_variables(self):
        name, _, count = os.environ.get("FASTMTA_CRASH_AT", "").partition(":")
        self.s.crash_at = {"append": CRASH_APPEND, "commit": CRASH_COMMIT}.get(name, 0)
        self.s.crash_after = int(count or "1")
        kind, _, nth = os.environ.get("FASTMTA_STORE_FAIL", "").partition(":")
        if kind:
            self.inject_failure(kind, int(nth or "1"))

    def _start_thread(self):
        cdef pthread_condattr_t attributes
        pthread_mutex_init(&self.s.mutex, NULL)
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(&self.s.wake, &attributes)
        pthread_cond_init(&self.s.finished, NULL)
        self._run_thread()

    cdef int _run_thread(self) except -1:
        cdef int rc = pthread_create(&self.s.thread, NULL, committer_main, self.s)
        if rc:
            if self.s.env != NULL:
                self.s.calls.env_close(self.s.env)
            self.s.env = NULL
            _open_here.discard((self._device, self._inode))
            raise OSError(rc, "cannot start the committer's thread")
        pthread_setname_np(self.s.thread, b"fastmta-commits")  # for `top -H`; without it goes on as well
        return 0

    cdef bint _lock(self, uint64_t incarnation, int command) except -1:
        """Takes (F_OFD_SETLK) the lock of one incarnation, or asks (F_OFD_GETLK) whether it is free; the kernel lets go on death."""
        cdef flock lock
        memset(&lock, 0, sizeof(lock))
        lock.l_type = F_WRLCK
        lock.l_start = <long>(incarnation & 0x3FFFFFFFFFFFFFFF)
        lock.l_len = 1
        if fcntl(self._lock_fd, command, &lock) < 0:
            return False
        return command == F_OFD_SETLK_ or lock.l_type == F_UNLCK

    def _is_alive(self, uint64_t incarnation):
        return not self._lock(incarnation, F_OFD_GETLK_)

    # --- closing ---

    def close(self):
        """Commits what is pending, runs its waiters, and lets go of the environment; calling it twice does nothing."""
        if self.s == NULL or self.s.env == NULL:
            return
        self._stop_thread()
        try:
            while self.s.done_head != NULL:
                self.dispatch()
        finally:
            self._close_environment()
            c_close(self.event_fd)
            self.event_fd = -1

    cdef int _stop_thread(self) except -1:
        with nogil:
            pthread_mutex_lock(&self.s.mutex)
            self.s.stopping = 1
            pthread_cond_signal(&self.s.wake)
            pthread_mutex_unlock(&self.s.mutex)
            pthread_join(self.s.thread, NULL)
            fail_rest(self.s)
        return 0

    cdef int _close_environment(self) except -1:
        if self._reader != NULL:
            self.s.calls.txn_abort(self._reader)
            self._reader = NULL
        if self.s.env != NULL:
            self.s.calls.env_close(self.s.env)
        self.s.env = NULL
        _open_here.discard((self._device, self._inode))
        if self._lock_fd >= 0:
            c_close(self._lock_fd)
            if self.holds is not None:  # not where the collector was here before us
                self.holds.close()
            c_close(self.s.holds_fd)
            self._lock_fd = self.s.holds_fd = -1
        if self._level_fd >= 0:
            c_close(self._level_fd)
            self._level_fd = -1
        return 0

    def __dealloc__(self):
        if self.s != NULL:
            if self.s.env != NULL:
                self._stop_thread()
                self._close_environment()
            buffer_free(&self.s.done_touched)
            buffer_free(&self.s.done_hops)
            buffer_free(&self.s.quota_rules)
            buffer_free(&self.s.frame)
            free(self.s.map.seen)
            free(self.s)
        if self.event_fd >= 0:
            c_close(self.event_fd)

    # --- units ---

    cpdef Blob new_blob(self):
        cdef uint64_t blob_id = self.new_id()
        return Blob.__new__(Blob, self, blob_id, self._incarnation)

    cdef int submit_c(self, Unit unit, Waiter waiter) except -1:
        """Hands the unit over; `waiter.unit_done` is called by a later dispatch, never from here."""
        unit.waiter = waiter
        return self._submit(unit, 0)

    def submit(self, Unit unit not None, callback):
        """Hands the unit over; `callback(unit)` is called by a later dispatch. None: nobody wants to know."""
        unit.callback = callback
        self._submit(unit, 0)

    cdef int _submit(self, Unit unit, int sync) except -1:
        cdef StoreState* s = self.s
        cdef CUnit* u = unit.u
        if unit.submitted:
            raise RuntimeError("the unit was submitted already")
        if s.heal:
            open_anew(self)
        if (s.env == NULL and not s.failed) or s.stopping:
            raise StorageFailure("the store is closed")
        if unit.engine is not self:
            raise RuntimeError("the unit belongs to another store")
        unit.submitted = True
        u.sync = sync
        u.owner = <void*>unit
        Py_INCREF(unit)
        pthread_mutex_lock(&s.mutex)
        if s.tail == NULL:
            s.head = u
        else:
            s.tail.next = u
        s.tail = u
        s.pending += 1
        if s.sleeping and (s.pending >= s.wake_at or sync):
            s.wake_at = 0
            pthread_cond_signal(&s.wake)
        pthread_mutex_unlock(&s.mutex)
        return 0

    def commit_sync(self, Unit unit not None):
        """Submits and waits, with the GIL released, until the unit is committed or not; returns it."""
        cdef CUnit* u = unit.u
        self._submit(unit, 1)
        while not u.finished:
            with nogil:
                pthread_mutex_lock(&self.s.mutex)
                while not u.finished and not self.s.heal:
                    pthread_cond_wait(&self.s.finished, &self.s.mutex)
                pthread_mutex_unlock(&self.s.mutex)
            if self.s.heal and not open_anew(self):
                raise StorageFailure("the store has to be opened anew and is being read")
        if self.s.heal:
            open_anew(self)
        Py_DECREF(unit)
        self.let_go(unit, self.s.stopping)
        return unit

    def dispatch(self):
        """Tells the observer, then the waiters, what has been committed; the loop calls it when event_fd is readable."""
        cdef CUnit* u
        cdef CUnit* following
        cdef Unit unit
        cdef Buffer touched, hops
        cdef object error = None
        cdef StoreState* s = self.s
        if s.env == NULL and not s.failed:
            return
        if s.heal:
            open_anew(self)
        if s.damages:
            tell_of_committer(self)
        pthread_mutex_lock(&s.mutex)
        u = s.done_head
        s.done_head = s.done_tail = NULL
        if s.done_ready:
            s.done_ready = 0
            eventfd_drain(s.event_fd)
        touched = s.done_touched
        hops = s.done_hops
        memset(&s.done_touched, 0, sizeof(Buffer))
        memset(&s.done_hops, 0, sizeof(Buffer))
        pthread_mutex_unlock(&s.mutex)
        if touched.length or hops.length:
            try:
                self._observe(&touched, &hops)
            except Exception as failure:
                error = failure
        buffer_free(&touched)
        buffer_free(&hops)
        while u != NULL:
            following = u.next
            unit = <Unit>u.owner
            Py_DECREF(unit)
            try:
                self.let_go(unit, self.s.stopping)
                if unit.waiter is not None:
                    waiter, unit.waiter = unit.waiter, None
                    (<Waiter>waiter).unit_done(unit)
                elif unit.callback is not None:
                    callback, unit.callback = unit.callback, None
                    callback(unit)
            except Exception as failure:
                error = failure if error is None else error
            u = following
        if error is not None:
            raise error  # every waiter was told first

    cdef int _observe(self, Buffer* touched, Buffer* hops) except -1:
        cdef dict boxes = {}
        cdef dict names = {}
        cdef size_t i = 0
        cdef uint16_t n
        cdef Touch* touch = <Touch*>touched.data
        if self._observer is None:
            return 0
        for i in range(touched.length // sizeof(Touch)):
            boxes[touch[i].number] = touch[i].mark
        i = 0
        while i < hops.length:
            memcpy(&n, hops.data + i, 2)
            names[hops.data[i + 2 : i + 2 + n]] = None
            i += 2 + n
        self._observer(list(boxes.items()), list(names))
        return 0

    @property
    def observer(self):
        return self._observer

    @observer.setter
    def observer(self, value):
        self._observer = value
        self.s.observed = value is not None

    # --- identifiers ---

    cpdef uint64_t new_id(self) except 0:
        """A number that no other call, in any process on this store, ever gets."""
        cdef uint64_t number
        if self._next_id == self._end_id:
            if self._spare_id == 0:
                self.reserve_ids()
            if self._spare_id:
                self._next_id, self._end_id, self._spare_id = self._spare_id, self._spare_id + ID_BLOCK, 0
        number = self._next_id
        self._next_id += 1
        if self._spare_id == 0 and not self._reserving and self._end_id - number < ID_BLOCK // 2:
            self._reserving = True
            unit = self.new_unit()
            unit.count(b"id", ID_BLOCK, -1)
            self.submit(unit, self._reserved)
        return number

    def reserve_ids(self):
        """Has a block of identifiers ready, so that the first new_id need not wait for a commit."""
        if self._next_id == self._end_id and self._spare_id == 0:
            unit = self.new_unit()
            unit.count(b"id", ID_BLOCK, -1)
            self._reserved(self.commit_sync(unit))
            if unit.failure == "damaged":
                raise StoreUnreadable(f"{self.path}/data.mdb is damaged where identifiers are counted; save what can be read "
                                      "with fastmta store salvage")
            if self._spare_id == 0:
                raise StorageFailure("cannot reserve identifiers")
        if self._incarnation == 0:
            # The first identifier of the first block names this process as a writer of pending chunks.
            self._incarnation = self._spare_id if self._spare_id else self._next_id
            if self._spare_id:
                self._next_id, self._end_id, self._spare_id = self._spare_id + 1, self._spare_id + ID_BLOCK, 0
            self._lock(self._incarnation, F_OFD_SETLK_)

    def _reserved(self, Unit unit):
        self._reserving = False
        if unit.u.status == 1 and self._spare_id == 0:
            self._spare_id = <uint64_t>unit.results[0] | self._environment << ID_BITS

    # --- reads ---

    cdef void* _begin_read(self) except NULL:
        cdef void* txn = NULL
        cdef int rc
        if self.s.heal:
            open_anew(self)
        if self.s.env == NULL:
            raise StorageFailure("the store is closed")
        if self._reading:  # another thread reads, or a finalizer runs inside a read
            rc = fm_begin(<void*>self.s.calls.txn_begin, self.s.env, MDB_RDONLY, &txn)
            if rc:
                self._cannot_begin(rc)
            self._readers += 1
            return txn
        if self._reader == NULL:
            rc = fm_begin(<void*>self.s.calls.txn_begin, self.s.env, MDB_RDONLY, &self._reader)
            if rc:
                self._reader = NULL
        else:
            rc = fm_call(<void*>self.s.calls.txn_renew, self._reader)
        if rc:
            self._cannot_begin(rc)
        self._reading = True
        return self._reader

    cdef int _cannot_begin(self, int rc) except -1:
        if is_damage(rc):
            raise_damage(self, rc, 0, NULL, 0)
        raise StorageFailure(lmdb_error(rc))

    cdef void _end_read(self, void* txn) noexcept:
        if txn == self._reader:
            self.s.calls.txn_reset(txn)
            self._reading = False
        else:
            self.s.calls.txn_abort(txn)
            self._readers -= 1

    cdef Py_ssize_t read_pending(self, uint64_t blob_id, uint64_t offset, char* out, Py_ssize_t n) except -2:
        return pending_copy(Reading(self), blob_id, offset, out, n)

    def get(self, int table, bytes key):
        """The value of a record, a copy; None where there is none."""
        return read_record(Reading(self), table, key)

    def scan(self, int table, bytes prefix, bytes start=b"", Py_ssize_t limit=1000):
        """[(key, value)] of the records whose key begins with `prefix` and is not before `start`."""
        return read_range(Reading(self), table, prefix, start, limit)

    def last_txn_id(self):
        """The number of the environment's last transaction, ours or another process's."""
        cdef MDB_envinfo info
        if self.s.env == NULL:
            return 0
        self.s.calls.env_info(self.s.env, &info)
        return info.me_last_txnid

    # --- the operator's view ---

    def damaged(self, str table, bytes key, str reason):
        """The StoreDamaged to raise for a record that can be read and makes no sense; it has been told."""
        cdef object error = StoreDamaged(table, key[:DAMAGE_KEY], reason)
        tell_damage(self, error, False)
        return error

    @property
    def failed(self):
        """A commit failed in a way after which this process must be replaced."""
        return self.s.failed != 0

    @property
    def own_commits(self):
        return self.s.commits

    cdef uint64_t _count_free_pages(self, size_t last_txn_id) except? 0:
        # LMDB's list has a row for each transaction that freed pages, so a count may take milliseconds: it is made anew
        # only where the list may have changed, and so that all counts together take a hundredth of the time at most.
        cdef int64_t began = clock_ns(CLOCK_MONOTONIC)
        cdef int64_t ended
        if last_txn_id != self._free_txn_id and began >= self._free_until_ns:
            self._free_pages = free_pages(Reading(self))
            ended = clock_ns(CLOCK_MONOTONIC)
            self._free_txn_id = last_txn_id
            self._free_until_ns = ended + 100 * (ended - began)
        return self._free_pages

    def stats(self):
        """Figures of this process and of the environment. `free_bytes` may be as old as a hundred times what counting it
        took: next to nothing in most stores, a second where the list of free pages takes 10 ms.
        """
        cdef MDB_envinfo info
        if self.s.env == NULL:
            raise StorageFailure("the store is closed")
        self.s.calls.env_info(self.s.env, &info)
        return {
            "commits": self.s.commits,
            "units": self.s.units,
            "busy_seconds": self.s.busy_ns / 1e9,
            "pending_units": self.s.pending,
            "pending_bytes": self.pending_bytes,
            "turned_away_units": self.s.turned_away,
            "reaped_blobs": self.s.reaped,
            "map_bytes": info.me_mapsize,
            "map_used_bytes": (info.me_last_pgno + 1) * PAGE,
            "free_bytes": self._count_free_pages(info.me_last_txnid) * PAGE,
            "last_txn_id": info.me_last_txnid,
            "readers": info.me_numreaders,
            "reader_lag_transactions": reader_lag(self, info.me_last_txnid),
        }

    def set_reserve(self, uint64_t reserve_bytes):
        """From the next batch on, what brings new mail and would leave less of the disk free fails as "full"; 0: no reserve."""
        pthread_mutex_lock(&self.s.mutex)
        self.s.reserve = reserve_bytes if reserve_bytes < <uint64_t>NEVER else <uint64_t>NEVER
        pthread_mutex_unlock(&self.s.mutex)

    def journal_to(self, int fd):
        """Has the committer write a frame to `fd` after each commit of units, before they are answered; -1: no more.

        The descriptor stays the caller's, and open until the store is closed or this is called again. A new journal begins with frame 1.
        """
        self.s.journal_fd = -1
        self.commit_sync(self.new_unit())  # so no batch is on its way
        self.s.frames = 0
        self.s.journal_errno = 0
        self.s.journal_fd = fd

    @property
    def journal_trouble(self):
        """Why the journal could not be written any more; "" where it can."""
        return os.strerror(self.s.journal_errno) if self.s.journal_errno else ""

    def replay(self, frame):
        """Carries out one frame of another store's journal, all of it or nothing, and blocks; the trash is left to this store.

        ValueError where it is damaged, StorageFailure where it does not fit what is here or cannot be written.
        """
        replay_frame(self, frame)

    def raise_level(self):
        """Has this and all other programs write records at this one's level from now on; True where they did not before.

        StorageFailure while a program that does not know the level has the store open; it is kept from opening it meanwhile.
        """
        return level_raised(self)

    def set_metrics(self, cells, int commit_seconds_index, int commit_messages_index):
        """Has the committer record into cells of runtime/metrics.py; `cells` stays referenced until the store closes."""
        cdef uint64_t[::1] view = cells
        if max(commit_seconds_index + 19, commit_messages_index + 11) > view.shape[0]:
            raise ValueError("the histograms lie outside of the cells")
        self._metrics = view
        self.s.cell_seconds = commit_seconds_index
        self.s.cell_messages = commit_messages_index
        self.s.cells = &view[0]

    def copy_to(self, int fd, bint compact=True):
        """Writes a consistent copy of the environment to a file descriptor, with the GIL released."""
        cdef int rc
        if self.s.env == NULL:
            raise StorageFailure("the store is closed")
        if self.in_memory:
            raise StorageFailure("a store in memory has no file to copy")
        self._readers += 1
        try:
            with nogil:
                rc = self.s.calls.env_copyfd2(self.s.env, fd, MDB_CP_COMPACT if compact else 0)
        finally:
            self._readers -= 1
        if is_damage(rc):
            raise_damage(self, rc, 0, NULL, 0)
        if rc:
            raise StorageFailure(f"cannot copy the store: {lmdb_error(rc)}")

    def reap_soon(self):
        """Has the committer reap all trash, due or not, because the disk is low; does not wait."""
        pthread_mutex_lock(&self.s.mutex)
        self.s.hurry = 1
        pthread_cond_signal(&self.s.wake)
        pthread_mutex_unlock(&self.s.mutex)

    def reap(self):
        """Empties the trash of all that is due, now; returns how many blobs have been reaped since the start."""
        if self.s.heal:
            open_anew(self)
        with nogil:
            pthread_mutex_lock(&self.s.mutex)
            if not self.s.failed and not self.s.stopping and not self.s.heal:
                self.s.reap_now = 1
                pthread_cond_signal(&self.s.wake)
                while self.s.reap_now:
                    pthread_cond_wait(&self.s.finished, &self.s.mutex)
            pthread_mutex_unlock(&self.s.mutex)
        return self.s.reaped

    def inject_failure(self, str kind, int nth, str error="full"):
        """For tests: the nth write ("put", "del"), begin or commit from now on fails once, as "full", "io" or "nospace"."""
        self.s.inject_rc = {"full": MDB_MAP_FULL, "io": EIO, "nospace": ENOSPC}[error]
        self.s.inject_kind = {"put": INJECT_PUT, "del": INJECT_DEL, "commit": INJECT_COMMIT, "begin": INJECT_BEGIN}[kind]
        self.s.inject_after = nth
