# What happens to recipients, told: lines of the log and counters.

cdef const char* DAYS = "SunMonTueWedThuFriSat"
cdef const char* MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"


@cython.final
cdef class Teller:
    """Tells what happened to recipients. One a room and configuration; `places` is a runtime.events.Places."""

    def __cinit__(self):
        self.date_second = self.stamp_minute = -1  # none formatted yet

    def __init__(self, object log not None, object clock not None, object cells not None, object places not None):
        self.log = log
        self.now = clock.now
        self.lines = log.gathered
        self.trace = log.trace if log.is_json else None  # else the log gives it what it is told of
        self.is_told = log.threshold <= 20 and log.is_json
        self.is_built = self.is_told or self.trace is not None
        self.openings = {}
        self.cells = cells
        self.c_received = places.messages_received
        self.c_bytes = places.received_bytes
        self.deliveries = places.deliveries
        self.admin_recipients = places.admin_recipients
        self.c_local = self.deliveries["local", "delivered"]
        self.c_seconds, bounds = places.delivery_seconds
        self.seconds_count = len(bounds)
        if self.seconds_count > SECONDS_BOUNDS:
            raise ValueError("too many buckets")
        for n, bound in enumerate(bounds):
            self.seconds_bounds[n] = bound
        for place in (self.c_received, self.c_bytes, *self.admin_recipients.values(), self.c_seconds, self.c_seconds + self.seconds_count + 1,
                      *self.deliveries.values()):
            if not 0 <= place < self.cells.shape[0]:
                raise IndexError(f"no metric cell {place}")

    def __dealloc__(self):
        free(self.scratch.data)

    def tell(self, Event event not None):
        """One recipient's event: its line in the log and its counters. After the commit."""
        cdef object place
        place = self.deliveries.get((event.transport, event.happened))
        if place is not None:
            self.cells[<Py_ssize_t>place] += 1
            if event.happened == "delivered":
                self.observe(event.delay_s)
        if not self.is_built:
            self._tell_fields(event)
            return
        self.scratch.size = 0
        self.put_event(self.now(), "delivery." + event.happened, event.queue_id, event.recipient, event.original,
                       event.mailbox, encode_json(event.next_hop), encode_json(event.relay), event.delay_s,
                       encode_json(event.dsn), encode_json(event.reply))
        if event.took_s >= 0:
            self.put_attempt(event)
        self.say()

    cdef int put_attempt(self, Event event) except -1:
        # Behind the last field of the line: how long the attempt took, and what TLS it had.
        cdef Text* text = &self.scratch
        text.size -= 2
        _put(text, b',"took":', 8)
        _put_seconds(text, event.took_s)
        if event.tls:
            _put(text, b',"tls":', 7)
            _put_bytes(text, encode_json(event.tls))
        return _put(text, b"}\n", 2)

    cdef int say(self) except -1:
        # Lines that have been put together go where they are wanted.
        cdef bytes lines = PyBytes_FromStringAndSize(self.scratch.data, self.scratch.size)
        if self.is_told:
            self.lines.add(lines)
        if self.trace is not None:
            self.trace.add(lines)
        return 0

    def tell_moves(self, moves not None):
        """What an administrator has done to recipients (model.events.Moves), a line each, and counted. After the commit."""
        cdef str event = "admin." + moves.act
        cdef list recipients = moves.recipients
        cdef double at = self.now()
        cdef bytes by
        by_fields = {"uid": moves.by.uid}
        for name, who in (("user", moves.by.user), ("sudo_user", moves.by.sudo_user)):
            if who is not None:
                by_fields[name] = who.encode("utf-8", "backslashreplace").decode()
        self.cells[<Py_ssize_t>self.admin_recipients[moves.happened]] += len(recipients)
        if not recipients:
            return
        if not self.is_built:
            for queue_id, _, recipient in recipients:
                self.log.info(event, queue_id=queue_id_text(queue_id), recipient=recipient, **by_fields)
            return
        by = encode_json(by_fields)
        self.scratch.size = 0
        for queue_id, _, recipient in recipients:
            self.put_act(at, event, queue_id, recipient, by)
        self.say()

    cdef int put_act(self, double at, str event, uint64_t queue_id, bytes recipient, bytes by) except -1:
        # The line of one recipient; `by` is a JSON object of who did it.
        cdef Text* text = &self.scratch
        self.put_opening(at, self.opening(event))
        _put(text, b',"queue_id":"', 13)
        _put_queue_id(text, queue_id)
        _put(text, b'","recipient":"', 15)
        _put_json(text, PyBytes_AS_STRING(recipient), PyBytes_GET_SIZE(recipient))
        _put(text, b'",', 2)
        _put(text, PyBytes_AS_STRING(by) + 1, PyBytes_GET_SIZE(by) - 1)
        return _put(text, b"\n", 1)

    def _tell_fields(self, Event event):
        self.log.info(
            "delivery." + event.happened, queue_id=queue_id_text(event.queue_id), recipient=event.recipient,
            original_recipient=event.original or None, mailbox=event.mailbox or None, next_hop=event.next_hop,
            relay=event.relay, delay=round(event.delay_s, 3), dsn=event.dsn, reply=event.reply,
            took=round(event.took_s, 3) if event.took_s >= 0 else None, tls=event.tls or None,
        )

    def date_text(self) -> str:
        """The present instant as RFC 5322 §3.3 writes it."""
        self.dates(<int64_t>self.now())
        return self.date[:self.date_size].decode("ascii")

    cdef bytes opening(self, str event):
        # What stands in every line of this kind, the process's own fields among it; b"" where none is put together here.
        cdef bytes known = self.openings.get(event)
        if known is None:
            named = f'"event":"{event}"'
            known = (named + self.log.opening(event, "info").partition(named)[2]).encode() if self.is_built else b""
            self.openings[event] = known
        return known

    cdef int observe(self, double seconds) except -1:
        # delivery_seconds: c_seconds + 1 + n is a cell, as __init__ has checked; n <= seconds_count.
        cdef int64_t units = <int64_t>(seconds * 1e6) if seconds > 0 else 0
        cdef int n = 0
        while n < self.seconds_count and units > self.seconds_bounds[n]:
            n += 1
        self.cells[self.c_seconds] += <uint64_t>units
        self.cells[self.c_seconds + 1 + n] += 1
        return 0

    cdef int dates(self, int64_t second) except -1:
        # Formats the instant for header fields (RFC 5322 §3.3), once a second.
        cdef tm local
        cdef time_t instant = second
        cdef int minutes
        cdef char sign
        if second == self.date_second:
            return 0
        localtime_r(&instant, &local)
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
        self.date_second = second
        return 0

    cdef int put_opening(self, double at, bytes fields) except -1:
        # {"at":...,"level":"info","event":...: how every line begins. What stands before the seconds is kept for a minute.
        cdef Text* text = &self.scratch
        cdef int64_t second = <int64_t>at
        cdef time_t instant = second
        cdef tm utc
        if second // 60 != self.stamp_minute:
            gmtime_r(&instant, &utc)
            self.stamp_size = snprintf(
                self.stamp, sizeof(self.stamp), '{"at":"%04d-%02d-%02dT%02d:%02d:', 1900 + utc.tm_year, 1 + utc.tm_mon,
                utc.tm_mday, utc.tm_hour, utc.tm_min,
            )
            self.stamp_minute = second // 60
        _put(text, self.stamp, self.stamp_size)
        _put_digits(text, second % 60, 2)
        _put(text, b".", 1)
        _put_digits(text, <int64_t>((at - second) * 1000), 3)
        _put(text, b'Z","level":"info",', 18)
        return _put_bytes(text, fields)

    cdef int put_event(self, double at, str event, uint64_t queue_id, bytes recipient, bytes original, bytes mailbox,
                       bytes next_hop, bytes relay, double delay, bytes dsn, bytes reply) except -1:
        # The line of one recipient's event; what comes behind the mailbox is JSON, apart from the delay.
        cdef Text* text = &self.scratch
        self.put_opening(at, self.opening(event))
        _put(text, b',"queue_id":"', 13)
        _put_queue_id(text, queue_id)
        _put(text, b'","recipient":"', 15)
        _put_json(text, PyBytes_AS_STRING(recipient), PyBytes_GET_SIZE(recipient))
        if original and original != recipient:
            _put(text, b'","original_recipient":"', 24)
            _put_json(text, PyBytes_AS_STRING(original), PyBytes_GET_SIZE(original))
        if mailbox:
            _put(text, b'","mailbox":"', 13)
            _put_json(text, PyBytes_AS_STRING(mailbox), PyBytes_GET_SIZE(mailbox))
        _put(text, b'","next_hop":', 13)
        _put_bytes(text, next_hop)
        _put(text, b',"relay":', 9)
        _put_bytes(text, relay)
        _put(text, b',"delay":', 9)
        _put_seconds(text, delay)
        _put(text, b',"dsn":', 7)
        _put_bytes(text, dsn)
        _put(text, b',"reply":', 9)
        _put_bytes(text, reply)
        return _put(text, b"}\n", 2)

    cdef int put_received(self, Posting posting, double at) except -1:
        # The one record that every accepted message has; recipients beyond a bound are only counted.
        cdef Text* text = &self.scratch
        cdef bytes reverse_path = posting.envelope.reverse_path
        cdef Recipient recipient
        cdef Py_ssize_t told = 0
        cdef str login = posting.envelope.authenticated_as
        cdef str tenant
        self.put_opening(at, self.opening(posting.event))
        if posting.session:
            _put(text, b',"session":', 11)
            _put_number(text, <int64_t>posting.session)
        _put(text, b',"queue_id":"', 13)
        _put_queue_id(text, posting.queue_id)
        _put(text, b'","client":"', 12)
        _put_json_str(text, posting.envelope.client)
        if login:
            _put(text, b'","login":"', 11)
            _put_json_str(text, login)
        _put(text, b'","from":"', 10)
        _put_json(text, PyBytes_AS_STRING(reverse_path), PyBytes_GET_SIZE(reverse_path))
        _put(text, b'","to":[', 8)
        for recipient in posting.recipients:
            _put(text, b',"' if told else b'"', 2 if told else 1)
            _put_json(text, PyBytes_AS_STRING(recipient.forward_path), PyBytes_GET_SIZE(recipient.forward_path))
            _put(text, b'"', 1)
            told += 1
            if told == LOGGED:
                break
        _put(text, b'],"recipients":', 15)
        _put_number(text, posting.recipients_in_all or len(posting.recipients))
        _put(text, b',"size":', 8)
        _put_number(text, posting.octets)
        tenant = posting.tenant()
        if tenant:
            _put(text, b',"tenant":"', 11)
            _put_json_str(text, tenant)
            _put(text, b'"', 1)
        if posting.message_id:
            _put(text, b',"message_id":"', 15)
            _put_json(text, PyBytes_AS_STRING(posting.message_id), PyBytes_GET_SIZE(posting.message_id))
            _put(text, b'"', 1)
        return _put(text, b"}\n", 2)
