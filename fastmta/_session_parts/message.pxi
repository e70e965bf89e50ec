# Functions on a Connection: the message's bytes, from 354 or BDAT to the last of them.

cdef inline int bare_mode(Connection self) noexcept:
    return BARE_KEEP if self.keeps_bare else self.service.bare_newline


cdef int _begin_message(Connection self) except -1:
    # Leaves `blob` None where the store has no room.
    cdef Service service = self.service
    self.failure = FAIL_NONE
    self.size = 0
    self.counted = UPLOAD_FREE_BYTES
    self.blinds = service.submission or self.login != ""
    self.field = FIELD_KEPT
    self.line_begins = True
    self.held_size = 0
    self.chunk_last = False
    self.added = None
    data_begin(&self.data)
    self.blob = None
    if self.room_tick != service.tick and not service.storage_ok():  # it is looked at once a second
        return 0
    try:
        self.queue_id = service.engine.new_id()
        self.blob = service.engine.new_blob()
        self.accepted_at = service.now()
        if self.scan is None:
            self.scan = HeaderScan()
        else:
            self.scan.begin()
        self.structure = Structure() if self.has_local else None
    except StorageFailure:
        if self.blob is not None:
            self.blob.abandon()
            self.blob = None
    return 0


cdef int _compose_head(Connection self) except -1:
    # What stands in front of what came: our trace field (RFC 5321 §4.4), and what a submitted message must have and lacks
    # (RFC 6409 §8.2, §8.3). In the service's scratch.
    cdef Service service = self.service
    cdef Text* text = &service.scratch
    service.teller.dates(<int64_t>self.accepted_at)
    text.size = 0
    if self.outcome is not None:
        _put_bytes(text, self.outcome.head)
    _put(text, b"Received: from ", 15)
    _put_bytes(text, self.helo if self.helo else b"unknown")
    _put_bytes(text, self.client_field)
    if self.tls:
        _put_bytes(text, self.tls_field)
    _put_bytes(text, service.received_by)
    # RFC 3848, and RFC 6531 §4.3 for the UTF8 forms.
    if self.smtputf8:
        _put(text, b"UTF8", 4)
    if service.lmtp:
        _put(text, b"LMTP", 4)
    elif self.esmtp:
        _put(text, b"ESMTP" if not self.smtputf8 else b"SMTP", 5 if not self.smtputf8 else 4)
    else:
        _put(text, b"SMTP", 4)
    if self.tls:
        _put(text, b"S", 1)
    if self.login:
        _put(text, b"A", 1)
    _put(text, b" id ", 4)
    _put_queue_id(text, self.queue_id)
    if len(self.recipients) == 1:
        _put(text, b"\r\n\tfor <", 8)
        _put_bytes(text, (<Recipient>self.recipients[0]).forward_path)
        _put(text, b">", 1)
    _put(text, b"; ", 2)
    _put(text, service.teller.date, service.teller.date_size)
    _put(text, b"\r\n", 2)
    if service.submission:
        _put_bytes(text, _added_fields(self))
    return 0


cdef bytes _added_fields(Connection self):
    # Date and Message-ID where a submitted message lacks them; the same however often it is asked, since a check may sign
    # them.
    cdef Service service = self.service
    cdef bytes made = b""
    if self.added is None:
        if service.submission and not self.scan.has_date:
            service.teller.dates(<int64_t>self.accepted_at)
            made = b"Date: " + service.teller.date[:service.teller.date_size] + b"\r\n"
        if service.submission and not self.scan.has_message_id:
            made += service.host.message_id(self.queue_id, self.accepted_at)
        self.added = made
    return self.added


cdef const char* _message(Connection self, const char* p, const char* end, bint dots) except NULL:
    # Takes what belongs to the message and gives the place behind it. Without `dots` all of p..end does (BDAT).
    cdef const char* begin = p
    cdef const char* run
    cdef Py_ssize_t length
    cdef bytes buffer
    cdef int step = DATA_MORE
    if dots and bare_mode(self) == BARE_NORMALIZE:
        buffer = PyBytes_FromStringAndSize(NULL, 2 * (end - p) + 2)
        step = data_normalize(&self.data, &p, end, PyBytes_AS_STRING(buffer), &length)
        if length:
            _take(self, PyBytes_AS_STRING(buffer), length)
    elif self.failure == FAIL_DISCARD:
        p = end
    else:
        while True:
            step = data_next(&self.data, &p, end, &run, &length, dots)
            if step != DATA_RUN:
                break
            if self.data.bits & BIT_BARE and bare_mode(self) == BARE_REJECT:
                _fail(self, FAIL_BARE)
            _take(self, run, length)
    if self.data.bits & BIT_BARE and bare_mode(self) == BARE_REJECT:
        _fail(self, FAIL_BARE)
    if dots:
        if step == DATA_END:
            _end_of_message(self)
    else:
        self.chunk_left -= end - begin
        if self.chunk_left == 0:
            _chunk_done(self)
    if self.blob is not None and self.blob.in_flight and not self.waiting and self.blob.congested:
        self.blob.on_drain = self._drained
        self._pause(WAIT_BLOB)
    return p


cdef int _fail(Connection self, int failure) except -1:
    # The rest of the message is read and dropped; the first reason counts.
    if self.failure == FAIL_NONE:
        self.failure = failure
        self.structure = None
        if self.blob is not None:
            self.blob.abandon()
            self.blob = None
        _uncount(self)
    return 0


cdef int _count(Connection self) except -1:
    # More of the message has come than is counted as under way.
    cdef int64_t steps = (self.size - self.counted + UPLOAD_STEP_BYTES - 1) // UPLOAD_STEP_BYTES
    if self.upload is None:
        self.upload = self.service.host.upload(self)
    self.counted += steps * UPLOAD_STEP_BYTES
    if not self.upload.grow(steps * UPLOAD_STEP_BYTES):
        _fail(self, FAIL_UPLOADS)
    return 0


cdef int _uncount(Connection self) except -1:
    if self.upload is not None:
        self.upload.end()
        self.upload = None
    return 0


cdef int _take(Connection self, const char* p, Py_ssize_t n) except -1:
    cdef Py_ssize_t header_end
    self.size += n
    if self.failure != FAIL_NONE:
        return 0
    if self.service.size_limit and self.size > self.service.size_limit:
        return _fail(self, FAIL_SIZE)
    if self.size > self.counted:
        _count(self)
        if self.failure != FAIL_NONE:
            return 0
    if not self.scan.done():
        header_end = self.scan.feed_c(p, n)
        if self.blinds:
            if header_end < 0 and not self.scan.done():
                return _keep_seen(self, p, n)
            if header_end > 0:
                _keep_seen(self, p, header_end)
                p += header_end
                n -= header_end
                header_end = 0
            _keep_held(self)
        if header_end >= 0 and self.service.submission and not self.scan.ended_by_blank:
            if header_end:  # a header without an empty line behind it gets one
                _keep(self, p, header_end)
            _keep(self, b"\r\n", 2)
            p += header_end
            n -= header_end
    return _keep(self, p, n)


cdef int _keep(Connection self, const char* p, Py_ssize_t n) except -1:
    if self.failure != FAIL_NONE:
        return 0
    if self.structure is not None:
        self.structure.feed_c(p, n)
    try:
        self.blob.write(p, n)
    except StorageFailure:
        _fail(self, FAIL_STORAGE)
    return 0


cdef int _bdat(Connection self, const char* p, Py_ssize_t n, bint in_order) except -1:
    # RFC 3030 §2. The octets announced are taken in any case, so that none of them is ever read as a command.
    cdef Py_ssize_t digits = 0
    cdef int64_t size
    cdef bint last
    while digits < n and p[digits] != c' ':
        digits += 1
    size = parse_decimal(p, digits)
    while n > digits and p[n - 1] == c' ':
        n -= 1
    last = n - digits == 5 and equals_nocase(p + digits, 5, b" LAST", 5)
    if size < 0 or (n > digits and not last):
        return _answer(self, Reply(501, "5.5.4", "Syntax: BDAT octets [LAST]"), VERB_BDAT)
    self.last_tick = self.service.tick
    if not in_order:
        reply = self.service.rules.out_of_sequence(self, VERB_BDAT)
    elif self.state == IN_RCPT:
        _begin_message(self)
        reply = None if self.blob is not None else Reply(452, "4.3.1", "Insufficient system storage")
    else:
        reply = None
    if reply is None and self.service.size_limit and self.size + size > self.service.size_limit:
        reply = Reply(552, "5.3.4", "Message size exceeds fixed limit")
    if reply is not None:
        if in_order and last:
            _conclude(self, reply)
        else:
            self.reset()
            _answer(self, reply, VERB_BDAT)
        if self.closing:
            return 0
        self.failure = FAIL_DISCARD
    else:
        self.bdat = True
        self.state = <uint8_t>PyBytes_AS_STRING(self.service.table)[self.state * VERBS + VERB_BDAT]
    self.chunk_last = last
    self.chunk_left = size
    if size == 0:
        return _chunk_done(self)
    return 0


cdef int _chunk_done(Connection self) except -1:
    if self.failure == FAIL_DISCARD:
        self.failure = FAIL_NONE
        return 0
    if self.stages & ASK_DATA and not self.data_asked and self.failure == FAIL_NONE:
        self.data_asked = True
        return _ask(self, VERB_BDAT, IN_BDAT, "", 0, False)
    return _chunk_taken(self)


cdef int _chunk_judged(Connection self, object reply) except -1:
    # The checks of DATA have seen the first chunk (RFC 3030 has no place for them before it).
    cdef int code = reply.code
    if code < 400:
        return _chunk_taken(self)
    if self.chunk_last:
        return _conclude(self, reply)
    self.reset()
    return _answer(self, reply, VERB_BDAT)


cdef int _chunk_taken(Connection self) except -1:
    cdef Text* out = &self.service.out
    if self.chunk_last:
        if self.data.state == 2:  # the last octet of all is a CR
            self.data.bits |= BIT_BARE
            if bare_mode(self) == BARE_REJECT:
                _fail(self, FAIL_BARE)
        if self.data.state != 0:
            self.data.bits |= BIT_NO_FINAL_CRLF
        return _end_of_message(self)
    if self.failure != FAIL_NONE:
        return _end_of_message(self)
    _put(out, b"250 2.0.0 ", 10)
    _put_number(out, self.size)
    return _put(out, b" octets received\r\n", 18)
