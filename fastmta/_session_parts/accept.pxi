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
            if outcome.body is not None:
                _replace_body(self, outcome.body)
            if outcome.redirect:
                refusal = _redirect(self, outcome.redirect)
            if refusal is None:
                for start, octets in outcome.cuts:
                    self.blob.cut(start, start + octets)
                if outcome.refused or outcome.hold or outcome.quarantine or outcome.removed:
                    _apply(self, outcome)
                _submit(self)
                return 0
        except StorageFailure:
            refusal = Reply(452, "4.3.1", "Insufficient system storage")
    return _conclude(self, refusal)


cdef int _replace_body(Connection self, object body) except -1:
    # A filter has made another message of it, whose header is that which came (policy.new_body.NewBody).
    self.blob.abandon()
    self.blob = <Blob>body.blob
    self.structure = <Structure>body.structure
    self.data.bits = body.bits
    return 0


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
    answer = self.service._resolve(path, True)
    if isinstance(answer, Reply):
        return answer
    self.recipients = [answer]
    self.has_local = (<Recipient>answer).has_local
    _look_at_structure(self)
    return None


cdef int _look_at_structure(Connection self) except -1:
    # A mailbox takes the message, and nobody had asked for its structure while it came.
    cdef uint64_t at = 0
    cdef bytes piece
    if not self.has_local or self.structure is not None:
        return 0
    self.structure = Structure()
    while True:
        piece = self.blob.read(at, 65536)
        if not piece:
            return 0
        self.structure.feed_c(PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))
        at += PyBytes_GET_SIZE(piece)


cdef object _adjust(Connection self, bytes sender):
    # The recipients with their copies, and where their sender has them go. TemporaryFailure puts the message off.
    cdef list found
    cdef Recipient recipient
    cdef Py_ssize_t named = len(self.recipients)
    cdef Py_ssize_t i = 0
    cdef object outcome = self.outcome
    cdef str through = self.service.through
    if outcome is not None:
        through = outcome.filter_over(through)
    found = self.service.directory.adjusted(
        sender, self.recipients, more=() if outcome is None else outcome.copies, through=through)
    self.has_local = False
    for recipient in found:
        if i >= named and outcome is not None and outcome.hold:
            recipient = recipient.with_targets([(<Target>each).moved((<Target>each).hop, True, 0) for each in recipient.targets])
            found[i] = recipient
        self.has_local |= recipient.has_local
        i += 1
    _look_at_structure(self)
    return found


cdef int _apply(Connection self, object outcome) except -1:
    # Changes where the message goes. Whom a check refuses after others were accepted is told so at once in LMTP
    # (RFC 2033 §4.2); in SMTP, which has one reply for all, its sender gets a report.
    cdef list changed = []
    cdef Recipient recipient
    cdef Target target
    cdef list targets
    cdef Py_ssize_t i = 0
    cdef bytes hop
    cdef uint64_t mailbox_id
    for recipient in self.recipients:
        targets = []
        reply = outcome.refused.get(i) if not outcome.redirect else None
        if i in outcome.removed and not outcome.redirect:
            pass  # a filter has taken him off
        elif reply is None or not self.service.lmtp:  # else nothing of it goes into the queue
            for target in recipient.targets:
                hop = target.hop
                mailbox_id = 0
                if reply is not None:
                    hop = f"error:{reply.enhanced} {reply.text}"[:200].encode("utf-8", "replace")
                elif not outcome.hold and target.mailbox_id:
                    mailbox_id = target.mailbox_id
                    if outcome.quarantine:
                        mailbox_id = self.service.host.junk_mailbox(target.account_id) or mailbox_id
                targets.append(target.moved(hop, target.held or (outcome.hold and reply is None), mailbox_id))
        changed.append(recipient.with_targets(targets))
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


cdef bytes _message_id(Connection self):
    # Its own, or the one that we add to what is submitted without.
    cdef bytes line
    if self.scan.has_message_id or self.added is None:
        return self.scan.message_id()
    for line in self.added.splitlines():
        if line.startswith(b"Message-ID: "):
            return line[12:]
    return b""


cdef Recipient _kept(Recipient recipient):
    # The same recipient, for whom a mailbox does not take the message yet.
    cdef Target target
    return recipient.with_targets([
        target.moved(target.hop, target.held, 0) if target.mailbox_id else target for target in recipient.targets
    ])


cdef int _submit(Connection self) except -1:
    # One unit with the posting of this message, or the answer that it loops.
    cdef Service service = self.service
    cdef Unit unit
    cdef Body body
    cdef Posting posting
    cdef bytes head
    cdef object recipients = self.recipients
    cdef bytes sender = self.reverse_path
    if self.outcome is not None and self.outcome.sender is not None:
        sender = self.outcome.sender
    if service.adjusts or (
        self.outcome is not None and (self.outcome.copies or self.outcome.through) and not service.lmtp
    ):
        try:
            if service.adjusts:
                sender = service.directory.sender_of(sender)
            recipients = _adjust(self, sender)
        except TemporaryFailure as failure:
            return _conclude(self, failure.reply)
    self.accepted_at = service.now()
    if self.terms is not None and self.terms.release_at_ms > self.accepted_at * 1000:
        recipients = [_kept(each) for each in recipients]
    self.blob.bits = self.data.bits
    _compose_head(self)
    self.blob.put_head(service.scratch.data, service.scratch.size)
    body = Body(self.blob)
    if self.has_local:
        head = PyBytes_FromStringAndSize(service.scratch.data, service.scratch.size)
        body.structure = self.structure.finish(0, head) if self.blob.cuts is None else _structure_of_cut(self, head)
        body.loops = self.scan.delivered_to_addresses() or None
    posting = Posting(service.teller, self.queue_id, Envelope(
        sender, <int64_t>(self.accepted_at * 1000), self.blob.size, self.data.bits, self.client, self.login,
        self.envid, self.ret, self.smtputf8, "LMTP" if service.lmtp else "ESMTP" if self.esmtp else "SMTP",
        self.terms, service.tenant_of(self.login, sender) if _may_relay(self) else "",
    ), body, REPORT_IT if service.lmtp else QUEUE_IT)  # RFC 2033 §4.2: LMTP does not queue what a mailbox refused
    posting.recipients = recipients
    if self.terms is not None:
        posting.due_ms = max(<int64_t>(self.accepted_at * 1000), <int64_t>self.terms.release_at_ms)
    posting.event = "smtp.received"
    posting.session = self.number
    posting.octets = self.size
    posting.message_id = _message_id(self)
    posting.began_at = self.accepted_at
    if body.loops is not None and posting.is_loop:
        return _conclude(self, Reply(554, "5.4.6", "Error: mail forwarding loop"))
    unit = service.engine.new_unit()
    posting.write(unit)
    self.posting = posting
    self.refusals = None
    self.waiting |= WAIT_COMMIT
    try:
        service.engine.submit_c(unit, self)
    except BaseException:
        self.waiting &= ~WAIT_COMMIT
        raise
    return 0


cdef int _committed(Connection self, Unit unit) except -1:
    cdef Service service = self.service
    cdef Posting posting = self.posting
    if posting is None:  # the session broke meanwhile, and has said so
        return 0
    self.blob = None  # the store owns it now, or has discarded it
    self.posting = None
    if unit.u.status == 1 and service.crash is not None:
        service.crash.crash_point("before_250")
    answers = posting.committed(unit)
    if self.terms is not None and unit.u.status == 1:
        service.host.demanded(self, self.terms)
    if unit.u.status == 2:
        return _conclude(self, Reply(451, "4.3.0", "Error: a mailbox changed meanwhile, try again"))
    if unit.u.status != 1 and unit.failure == "damaged":
        return _conclude(self, Reply(451, "4.3.0", "Error: the mail store cannot take this message now"))
    if unit.u.status != 1:
        return _conclude(self, Reply(452, "4.3.1", "Insufficient system storage"))
    if service.lmtp:
        self.refusals = {n: MAILBOX_REFUSALS[word] for n, _, word in answers if not isinstance(word, tuple)}
    _conclude(self, None)
    if service.crash is not None:
        service.host.crash_soon("after_250")
    return 0


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
                if self.service.settings.softens:
                    refusal = refusal.softened()
                _put_bytes(out, refusal.encode())
                self.service.host.refused(self, VERB_DATA, refusal, (<Recipient>self.recipients[i]).forward_path)
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
                    if self.service.settings.softens:
                        refusal = refusal.softened()
                    _put_bytes(out, refusal.encode())
                    self.service.host.refused(self, VERB_DATA, refusal, recipient.forward_path)
                    continue
            _put(out, b"250 2.0.0 Ok: queued as ", 24)
            _put_queue_id(out, self.queue_id)
            _put(out, b"\r\n", 2)
    else:
        if self.service.settings.softens:
            reply = reply.softened()
        for i in range(answers - 1):
            _put_bytes(out, reply.encode())
        _answer(self, reply, VERB_DATA)
    self.reset()
    return 0
