# Functions on a Store: its environment, opened and opened anew in place, and what becomes of damage that was met.


cdef str other_level(str path, bytes found, int known):
    """What to say of a store that another program has written: `found` is a level, or two where an upgrade has begun; `known` the
    newest level that is known here."""
    words = found.split(b">")
    if len(words) == 2:
        return f"the upgrade of the store {path} has not ended: run fastmta store upgrade again"
    if not found.isdigit():
        return f"the store {path} has a format that this program does not know: {found!r}"
    if int(found) > known:
        return f"the store {path} was written by a later FastMTA: its format is {int(found)}, this program knows {known}"
    return (f"the store {path} was written by an earlier FastMTA: its format is {int(found)}, this program's is {known}; stop the "
            "server and run fastmta store upgrade")


cdef dict memories = {}  # name -> MemoryEnvironment: what this process keeps in memory, as its directories name it


cdef int open_memory(Store self) except -1:
    """The records of this directory in this process's memory: new ones, or those of an earlier opening.

    A file in the directory names them, so that they end with it, and no other process takes the directory for an empty one.
    """
    cdef MemoryEnvironment* env
    cdef int i
    place = os.path.join(self.path, "memory")
    if os.path.exists(os.path.join(self.path, "data.mdb")):
        raise StorageFailure(f"{self.path} has a store on disk: it cannot be kept in memory")
    for each, (path, address) in list(memories.items()):
        env = <MemoryEnvironment*><uintptr_t>address
        if not env.is_open and not os.path.exists(path):
            del memories[each]
            memory_free(env)
    if os.path.exists(place):
        with open(place) as file:
            name = file.read()
        if name not in memories:
            raise StorageFailure(f"the store {self.path} is in the memory of process {name.partition('.')[0]}, and ends with it")
    else:
        name = f"{os.getpid()}.{os.urandom(8).hex()}"
        memories[name] = place, <uintptr_t>memory_new()
        with open(place, "x") as file:
            file.write(name)
    env = <MemoryEnvironment*><uintptr_t>memories[name][1]
    env.is_open = 1
    env.limit = self._map_size
    self.s.env = env
    self.s.calls = memory_calls
    for i in range(DATABASES):
        self.s.dbi[i] = FIRST_TREE + i
    return 0


cdef int open_environment(Store self, bint again) except -1:
    if self.in_memory:
        return open_memory(self)
    self.s.calls = lmdb
    return open_lmdb(self, again)


cdef int open_lmdb(Store self, bint again) except -1:
    cdef void* txn = NULL
    cdef int i, rc, dead
    cdef bytes name = os.fsencode(self.path)
    cdef unsigned int flags = MDB_NOTLS | MDB_NORDAHEAD
    if not self._sync:
        flags |= MDB_NOSYNC
    rc = mdb_env_create(&self.s.env)
    if rc == 0:
        rc = mdb_env_set_mapsize(self.s.env, self._map_size)
    if rc == 0:
        rc = mdb_env_set_maxdbs(self.s.env, DATABASES)
    if rc == 0:
        rc = mdb_env_set_maxreaders(self.s.env, 1024)
    if rc == 0:
        rc = mdb_env_set_assert(self.s.env, fm_on_assert)
    if rc == 0:
        rc = mdb_env_open(self.s.env, name, flags, 0o600)
    if rc == 0:
        rc = self.s.calls.reader_check(self.s.env, &dead)
    if rc == 0:
        # A full disk must not keep the store from being opened anew: its databases are there.
        rc = fm_begin(<void*>self.s.calls.txn_begin, self.s.env, MDB_RDONLY if again else 0, &txn)
    if rc == 0:
        for i in range(DATABASES):
            rc = fm_open(<void*>mdb_dbi_open, txn, <const char*><bytes>DATABASE_NAMES[i], 0 if again else MDB_CREATE,
                         &self.s.dbi[i])
            if rc:
                break
        if rc == FM_TORN:
            pass
        elif rc:
            self.s.calls.txn_abort(txn)
        else:
            rc = self.s.calls.txn_commit(txn)
    if rc == 0:
        rc = measure_map(self)
    if rc == 0:
        return 0
    if self.s.env != NULL:
        self.s.calls.env_close(self.s.env)
    self.s.env = NULL
    if is_damage(rc) or rc == MDB_VERSION_MISMATCH:
        raise StoreUnreadable(f"{self.path}/data.mdb cannot be opened: {read_error(rc)}; save what can be read with "
                              "fastmta store salvage")
    raise StorageFailure(f"cannot open the store {self.path}: {lmdb_error(rc)}")


cdef void count_map() noexcept:
    global fm_maps
    fm_maps += 1


cdef int measure_map(Store self) except -1:
    """Where the map lies (LMDB does not tell) and how the file is read; 0 or an error of LMDB or of ours.

    It is the map in which LMDB finds the name of a database. Neither the path of the file nor its length says which one it is:
    a process may have several stores open, and the numbers of device and inode are not those of stat on overlays and btrfs.
    """
    cdef MDB_stat stat
    cdef MDB_val key, value
    cdef MDB_dbi names = 0
    cdef void* txn = NULL
    cdef uintptr_t place
    cdef bytes name = DATABASE_NAMES[0]
    cdef int rc = mdb_env_stat(self.s.env, &stat)
    if rc == 0:
        rc = mdb_env_get_fd(self.s.env, &self.s.map.fd)
    if rc == 0:
        rc = fm_begin(<void*>self.s.calls.txn_begin, self.s.env, MDB_RDONLY, &txn)  # a writer's pages may lie outside of the map
    if rc:
        return rc
    key.mv_size = len(name)
    key.mv_data = <char*>name
    rc = fm_open(<void*>mdb_dbi_open, txn, NULL, 0, &names)
    if rc == 0:
        rc = fm_get_own(<void*>self.s.calls.get, txn, names, &key, &value)
    place = <uintptr_t>value.mv_data if rc == 0 else 0
    self.s.calls.txn_abort(txn)
    if rc:
        return rc
    count_map()
    self.s.map.page = stat.ms_psize
    self.s.map.bytes = 0
    with open("/proc/self/maps", "rb") as maps:
        for line in maps:
            words = line.split(None, 5)
            begin, _, end = words[0].partition(b"-")
            if int(begin, 16) <= place < int(end, 16):
                if int(words[2], 16) or int(end, 16) - int(begin, 16) < self._map_size:
                    return FM_FAULT
                self.s.map.base = <const char*><uintptr_t>int(begin, 16)
                return 0
    return FM_FAULT


cdef bint open_anew(Store self) except -1:
    """Opens the environment anew after the committer has ended, in this process and without a session noticing.

    False where somebody reads meanwhile: it is tried again with the next read, unit or dispatch.
    """
    if not self.s.heal or self.s.env == NULL:
        return True
    if self._reading or self._readers:
        return False
    with nogil:
        pthread_join(self.s.thread, NULL)
    if self._reader != NULL:
        self.s.calls.txn_abort(self._reader)
        self._reader = NULL
    self.s.calls.env_close(self.s.env)
    self.s.env = NULL
    try:
        open_environment(self, True)
    except StorageFailure:
        self.s.failed = EIO  # the old way: another process tries
    self.heals += 1
    self.s.heal = 0
    self._run_thread()
    return True


cdef int raise_damage(Store self, int rc, int table, const uint8_t* key, size_t n) except -1:
    """Raises StoreDamaged, which the owner of the store is told of first."""
    cdef bytes place = (<const char*>key)[: n if n < DAMAGE_KEY else DAMAGE_KEY]
    tell_damage(self, StoreDamaged(TABLE_NAMES[table] if table < TABLES else "unknown", place, read_error(rc)), True)


cdef int tell_unlike(Store self, uint64_t blob_id) except -1:
    """The bytes of a blob that was handed out are not those that were received."""
    tell_damage(self, StoreDamaged("blob", blob_id.to_bytes(8, "big"), "the digest of the message's bytes is wrong"), False)
    return 0


cdef int tell_damage(Store self, object error, bint raising) except -1:
    self.damages += 1
    if not self.damage:
        self.damage = str(error)
    if self.on_damage is not None:
        self.on_damage(error)
    if raising:
        raise error
    return 0


cdef int tell_of_committer(Store self) except -1:
    cdef StoreState* s = self.s
    cdef int rc, table
    cdef bytes place
    pthread_mutex_lock(&s.mutex)
    rc, table = s.damage_rc, s.damage_table
    place = (<char*>s.damage_key)[: s.damage_length]
    s.damages = 0
    pthread_mutex_unlock(&s.mutex)
    tell_damage(self, StoreDamaged(TABLE_NAMES[table] if table < TABLES else "unknown", place, read_error(rc)), False)
    return 0


def environment_number():
    """A number for a new environment, as `meta` keeps it: identifiers begin with it, so that two stores never count alike."""
    return (1 + int.from_bytes(os.urandom(4), "little") % 0x7FFF).to_bytes(2, "little")


cdef bint lock_levels(Store self, int kind, int first, int count) except -1:
    """Takes or drops a lock on levels, a byte each; False where somebody's is in the way. It ends with the process."""
    cdef flock lock
    memset(&lock, 0, sizeof(lock))
    lock.l_type = <short>kind
    lock.l_start = first
    lock.l_len = count
    return fcntl(self._level_fd, F_OFD_SETLK_, &lock) == 0


cdef int hold_level(Store self) except -1:
    """Says to others what this program knows, for as long as it has the store open."""
    self._level_fd = os.open(os.path.join(self.path, "levels.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not lock_levels(self, F_RDLCK, self.s.knows, 1):
        raise StorageFailure(f"the format of the store {self.path} is being raised to one that this program does not know")
    return 0


cdef bint level_raised(Store self) except -1:
    """Raises the level in `meta` to what is known here; False where it was that."""
    cdef Unit unit
    if not lock_levels(self, F_WRLCK, 0, self.s.knows):
        raise StorageFailure(f"a FastMTA that does not know the format {self.s.knows} has the store {self.path} open: stop it first")
    try:
        found = self.get(T_META, b"schema")
        if found == b"%d" % self.s.knows:
            return False
        unit = self.new_unit()
        unit.guard(T_META, b"schema", found)
        unit.put(T_META, b"schema", b"%d" % self.s.knows)
        self.commit_sync(unit)
        if unit.failure:
            raise StorageFailure(f"the format of the store {self.path} could not be raised: {unit.failure}")
        return True
    finally:
        lock_levels(self, F_UNLCK, 0, self.s.knows)


cdef int prepare(Store self) except -1:
    """The level and number of the store, this process's lock as a writer of pending chunks, and the chunks of writers that died."""
    cdef Unit unit
    if not self.s.any_format:
        hold_level(self)
    found = self.get(T_META, b"schema")
    if found is None:
        unit = self.new_unit()
        unit.put_new(T_META, b"schema", b"%d" % self.s.knows)  # of two processes that make it, one is refused
        unit.put(T_META, b"environment", environment_number())
        unit.put(T_META, b"finished", b"%d" % self.s.knows)  # no record of an earlier level is left
        self.commit_sync(unit)
        found = self.get(T_META, b"schema")
    if self.s.any_format:
        return 0
    if not found.isdigit() or not SHARED_FROM <= int(found) <= self.s.knows:
        raise StoreUnreadable(other_level(self.path, found, self.s.knows))
    self._environment = int.from_bytes(self.get(T_META, b"environment") or b"", "little") & 0x7FFF
    self._lock_fd = os.open(os.path.join(self.path, "writers.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    self.s.volume_fd = self._lock_fd
    self.holds = Holds(self._lock_fd)
    self.s.holds_fd = os.open(os.path.join(self.path, "writers.lock"), os.O_RDWR | os.O_CLOEXEC)
    dead = [key for key, value in self.scan(T_PENDING, b"", b"", 1000000)
            if len(value) == sizeof(PendingRecord) and not self._is_alive((<PendingRecord*><const char*><bytes>value).incarnation)]
    for start in range(0, len(dead), 1000):
        unit = self.new_unit()
        for key in dead[start : start + 1000]:
            unit.abandon(int.from_bytes(key, "big"))
        self.commit_sync(unit)
    return 0
