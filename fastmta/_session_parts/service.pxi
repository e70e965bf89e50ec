# What the sessions of one service of one worker share.

@cython.final
cdef class Service:
    """One of smtp, submission, submissions, lmtp as a worker serves it. `configure` may be called again at any time."""

    def __init__(self, str name not None, Engine engine not None, object host):
        self.name = name
        self.engine = engine
        self.host = host
        self.sessions = set()
        self.relay_memo = {}
        self.tenants = {}
        self.local_memo = {}

    def __dealloc__(self):
        free(self.out.data)
        free(self.scratch.data)

    def configure(self, object settings, object rules, bytes table not None, *, object directory, object clock,
                  Teller teller not None, object cells, object counters, object storage_ok, object crash):
        """Takes a new configuration; open sessions follow it from their next command on."""
        self.settings = settings
        self.rules = rules
        if len(table) != 7 * VERBS:
            raise ValueError("the transition table has not the parser's verbs")
        self.table = table
        self.directory = directory
        self.version = None
        self.now = clock.now
        self.monotonic = clock.monotonic
        self.version_until = 0
        self.storage_ok = storage_ok
        self.teller = teller
        self.crash = crash if crash.NAME else None
        self.greeting = f"220 {settings.banner}\r\n".encode()
        self.received_by = f"\r\n\tby {settings.myhostname} (FastMTA) with ".encode()
        self.lmtp = settings.is_lmtp
        self.through = settings.through
        self.adjusts = (directory.adjusts or settings.through) and not settings.is_lmtp
        self.submission = settings.is_submission
        self.bare_newline = BARE_MODES[settings.forbid_bare_newline]
        self.size_limit = settings.message_size_limit
        self.timeout = <int64_t>settings.timeout_s
        self.recipient_limit = settings.recipient_limit
        self.overshoot_limit = settings.recipient_overshoot_limit
        self.hop_limit = settings.hopcount_limit
        self.error_sleep = <int64_t>settings.error_sleep_s
        self.soft_errors = settings.soft_error_limit if self.error_sleep else 0x7FFFFFFF
        self.hard_errors = settings.hard_error_limit
        self.junk_limit = settings.junk_command_limit
        self.cells = cells
        self.counters = counters
        self.c_connections = counters.connections_total[self.name]
        self.c_open = counters.connections[self.name]
        for place in (self.c_connections, self.c_open):
            if not 0 <= place < self.cells.shape[0]:
                raise IndexError(f"no metric cell {place}")

    cdef int check_version(self) except -1:
        if <double>self.monotonic() < self.version_until:
            return 0
        version = self.directory.version
        self.version_until = self.directory.version_until
        if version != self.version:
            self.version = version
            self.relay_memo.clear()
            self.local_memo.clear()
            self.tenants.clear()
        return 0

    cdef object _resolve(self, bytes path, bint may_relay):
        # A Recipient, or the Reply that refuses. Refusals are not kept: an account made just now is found at once.
        cdef dict memo = self.relay_memo if may_relay else self.local_memo
        cdef Recipient known = memo.get(path)
        if known is not None and (not known.has_local or known.tick == self.tick):
            return known
        resolution = self.directory.resolve(path, may_relay=may_relay)
        if resolution.refusal is not None:
            refusal = resolution.refusal
            if not self.settings.takes_unlisted or refusal.enhanced != "5.1.1":
                return refusal
            hop = f"error:{refusal.enhanced} {refusal.text}"[:200].encode("ascii", "replace")
            return Recipient(path, Resolution(None, (QueuedTarget(path, hop),)), 0, b"", self.tick)
        known = Recipient(path, resolution, 0, b"", self.tick)
        if len(memo) >= RESOLUTIONS:
            memo.clear()
        memo[path] = known
        return known

    cdef str tenant_of(self, str login, bytes sender):
        # Whose mail a client sends that may relay; "": nobody's.
        cdef object key = login or sender
        cdef str known = self.tenants.get(key)
        if known is None:
            known = self.directory.tenants.of_sender(login, sender)
            if len(self.tenants) >= RESOLUTIONS:
                self.tenants.clear()
            self.tenants[key] = known
        return known

    def sweep(self, int64_t tick):
        """Once a second: moves the clock of deadlines, and ends or wakes the sessions whose time has come.

        `tick` is in seconds from any beginning; the first call only sets that beginning.
        """
        if self.last_sweep:
            self.tick += max(0, tick - self.last_sweep)
        self.last_sweep = tick
        for session in list(self.sessions):
            (<Connection>session).swept()

    def drain(self, reply):
        """From now on each session ends with `reply` when it has no transaction; the quiet ones at once."""
        self.farewell = reply.encode()
        for session in list(self.sessions):
            (<Connection>session).end_if_quiet()
