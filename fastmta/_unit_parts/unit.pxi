# Units and waiters: how callers write down what shall be done.

def normal_keywords(bytes keywords not None):
    """A space-joined list of keywords as it is stored: each once, without regard to case, and sorted."""
    if b" " not in keywords:
        return keywords
    words = {}
    for word in keywords.split():
        words.setdefault(word.lower(), word)
    return b" ".join([words[key] for key in sorted(words)])


cdef class Waiter:
    """Subclassed in Cython by who waits for a unit without a callback object."""

    cdef int unit_done(self, Unit unit) except -1:
        return 0


@cython.final
cdef class Fate(Waiter):
    """What a coroutine awaits until it is known what became of a unit; the unit tells what.

    It is to asyncio as a future of its own. Whoever gives no context with his callback (Share.run does not) is told
    at once, while the store tells all its waiters; anybody else in a pass of the loop that follows.
    """

    cdef object loop
    cdef list told           # [(callback, context)]
    cdef bint is_done
    cdef bint is_cancelled
    cdef public bint _asyncio_future_blocking

    cdef int unit_done(self, Unit unit) except -1:
        if not self.is_done:
            self._end(False)
        return 0

    cdef int _end(self, bint later) except -1:
        cdef list told = self.told
        self.is_done = True
        self.told = None
        for callback, context in told or ():
            if context is not None:
                self.loop.call_soon(callback, self, context=context)
            elif later:
                self.loop.call_soon(callback, self)
            else:
                callback(self)
        return 0

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if not self.is_done:
            self._asyncio_future_blocking = True
            return self
        self.result()
        raise StopIteration

    def get_loop(self):
        return self.loop

    def done(self):
        return self.is_done

    def cancelled(self):
        return self.is_cancelled

    def result(self):
        """None; CancelledError where nobody waits any more."""
        if self.is_cancelled or not self.is_done:
            from asyncio import CancelledError, InvalidStateError  # a command that has no loop does not load it

            raise CancelledError if self.is_cancelled else InvalidStateError("the unit is under way")

    def exception(self):
        self.result()

    def add_done_callback(self, callback, *, context=None):
        if self.is_done:
            self.loop.call_soon(callback, self, context=context)
        elif self.told is None:
            self.told = [(callback, context)]
        else:
            self.told.append((callback, context))

    def remove_done_callback(self, callback):
        cdef list told = self.told or []
        self.told = [each for each in told if each[0] != callback]
        return len(told) - len(self.told)

    def cancel(self, msg=None):
        """Nobody waits any more; the unit is committed nevertheless."""
        if self.is_done:
            return False
        self.is_cancelled = True
        self._end(True)
        return True


@cython.final
@cython.no_gc_clear  # its end needs the engine
cdef class Unit:
    """An ordered list of operations, all or nothing. Made by Engine.new_unit, filled, submitted once."""

    def __cinit__(self, Engine engine not None):
        self.engine = engine
        self.u = engine.take_unit()

    def __dealloc__(self):
        if self.u != NULL:
            self.engine.give_unit(self.u)

    @property
    def status(self):
        return self.u.status

    @property
    def failure(self):
        """The word of errors.Refused, or "full" or "io" of a unit that failed; None where it did not."""
        return FAILURES.get(self.u.code) if self.u.code else None

    @property
    def results(self):
        """One result for each operation that gives one, in order."""
        return decode_results(self.u.results.data, self.u.results.length)

    cdef Op* _op(self, int code, bytes p0=None, bytes p1=None, bytes p2=None, bytes p3=None, bytes p4=None,
                 bytes p5=None) except NULL:
        """Room for one operation with its parts copied behind it; valid until the next call."""
        cdef size_t n = sizeof(Op)
        cdef Op* op
        cdef char* at
        cdef Buffer* ops = &self.u.ops
        if self.submitted:
            raise RuntimeError("the unit was submitted already")
        n += length_of(p0) + length_of(p1) + length_of(p2) + length_of(p3) + length_of(p4) + length_of(p5)
        n = (n + 7) & ~<size_t>7
        if n > MAX_WEIGHT:
            raise ValueError("an operation of more than 4 MB")
        if buffer_room(ops, n) < 0:
            raise MemoryError
        op = <Op*>(ops.data + ops.length)
        memset(op, 0, sizeof(Op))
        op.length = <uint32_t>n
        op.code = <uint8_t>code
        at = <char*>op + sizeof(Op)
        at = part_put(op, 0, at, p0)
        at = part_put(op, 1, at, p1)
        at = part_put(op, 2, at, p2)
        at = part_put(op, 3, at, p3)
        at = part_put(op, 4, at, p4)
        at = part_put(op, 5, at, p5)
        ops.length += n
        self.u.weight += n
        return op

    cpdef int put_new(self, int table, bytes key, bytes value) except -1:
        require_key(table, key)
        cdef Op* op = self._op(OP_PUT_NEW, key, value)
        op.table = <uint8_t>table
        return 0

    cpdef int put(self, int table, bytes key, bytes value) except -1:
        require_key(table, key)
        cdef Op* op = self._op(OP_PUT, key, value)
        op.table = <uint8_t>table
        return 0

    cpdef int delete(self, int table, bytes key) except -1:
        require_key(table, key)
        cdef Op* op = self._op(OP_DELETE, key)
        op.table = <uint8_t>table
        return 0

    cpdef int guard(self, int table, bytes key, bytes value) except -1:
        require_key(table, key)
        cdef Op* op = self._op(OP_GUARD, key, value)
        op.table = <uint8_t>table
        op.mode = value is None
        return 0

    cpdef int count(self, bytes key, int64_t delta, int64_t ceiling) except -1:
        require_key(T_COUNTER, key)
        cdef Op* op = self._op(OP_COUNT, key)
        self.answers += 1
        op.d = delta
        op.e = ceiling
        return 0

    cdef int _own(self, Op* op, Body* body) except -1:
        """Has the unit keep a body, which `op` brings; the caller lets go of it afterwards."""
        op.n = <uint32_t>(self.u.bodies.length // sizeof(body))
        if buffer_add(&self.u.bodies, &body, sizeof(body)) < 0:
            raise MemoryError
        return 0

    cpdef int blob(self, Blob blob) except -1:
        cdef Body* body = blob.body
        if blob.used:
            raise RuntimeError("the blob was used or abandoned already")
        blob._compose_front()
        self._own(self._op(OP_FAIL if blob.failed else OP_BLOB), body)
        body.bits = blob.bits
        body.whole = 1
        self.u.weight += body.bytes.length + body.front.length
        blob.body = NULL
        blob.used = True
        blob.flying = None
        return 0

    cdef int abandon(self, uint64_t blob_id) except -1:
        """Has the chunks of a blob that will never be a message go to the trash."""
        self._op(OP_ABANDON).a = blob_id
        return 0

    cpdef int ref(self, uint64_t blob_id, int delta) except -1:
        cdef Op* op = self._op(OP_REF)
        op.a = blob_id
        op.d = delta
        return 0

    cpdef int append(self, uint64_t mailbox_id, uint64_t blob_id, bytes prefix, uint32_t flags, bytes keywords,
                     int64_t internal_date_s, int tz_minutes, bytes structure) except -1:
        cdef Op* op = self._op(OP_APPEND, prefix, normal_keywords(keywords), structure)
        self.answers += 1
        op.a = mailbox_id
        op.b = blob_id
        op.flags = flags
        op.d = internal_date_s
        op.tz_minutes = <int16_t>tz_minutes
        return 0

    cpdef int enqueue(self, uint64_t queue_id, uint64_t blob_id, bytes envelope, bint goes_on=False) except -1:
        # `goes_on`: an entry that is there already takes the recipients that follow.
        cdef Op* op = self._op(OP_ENQUEUE, envelope)
        op.mode = goes_on
        op.a = queue_id
        op.b = blob_id
        return 0

    cpdef int recipient(self, uint64_t queue_id, int n, bytes hop, int lane, int state, int64_t due_ms,
                        bytes tail) except -1:
        cdef Op* op = self._op(OP_RECIPIENT, hop, tail)
        op.a = queue_id
        op.n = <uint32_t>n
        op.lane = <uint8_t>lane
        op.state = <uint8_t>state
        op.d = due_ms
        return 0

    cpdef int deliver(self, uint64_t mailbox_id, uint64_t blob_id, bytes prefix, uint32_t flags, bytes keywords,
                      int64_t internal_date_s, int tz_minutes, bytes structure, uint64_t queue_id, int n, bytes hop,
                      bytes tail, bytes envelope, bint reports=False) except -1:
        # `reports`: a refusal is told as the result alone; no queued recipient is made of it.
        cdef Op* op = self._op(OP_DELIVER, prefix, normal_keywords(keywords), structure, hop, tail, envelope)
        self.answers += 1
        op.mode = reports
        op.a = mailbox_id
        op.b = blob_id
        op.flags = flags
        op.d = internal_date_s
        op.tz_minutes = <int16_t>tz_minutes
        op.c = queue_id
        op.n = <uint32_t>n
        return 0

    cpdef int move_recipient(self, uint64_t queue_id, int n, int from_state, int to_state, int attempts,
                             int64_t due_ms, bytes last_reply) except -1:
        cdef Op* op = self._op(OP_MOVE, last_reply)
        op.a = queue_id
        op.n = <uint32_t>n
        op.from_state = <uint8_t>from_state
        op.state = <uint8_t>to_state
        op.flags = <uint32_t>attempts
        op.d = due_ms
        return 0

    cpdef int move_each(self, bytes keys, int from_states, int64_t due_ms, int to_state) except -1:
        # Moves those of some recipients (keys of MOVE_KEY octets each) whose state is one of these bits, 1 << state; the others
        # stay as they are. Attempts and last reply are kept. The result has an octet each, 1 for who has moved.
        cdef Op* op
        if len(keys) % MOVE_KEY:
            raise ValueError("a recipient is 12 octets")
        op = self._op(OP_MOVE_EACH, keys)
        self.answers += 1
        op.mode = <uint8_t>from_states
        op.state = <uint8_t>to_state
        op.d = due_ms
        self.u.weight += len(keys) // MOVE_KEY * MOVE_WEIGHT
        return 0

    cpdef int reroute(self, uint64_t queue_id, int n, bytes hop, int lane) except -1:
        cdef Op* op = self._op(OP_REROUTE, hop)
        op.a = queue_id
        op.n = <uint32_t>n
        op.lane = <uint8_t>lane
        return 0

    cpdef int index_recipient(self, uint64_t queue_id, int n) except -1:
        # Brings a recipient into all indexes and counts, where it is not in them; one that has gone is no failure.
        cdef Op* op = self._op(OP_INDEX)
        op.a = queue_id
        op.n = <uint32_t>n
        return 0

    cpdef int flags(self, uint64_t mailbox_id, bytes uids, int mode, uint32_t flags, bytes keywords,
                    int64_t unchanged_since, uint32_t kept=0) except -1:
        # `kept`: bits that stay as they are; the highest stands for all keywords.
        cdef Op* op
        if not 0 <= mode <= 2:
            raise ValueError("mode is 0, 1 or 2")
        op = self._op(OP_FLAGS, uids, normal_keywords(keywords))
        self.answers += 1
        op.a = mailbox_id
        op.mode = <uint8_t>mode
        op.flags = flags
        op.d = unchanged_since
        op.c = kept
        self.u.weight += len(uids) // 4 * LIST_WEIGHT
        return 0

    cpdef int expunge(self, uint64_t mailbox_id, bytes uids, bint only_deleted, bint required=False,
                      uint64_t retained=0) except -1:
        # `retained`: the messages can be had back, up to so many octets of an account, the newest ones; 0: they go.
        cdef Op* op = self._op(OP_EXPUNGE, uids)
        self.answers += 1
        op.a = mailbox_id
        op.b = retained
        op.mode = <uint8_t>((1 if only_deleted else 0) | (2 if uids is None else 0) | (4 if required else 0))
        self.u.weight += length_of(uids) // 4 * (COPY_WEIGHT if retained else LIST_WEIGHT)
        return 0

    cpdef int release(self, uint64_t account_id, bytes keys, bint required=False) except -1:
        # Lets go of expunged messages that were retained (keys of RETAINED_KEY octets each); one that is not there is passed
        # over, or refuses the unit where all are `required`.
        cdef Op* op
        if len(keys) % RETAINED_KEY:
            raise ValueError("a retained message is 20 octets")
        op = self._op(OP_RELEASE, keys)
        op.a = account_id
        op.mode = required
        self.u.weight += len(keys) // RETAINED_KEY * LIST_WEIGHT
        return 0

    cpdef int copy(self, uint64_t source_id, bytes uids, uint64_t target_id, bint move, uint32_t lost=0) except -1:
        # `lost`: bits that copies do not have; the highest stands for all keywords.
        cdef Op* op = self._op(OP_COPY, uids)
        self.answers += 1
        op.a = source_id
        op.b = target_id
        op.mode = move
        op.c = lost
        self.u.weight += len(uids) // 4 * COPY_WEIGHT
        return 0

    cpdef int take_recent(self, uint64_t mailbox_id) except -1:
        cdef Op* op = self._op(OP_TAKE_RECENT)
        self.answers += 1
        op.a = mailbox_id
        return 0

    cpdef int uidl(self, uint64_t mailbox_id, bytes text) except -1:
        # What POP3 calls the message that was filed in the mailbox last, in this unit.
        if not 0 < len(text) <= UIDL_MAX:
            raise ValueError("1 to 70 octets")
        self._op(OP_UIDL, text).a = mailbox_id
        return 0

    cpdef int mailbox_new(self, uint64_t mailbox_id, uint64_t account_id, bytes name, bytes special_use,
                          int64_t now_s) except -1:
        cdef Op* op = self._op(OP_MAILBOX_NEW, name, special_use)
        op.a = mailbox_id
        op.b = account_id
        op.d = now_s
        return 0

    cpdef int mailbox_gone(self, uint64_t mailbox_id) except -1:
        cdef Op* op = self._op(OP_MAILBOX_GONE)
        op.a = mailbox_id
        return 0

    cpdef int mailbox_rename(self, uint64_t mailbox_id, bytes old_name, bytes new_name) except -1:
        cdef Op* op = self._op(OP_MAILBOX_RENAME, old_name, new_name)
        op.a = mailbox_id
        return 0

    cpdef int mailbox_list_version(self, uint64_t account_id, uint32_t expected) except -1:
        cdef Op* op = self._op(OP_LIST_VERSION)
        op.a = account_id
        op.flags = expected
        return 0

    cpdef int mailbox_list_changed(self, uint64_t account_id) except -1:
        self._op(OP_LIST_CHANGED).a = account_id
        return 0

    cpdef int quota(self, uint64_t account_id, uint64_t quota_bytes, uint32_t quota_messages=0) except -1:
        cdef Op* op = self._op(OP_QUOTA)
        op.a = account_id
        op.b = quota_bytes
        op.c = quota_messages
        return 0

    def pack(self):
        """The unit as octets that say all that it does, for `Engine.unpack`; not of one that is finished."""
        cdef Buffer out
        memset(&out, 0, sizeof(out))
        try:
            if unit_pack(self.u, &out) < 0:
                raise MemoryError
            return out.data[: out.length]
        finally:
            buffer_free(&out)

    def fail_at(self, int nth):
        """For tests: the nth write of this unit, and every later one, fails as on a full map, each time it is run."""
        self.u.fail_at = nth


cdef inline size_t length_of(bytes part):
    return 0 if part is None else len(part)


cdef inline char* part_put(Op* op, int i, char* at, bytes part):
    cdef size_t n
    if part is None:
        return at
    n = len(part)
    op.part[i] = <uint32_t>n
    memcpy(at, <const char*>part, n)
    return at + n


cdef int require_key(int table, bytes key) except -1:
    if not 0 < table < TABLES:
        raise ValueError(f"no table {table}")
    if key is None or len(key) >= KEY_MAX:
        raise ValueError("a key has at most 510 bytes")
    return 0
