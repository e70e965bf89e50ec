# What the sessions of one service of one worker share.

cdef const char* DAYS = "SunMonTueWedThuFriSat"
cdef const char* MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"


cdef class Target:
    def __init__(self, bytes hop, bytes tail, bytes address, bytes mailbox, uint64_t mailbox_id, bint held):
        self.hop = hop
        self.tail = tail
        self.address = address
        self.mailbox = mailbox
        self.mailbox_id = mailbox_id
        self.held = held


cdef class Recipient:
    def __init__(self, bytes forward_path, object resolution, int notify, bytes orcpt, int64_t tick):
        cdef Target made
        self.forward_path = forward_path
        self.resolution = resolution
        self.targets = []
        self.tick = tick
        for target in resolution.targets:
            final = target.address if isinstance(target, LocalTarget) else target.forward_path
            tail = encode(RecipientTail(final, orcpt, notify, forward_path if final != forward_path else b""))
            if isinstance(target, LocalTarget):
                made = Target(LOCAL_HOP, tail, target.address, target.mailbox or target.address, target.mailbox_id, False)
                made.reported = notify & NOTIFY_SUCCESS
                made.account_id = target.account_id
                self.has_local = True
            else:
                made = Target(target.hop, tail, None, None, 0, target.held)
            self.targets.append(made)


@cython.final
cdef class Service:
    """One of smtp, submission, submissions, lmtp as a worker serves it. `configure` may be called again at any time."""

    def __init__(self, str name not None, Store store not None, object host):
        self.name = name
        self.store = store
        self.host = host
        self.sessions = set()
        self.date_second = -1  # none formatted yet
        self.relay_memo = {}
        self.local_memo = {}

    def __dealloc__(self):
        free(self.out.data)
        free(self.scratch.data)

    def configure(self, object settings, object rules, bytes table not None, *, object directory, object clock,
                  object log, object cells, object counters, object storage_ok, object crash):
        """Takes a new configuration; open sessions follow it from their next command on."""
        self.settings = settings
        self.rules = rules
        if len(table) != 7 * VERBS:
            raise ValueError("the transition table has not the parser's verbs")
        self.table = table
        self.directory = directory
        self.version = None
        self.now = clock.now
        self.storage_ok = storage_ok
        self.log = log
        self.log_line = log.line
        self.log_info = log.threshold <= 20 and log.is_json
        self.received_fields = self._fields("smtp.received")
        self.delivered_fields = self._fields("delivery.delivered")
        self.crash = crash if crash.NAME else None
        self.greeting = f"220 {settings.banner}\r\n".encode()
        self.received_by = f"\r\n\tby {settings.myhostname} (FastMTA) with ".encode()
        self.lmtp = settings.is_lmtp
        self.submission = settings.is_submission
        self.bare_newline = BARE_MODES[settings.forbid_bare_newline]
        self.size_limit = settings.message_size_limit
        self.timeout = <int64_t>settings.timeout_s
        self.recipient_limit = settings.recipient_limit
        self.overshoot_limit = settings.recipient_overshoot_limit
        self.hop_limit = settings.hopcount_limit
        self.soft_errors = settings.soft_error_limit
        self.hard_errors = settings.hard_error_limit
        self.junk_limit = settings.junk_command_limit
        self.cells = cells
        self.counters = counters
        self.c_received = counters.messages_received
        self.c_bytes = counters.received_bytes
        self.c_local = counters.local_delivered
        self.c_seconds, bounds = counters.delivery_seconds
        self.seconds_count = len(bounds)
        if self.seconds_count > SECONDS_BOUNDS:
            raise ValueError("too many buckets")
        for n, bound in enumerate(bounds):
            self.seconds_bounds[n] = bound
        self.c_connections = counters.connections_total[self.name]
        self.c_open = counters.connections[self.name]
        for place in (self.c_received, self.c_bytes, self.c_local, self.c_connections, self.c_open, self.c_seconds,
                      self.c_seconds + self.seconds_count + 1):
            if not 0 <= place < self.cells.shape[0]:
                raise IndexError(f"no metric cell {place}")

    def _fields(self, str event not None):
        # What stands in every line of this process, such as its slot, does not change; b"" where lines aren't ours.
        named = f'"event":"{event}"'
        return (named + self.log.opening(event, "info").partition(named)[2]).encode() if self.log_info else b""

    cdef int observe_seconds(self, double seconds) except -1:
        # delivery_seconds: c_seconds + 1 + n is a cell, as `configure` has checked; n <= seconds_count.
        cdef int64_t units = <int64_t>(seconds * 1e6) if seconds > 0 else 0
        cdef int n = 0
        while n < self.seconds_count and units > self.seconds_bounds[n]:
            n += 1
        self.cells[self.c_seconds] += <uint64_t>units
        self.cells[self.c_seconds + 1 + n] += 1
        return 0

    cdef int check_version(self) except -1:
        version = self.directory.version
        if version != self.version:
            self.version = version
            self.relay_memo.clear()
            self.local_memo.clear()
        return 0

    cdef object _resolve(self, bytes path, bint may_relay):
        # A Recipient, or the Reply that refuses. Refusals are not kept: an account made just now is found at once.
        cdef dict memo = self.relay_memo if may_relay else self.local_memo
        cdef Recipient known = memo.get(path)
        if known is not None and (not known.has_local or known.tick == self.tick):
            return known
        resolution = self.directory.resolve(path, may_relay=may_relay)
        if resolution.refusal is not None:
            return resolution.refusal
        known = Recipient(path, resolution, 0, b"", self.tick)
        if len(memo) >= RESOLUTIONS:
            memo.clear()
        memo[path] = known
        return known

    cdef int _dates(self, int64_t second) except -1:
        # Formats the instant for Received (RFC 5322 §3.3) and for the log; once a second.
        cdef tm local
        cdef tm utc
        cdef time_t instant = second
        cdef int minutes
        cdef char sign
        if second == self.date_second:
            return 0
        localtime_r(&instant, &local)
        gmtime_r(&instant, &utc)
        minutes = <int>(local.tm_gmtoff // 60)
        self.minutes_east = minutes
        sign = c'+' if minutes >= 0 else c'-'
        minutes = abs(minutes)
        self.date_size = snprintf(
            self.date, sizeof(self.date), "%.3s, %d %.3s %d %02d:%02d:%02d %c%02d%02d",
            DAYS + 3 * local.tm_wday, local.tm_mday,
            MONTHS + 3 * local.tm_mon, 1900 + local.tm_year, local.tm_hour,
            local.tm_min, local.tm_sec, sign, minutes // 60, minutes % 60,
        )
        snprintf(self.stamp, sizeof(self.stamp), "%04d-%02d-%02dT%02d:%02d:%02d.", 1900 + utc.tm_year,
                 1 + utc.tm_mon, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec)
        self.date_second = second
        return 0

    cdef int utc_minutes(self) noexcept:
        return self.minutes_east

    def date_text(self) -> str:
        """The present instant as RFC 5322 §3.3 writes it."""
        self._dates(<int64_t>self.now())
        return self.date[:self.date_size].decode("ascii")

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
