# Functions on a Connection: the end of a message, its one unit in the store, and the answer.

cdef int _end_of_message(Connection self) except -1:
    cdef object refusal
    self.last_tick = self.service.tick
    if self.failure == FAIL_NONE and self.held_size:
        _keep_held(self)
    refusal = _verdict(self)
    if self.failure == FAIL_BARE:
        self.close_after_reply()  # this peer may be carrying somebody else's commands: no more of them
    if refusal is None:
        if self.stages & ASK_END:
            outcome = self.service.host.message_came(self)
            return 0 if outcome is None else _decided(self, outcome)
        try:
            _submit(self)
            return 0
        except StorageFailure:
            refusal = Reply(452, "4.3.1", "Insufficient system storage")
    return _conclude(self, refusal)


cdef int _decided(Connection self, object outcome) except -1:
    # What all checks come to (model.verdict.Outcome).
    refusal = outcome.reply
    if refusal is None:
        try:
            self.outcome = outcome
            if outcome.discard or len(outcome.refused) == len(self.recipients):
                return _conclude(self, None)  # which gives the body up
            if outcome.redirect:
                refusal = _redirect(self, outcome.redirect)
            if refusal is None:
                for start, octets in outcome.cuts:
                    self.blob.cut(start, start + octets)
                if outcome.refused or outcome.hold or outcome.quarantine:
                    _apply(self, outcome)
                _submit(self)
                return 0
        except StorageFailure:
            refusal = Reply(452, "4.3.1", "Insufficient system storage")
    return _conclude(self, refusal)


cdef bytes _structure_of_cut(Connection self, bytes head):
    # The structure of a message of whose header not all is shown.
    cdef bytes header = b""
    cdef bytes piece
    cdef Py_ssize_t end = -1
    cdef Py_ssize_t at = 0
    while end < 0:
        piece = self.blob.read(len(header), 65536)
        header += piece
        end = header.find(b"\r\n\r\n")
        if len(piece) < 65536:
            break
    if end >= 0:
        header = header[:end + 2]
    shown = [head]
    for start, stop in self.blob.cuts:
        shown.append(header[at:start])
        at = stop
    shown.append(header[at:])
    return self.structure.finish(0, head, self.blob.body.cut_length, b"".join(shown))


cdef object _redirect(Connection self, bytes path):
    # The message goes to this address instead of its recipients. None, or the reply where there is no such address.
    cdef uint64_t at = 0
    cdef bytes piece
    answer = self.service._resolve(path, True)
    if isinstance(answer, Reply):
        return answer
    self.recipients = [answer]
    self.has_local = (<Recipient>answer).has_local
    if self.has_local and self.structure is None:  # nobody had asked for it so far
        self.structure = Structure()
        while True:
            piece = self.blob.read(at, 65536)
            if not piece:
                break
            self.structure.feed_c(PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))
            at += PyBytes_GET_SIZE(piece)
    return None


cdef int _apply(Connection self, object outcome) except -1:
    # Changes where the message goes. Whom a check refuses after others were accepted is told so at once in LMTP
    # (RFC 2033 §4.2); in SMTP, which has one reply for all, its sender gets a report.
    cdef list changed = []
    cdef Recipient recipient
    cdef Recipient other
    cdef Target target
    cdef Target copy
    cdef Py_ssize_t i = 0
    cdef bytes hop
    for recipient in self.recipients:
        other = <Recipient>Recipient.__new__(Recipient)
        other.forward_path = recipient.forward_path
        other.resolution = recipient.resolution
        other.tick = recipient.tick
        other.targets = []
        reply = outcome.refused.get(i)
        if reply is not None and self.service.lmtp:
            other.has_local = True  # nothing of it goes into the queue
        else:
            for target in recipient.targets:
                hop = target.hop
                if reply is not None:
                    hop = f"error:{reply.enhanced} {reply.text}"[:200].encode("utf-8", "replace")
                if reply is not None or outcome.hold or target.mailbox_id == 0:
                    copy = Target(hop, target.tail, None, None, 0, target.held or (outcome.hold and reply is None))
                else:  # without a report of success: it would tell whoever is suspected
                    copy = Target(hop, target.tail, target.address, target.mailbox, target.mailbox_id, False)
                    copy.account_id = target.account_id
                    copy.mailbox_id = self.service.host.junk_mailbox(target.account_id) or target.mailbox_id
                    other.has_local = True
                other.targets.append(copy)
        changed.append(other)
        i += 1
    self.recipients = changed
    return 0


cdef object _verdict(Connection self):
    # None, or the reply that refuses the message as a whole.
    if self.failure == FAIL_BARE:
        return Reply(550, "5.6.11", "Error: bare <CR> or <LF> received")
    if self.failure == FAIL_SIZE:
        return Reply(552, "5.3.4", "Error: message file too big")
    if self.failure == FAIL_STORAGE:
        return Reply(452, "4.3.1", "Insufficient system storage")
    if self.failure == FAIL_UPLOADS:
        return Reply(452, "4.7.0", f"Error: too many unfinished messages from {self.peer_ip}")
    if self.scan.received > self.service.hop_limit:
        return Reply(554, "5.4.6", "Error: too many hops")
    return None


cdef int _submit(Connection self) except -1:
    # One unit: the blob; a message in each local mailbox; the queue's entry and each queued recipient.
    cdef Service service = self.service
    cdef Unit unit = service.store.new_unit()
    cdef uint64_t queue_id = self.queue_id
    cdef uint64_t blob_id = self.blob.blob_id
    cdef int64_t now_ms
    cdef Recipient recipient
    cdef Target target
    cdef Py_ssize_t total = 0
    cdef Py_ssize_t n = 0
    cdef Py_ssize_t looping = 0
    cdef int lane
    cdef bint queued = False
    cdef list loops = None
    cdef bytes envelope
    cdef bytes structure = None
    cdef bytes head
    cdef bytes prefix
    cdef set mailboxes = None
    cdef set reported = None  # mailboxes that the hop local: delivers to, whoever else named them
    self.accepted_at = service.now()
    now_ms = <int64_t>(self.accepted_at * 1000)
    self.blob.bits = self.data.bits
    _compose_head(self)
    self.blob.put_head(service.scratch.data, service.scratch.size)
    for recipient in self.recipients:
        total += len(recipient.targets)
        queued |= not recipient.has_local
    if self.has_local:
        head = PyBytes_FromStringAndSize(service.scratch.data, service.scratch.size)
        structure = self.structure.finish(0, head) if self.blob.cuts is None else _structure_of_cut(self, head)
        loops = self.scan.delivered_to_addresses()
        mailboxes = set()
        self.local_targets = []
        for recipient in self.recipients:
            for target in recipient.targets:
                if target.mailbox_id == 0:
                    queued = True
                elif loops and target.address.lower() in loops:
                    looping += 1
                elif target.reported:
                    queued = True
                    if reported is None:
                        reported = set()
                    reported.add(target.mailbox_id)
        if looping == total:
            _conclude(self, Reply(554, "5.4.6", "Error: mail forwarding loop"))
            return 0
        queued |= looping > 0
    if total > BULK_RECIPIENTS or <int64_t>self.blob.size > BULK_BYTES:  # queue/scheduler.lane_for's rule
        lane = LANES[2]
    else:
        lane = LANES[0] if total <= SMALL_RECIPIENTS and <int64_t>self.blob.size <= SMALL_BYTES else LANES[1]
    envelope = encode(Envelope(
        self.reverse_path, now_ms, self.blob.size, self.data.bits, self.client, self.login, self.envid, self.ret,
        self.smtputf8, "LMTP" if service.lmtp else "ESMTP" if self.esmtp else "SMTP",
    ))
    unit.blob(self.blob)
    if queued:
        unit.enqueue(queue_id, blob_id, envelope)
    for recipient in self.recipients:
        for target in recipient.targets:
            if target.mailbox_id == 0:
                unit.recipient(queue_id, <int>n, target.hop, lane, HELD if target.held else ACTIVE, now_ms, target.tail)
            elif loops and target.address.lower() in loops:
                unit.recipient(queue_id, <int>n, LOOP_HOP, lane, ACTIVE, now_ms, target.tail)
            elif target.mailbox_id in mailboxes:
                pass  # two names of one mailbox: it gets the message once
            elif reported is not None and target.mailbox_id in reported:
                # RFC 3461 §5.2.1: told once it is delivered, which may be refused inside the unit: so by the queue.
                if target.reported:
                    mailboxes.add(target.mailbox_id)
                    unit.recipient(queue_id, <int>n, target.hop, lane, ACTIVE, now_ms, target.tail)
            else:
                mailboxes.add(target.mailbox_id)
                prefix = b"Return-Path: <" + self.reverse_path + b">\r\nDelivered-To: " + target.address + b"\r\n"
                unit.deliver(target.mailbox_id, blob_id, prefix, 0, b"", now_ms // 1000, service.utc_minutes(),
                             structure, queue_id, <int>n, target.hop, target.tail, envelope)
                self.local_targets.append((n, target, recipient))
            n += 1
    self.refusals = None
    self.taking_back = False
    self.waiting |= WAIT_COMMIT
    try:
        service.store.submit_c(unit, self)
    except BaseException:
        self.waiting &= ~WAIT_COMMIT
        raise
    return 0


cdef int _committed(Connection self, Unit unit) except -1:
    cdef Service service = self.service
    if self.taking_back:
        self.taking_back = False
        if unit.u.status != 1:
            self.refusals = None
        return _conclude(self, None)
    self.blob = None  # the store's from here on, or forgotten by it
    if unit.u.status == 2:
        return _conclude(self, Reply(451, "4.3.0", "Error: a mailbox changed meanwhile, try again"))
    if unit.u.status != 1 and unit.failure == "damaged":
        return _conclude(self, Reply(451, "4.3.0", "Error: the mail store cannot take this message now"))
    if unit.u.status != 1:
        return _conclude(self, Reply(452, "4.3.1", "Insufficient system storage"))
    service.cells[service.c_received] += 1
    service.cells[service.c_bytes] += <uint64_t>self.size
    if service.crash is not None:
        service.crash.crash_point("before_250")
    if service.log_info:
        _log_received(self)
    else:
        service.host.received(self)
    if self.local_targets and _local_results(self, unit.results):
        return 0
    _conclude(self, None)
    if service.crash is not None:
        service.host.crash_soon("after_250")
    return 0


cdef int _local_results(Connection self, list results) except -1:
    # Each `deliver` gave where the message lies, or the word for why it became a queued recipient instead. LMTP does
    # not queue what a mailbox refused (RFC 2033 §4.2): a second unit takes those out again, and only if it finds them
    # is the client told; else the queue has dealt with them already. 1: that unit is on its way.
    cdef Service service = self.service
    cdef Unit unit = None
    cdef Py_ssize_t i = 0
    cdef double now = service.now()
    cdef double delay = now - self.accepted_at if now > self.accepted_at else 0.0
    self.refusals = {}
    service.scratch.size = 0
    for n, target, recipient in self.local_targets:
        word = results[i]
        i += 1
        if isinstance(word, tuple):
            service.cells[service.c_local] += 1
            service.observe_seconds(delay)
            if service.log_info:
                _put_delivered(self, <Target>target, <Recipient>recipient, now, delay)
            else:
                service.host.delivered(self, target, recipient, delay)
            continue
        service.host.not_delivered(self, (<Target>target).address, word)
        if service.lmtp:
            if unit is None:
                unit = service.store.new_unit()
            unit.move_recipient(self.queue_id, n, 0, BOUNCED, 1, 0, MAILBOX_REFUSALS[word].encode())
            self.refusals[n] = MAILBOX_REFUSALS[word]
    if service.scratch.size:
        service.log_line(PyBytes_FromStringAndSize(service.scratch.data, service.scratch.size))
    if unit is None:
        return 0
    self.waiting |= WAIT_COMMIT
    self.taking_back = True
    try:
        service.store.submit_c(unit, self)
    except BaseException:
        self.waiting &= ~WAIT_COMMIT
        raise
    return 1


cdef int _conclude(Connection self, object reply) except -1:
    # Answers the end of the message, by `reply` or with 250, once or (LMTP, RFC 2033 §4.2) for each recipient; the
    # transaction is over.
    cdef Text* out = &self.service.out
    cdef Py_ssize_t answers = len(self.recipients) if self.service.lmtp and self.recipients is not None else 1
    cdef Py_ssize_t i
    cdef Py_ssize_t n = 0
    cdef Recipient recipient
    if reply is None:
        self.errors = 0
        self.junk = 0
        for i in range(answers):
            if self.outcome is not None and self.service.lmtp and i in self.outcome.refused:
                refusal = self.outcome.refused[i]
                _put_bytes(out, refusal.encode())
                self.service.host.refused(self, VERB_DATA, refusal)
                if self.refusals:
                    n += len((<Recipient>self.recipients[i]).targets)
                continue
            if self.refusals:
                recipient = <Recipient>self.recipients[i]
                refusal = None
                for _ in recipient.targets:
                    refusal = refusal or self.refusals.get(n)
                    n += 1
                if refusal is not None:  # no error of the client's, so it does not count towards its limits
                    _put_bytes(out, refusal.encode())
                    self.service.host.refused(self, VERB_DATA, refusal)
                    continue
            _put(out, b"250 2.0.0 Ok: queued as ", 24)
            _put_queue_id(out, self.queue_id)
            _put(out, b"\r\n", 2)
    else:
        for i in range(answers - 1):
            _put_bytes(out, reply.encode())
        _answer(self, reply, VERB_DATA)
    self.reset()
    return 0


cdef int _put_opening(Service service, double at, bytes fields) except -1:
    # {"at":...,"level":"info","event":...: how every line begins.
    cdef Text* text = &service.scratch
    cdef char milliseconds[8]
    service._dates(<int64_t>at)
    _put(text, b'{"at":"', 7)
    _put(text, service.stamp, 20)
    snprintf(milliseconds, sizeof(milliseconds), "%03dZ", <int>((at - <int64_t>at) * 1000))
    _put(text, milliseconds, 4)
    _put(text, b'","level":"info",', 17)
    return _put_bytes(text, fields)


cdef int _put_delivered(Connection self, Target target, Recipient recipient, double now, double delay) except -1:
    # The line of a recipient whose mailbox has the message: the fields of delivery/recorder.DeliveryLine.
    cdef Text* text = &self.service.scratch
    cdef char seconds[32]
    _put_opening(self.service, now, self.service.delivered_fields)
    _put(text, b',"queue_id":"', 13)
    _put_queue_id(text, self.queue_id)
    _put(text, b'","recipient":"', 15)
    _put_json(text, PyBytes_AS_STRING(target.address), PyBytes_GET_SIZE(target.address))
    if target.address != recipient.forward_path:
        _put(text, b'","original_recipient":"', 24)
        _put_json(text, PyBytes_AS_STRING(recipient.forward_path), PyBytes_GET_SIZE(recipient.forward_path))
    _put(text, b'","mailbox":"', 13)
    _put_json(text, PyBytes_AS_STRING(target.mailbox), PyBytes_GET_SIZE(target.mailbox))
    _put(text, b'","next_hop":"local:","relay":"local","delay":', 46)
    snprintf(seconds, sizeof(seconds), "%.3f", delay)
    _put(text, seconds, strlen(seconds))
    return _put(text, b',"dsn":"2.0.0","reply":"250 2.0.0 delivered to mailbox"}\n', 57)


cdef int _log_received(Connection self) except -1:
    # The one record that every accepted message has; recipients beyond a bound are only counted.
    cdef Service service = self.service
    cdef Text* text = &service.scratch
    cdef bytes client = self.client.encode()
    cdef bytes login
    cdef Recipient recipient
    cdef Py_ssize_t told = 0
    text.size = 0
    _put_opening(service, self.accepted_at, service.received_fields)
    _put(text, b',"session":', 11)
    _put_number(text, <int64_t>self.number)
    _put(text, b',"queue_id":"', 13)
    _put_queue_id(text, self.queue_id)
    _put(text, b'","client":"', 12)
    _put_json(text, PyBytes_AS_STRING(client), PyBytes_GET_SIZE(client))
    if self.login:
        login = self.login.encode()
        _put(text, b'","login":"', 11)
        _put_json(text, PyBytes_AS_STRING(login), PyBytes_GET_SIZE(login))
    _put(text, b'","from":"', 10)
    _put_json(text, PyBytes_AS_STRING(self.reverse_path), PyBytes_GET_SIZE(self.reverse_path))
    _put(text, b'","to":[', 8)
    for recipient in self.recipients:
        _put(text, b',"' if told else b'"', 2 if told else 1)
        _put_json(text, PyBytes_AS_STRING(recipient.forward_path), PyBytes_GET_SIZE(recipient.forward_path))
        _put(text, b'"', 1)
        told += 1
        if told == LOGGED:
            break
    _put(text, b'],"recipients":', 15)
    _put_number(text, len(self.recipients))
    _put(text, b',"size":', 8)
    _put_number(text, self.size)
    _put(text, b"}\n", 2)
    service.log_line(PyBytes_FromStringAndSize(text.data, text.size))
    return 0
