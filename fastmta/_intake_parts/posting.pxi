# From recipients to operations, and from results to answers.

@cython.final
cdef class Target:
    """A mailbox's or a queued recipient's place: what of a Resolution and of its recipient a posting needs."""

    def __init__(self, bytes hop, bytes tail, bytes address not None, bytes original not None, bytes mailbox,
                 uint64_t mailbox_id, bint held):
        self.hop = hop
        self.tail = tail
        self.address = address
        self.original = original
        self.mailbox = mailbox
        self.mailbox_id = mailbox_id
        self.held = held
        self.keywords = b""

    @staticmethod
    def filed(uint64_t mailbox_id, uint32_t flags, bytes keywords not None, bytes prefix not None=b"") -> Target:
        """A mailbox that somebody has named himself, as APPEND does; without an address."""
        cdef Target made = Target(None, b"", b"", b"", b"", mailbox_id, False)
        made.flags = flags
        made.keywords = keywords
        made.prefix = prefix
        return made

    cdef bytes told_hop(self):
        # The hop as JSON, for the log.
        if self.shown_hop is None:
            self.shown_hop = encode_json(self.hop.decode("utf-8", "backslashreplace"))
        return self.shown_hop

    cdef Target moved(self, bytes hop, bint held, uint64_t mailbox_id):
        # The same recipient at another place; without a report of success, which would tell whoever is suspected.
        cdef Target made = Target(hop, self.tail, self.address, self.original, self.mailbox, mailbox_id, held)
        made.account_id = self.account_id
        return made


@cython.final
cdef class Recipient:
    """A recipient with what it stands for. `tick`: of its making, where it is kept."""

    def __init__(self, bytes forward_path not None, object resolution not None, int notify=0, bytes orcpt=b"",
                 int64_t tick=0):
        cdef Target made
        self.forward_path = forward_path
        self.resolution = resolution
        self.tenant = resolution.tenant
        self.targets = []
        self.tick = tick
        for target in resolution.targets:
            final = target.address if isinstance(target, LocalTarget) else target.forward_path
            tail = encode(RecipientTail(final, orcpt, notify, forward_path if final != forward_path else b"",
                                        self.tenant))
            if isinstance(target, LocalTarget):
                made = Target(LOCAL_HOP, tail, final, forward_path, target.mailbox or final, target.mailbox_id, False)
                made.reported = notify & SUCCESS
                made.account_id = target.account_id
                self.has_local = True
            else:
                made = Target(target.hop, tail, final, forward_path, None, 0, target.held)
            self.targets.append(made)

    @staticmethod
    def of(bytes forward_path not None, list targets not None) -> Recipient:
        """A recipient of targets that are made already."""
        cdef Recipient made = Recipient.__new__(Recipient)
        cdef Target target
        made.forward_path = forward_path
        made.tenant = ""
        made.targets = targets
        for target in targets:
            made.has_local |= target.mailbox_id != 0
        return made

    @staticmethod
    def onward(object tail not None, object resolution not None) -> Recipient:
        """A queued recipient (its RecipientTail) that stands for something else by now: who asked for what stays known."""
        cdef Recipient made = Recipient(tail.forward_path, resolution, tail.notify, tail.orcpt)
        cdef Target target
        for target in made.targets:
            target.reported = False  # the hop that delivers it says so
            final = target.address
            target.tail = encode(RecipientTail(final, tail.orcpt, tail.notify, tail.original or (
                tail.forward_path if final != tail.forward_path else b""), tail.tenant))
        return made

    cdef Recipient with_targets(self, list targets):
        cdef Recipient made = Recipient.of(self.forward_path, targets)
        made.resolution = self.resolution
        made.tenant = self.tenant
        made.tick = self.tick
        return made


@cython.final
cdef class Body:
    """A message's octets, as one posting or several bring them: a Blob that no unit has yet, or one that is stored."""

    def __init__(self, Blob blob, bytes structure=b"", object loops=None, *, uint64_t blob_id=0, uint64_t size=0):
        """`structure` and `loops` matter where a mailbox takes it. Without a blob: `blob_id` and `size` of a stored one."""
        self.blob = blob
        self.blob_id = blob.blob_id if blob is not None else blob_id
        self.size = blob.size if blob is not None else size
        self.structure = structure
        self.loops = loops

    cdef bint take(self, uint64_t mailbox_id) except -1:
        # Whether this mailbox has not had it; from now on it has.
        if self.first == 0:
            self.first = mailbox_id
            return True
        if self.first == mailbox_id:
            return False
        if self.taken is None:
            self.taken = set()
        elif mailbox_id in self.taken:
            return False
        self.taken.add(mailbox_id)
        return True

    cdef int give_back(self, uint64_t mailbox_id) except -1:
        if self.first == mailbox_id:
            self.first = 0
        elif self.taken is not None:
            self.taken.discard(mailbox_id)
        return 0

    cdef bint loops_at(self, Target target) except -1:
        return target.address.lower() in self.loops


@cython.final
cdef class Posting:
    """One envelope over a body. `refusal` says what it means that a mailbox does not take the message."""

    def __init__(self, Teller teller, uint64_t queue_id, object envelope, Body body not None, int refusal=QUEUE_IT):
        """`envelope` (model.envelope.Envelope) may be None, and so may `teller`, where the unit is refused instead."""
        if not QUEUE_IT <= refusal <= REFUSE_UNIT:
            raise ValueError("refusal is QUEUE, REPORT or REFUSE")
        if refusal != REFUSE_UNIT and (teller is None or envelope is None):
            raise ValueError("what may be queued has an envelope, and is told of")
        self.teller = teller
        self.queue_id = queue_id
        self.envelope = envelope
        self.body = body
        self.refusal = refusal
        self.event = ""
        self.message_id = b""
        self.recipients = []
        self.octets = <int64_t>body.size
        if envelope is not None and teller is not None:
            self.date_s = <int64_t>envelope.received_at_ms // 1000
            self.began_at = <int64_t>envelope.received_at_ms * 0.001
            teller.dates(self.date_s)
            self.tz_minutes = teller.minutes_east

    def to(self, object recipients not None) -> Posting:
        """Adds Recipients, in order: that of their targets is that of the recipients' numbers in the queue."""
        self.recipients.extend(recipients)
        return self

    @property
    def is_loop(self):
        """Whether the message has been at every one of its places before."""
        self.look()
        return self.places > 0 and self.looping == self.places

    cdef bint look(self) except -1:
        # Counts, and tells whether something of it is queued whatever the mailboxes say.
        cdef Recipient recipient
        cdef Target target
        cdef bint queued = False
        self.places = self.looping = 0
        for recipient in self.recipients:
            self.places += len(recipient.targets)
            if not recipient.has_local:
                queued |= len(recipient.targets) > 0
                continue
            for target in recipient.targets:
                if target.mailbox_id == 0:
                    queued = True
                elif self.body.loops is not None and self.body.loops_at(target):
                    self.looping += 1
                elif target.reported:
                    # RFC 3461 §5.2.1: told once it is delivered, which may be refused inside the unit: so by the queue,
                    # whoever else has named this mailbox.
                    queued = True
                    if self.reported is None:
                        self.reported = set()
                    self.reported.add(target.mailbox_id)
        return queued or self.looping > 0

    cpdef int write(self, Unit unit) except -1:
        """Puts the operations into `unit`, behind what is in it. Once."""
        cdef Body body = self.body
        cdef Recipient recipient
        cdef Target target
        cdef bytes hop
        cdef bytes prefix
        cdef bint queued = self.look()
        cdef set places = set() if self.places > 1 else None
        cdef Py_ssize_t in_all = max(self.places, self.in_all)
        cdef Py_ssize_t n = self.number
        cdef int64_t now_ms = 0
        cdef int lane
        if in_all > BULK_RECIPIENTS or body.size > BULK_BYTES:  # queue/scheduler.lane_for's rule
            lane = LANES[2]
        else:
            lane = LANES[0] if in_all <= SMALL_RECIPIENTS and body.size <= SMALL_BYTES else LANES[1]
        if body.blob is not None:
            unit.blob(body.blob)
            body.blob = None
        if self.envelope is not None:
            now_ms = self.due_ms or <int64_t>self.envelope.received_at_ms
            if queued or self.refusal == QUEUE_IT:
                self.raw_envelope = encode(self.envelope)
        if queued:
            unit.enqueue(self.queue_id, body.blob_id, self.raw_envelope, self.number > 0)
        self.first_answer = unit.answers
        for recipient in self.recipients:
            for target in recipient.targets:
                hop = target.hop
                if target.mailbox_id != 0:
                    if body.loops is not None and body.loops_at(target):
                        hop = LOOP_HOP
                    elif self.reported is None or target.mailbox_id not in self.reported:
                        if body.take(target.mailbox_id):
                            self._file(unit, <int>n, target)
                        n += 1
                        continue
                    elif not target.reported or not body.take(target.mailbox_id):
                        n += 1
                        continue
                if places is not None:
                    key = (hop, target.address)
                    if key in places:  # two names of one address
                        n += 1
                        continue
                    places.add(key)
                self.has_held |= target.held
                unit.recipient(self.queue_id, <int>n, hop, lane, HELD if target.held else ACTIVE, now_ms, target.tail)
                n += 1
        return 0

    cdef int _file(self, Unit unit, int n, Target target) except -1:
        cdef bytes prefix = target.prefix
        if prefix is None:
            prefix = (b"Return-Path: <" + <bytes>self.envelope.reverse_path + b">\r\nDelivered-To: " + target.address
                      + b"\r\n")
        if self.refusal == REFUSE_UNIT:
            unit.append(target.mailbox_id, self.body.blob_id, prefix, target.flags, target.keywords, self.date_s,
                        self.tz_minutes, self.body.structure)
        elif self.refusal == REPORT_IT:
            unit.deliver(target.mailbox_id, self.body.blob_id, prefix, target.flags, target.keywords, self.date_s,
                         self.tz_minutes, self.body.structure, 0, 0, None, None, None, True)
        else:
            unit.deliver(target.mailbox_id, self.body.blob_id, prefix, target.flags, target.keywords, self.date_s,
                         self.tz_minutes, self.body.structure, self.queue_id, n, target.hop, target.tail,
                         self.raw_envelope, False)
        if self.filed is None:
            self.filed = []
        self.filed.append((n, target))
        return 0

    cpdef list committed(self, Unit unit):
        """What became of each target that a mailbox was to take: [(its number, Target, where it lies or why not)].

        Where it lies is (uid_validity, uid, modseq); why not is a code word of errors.Refused. To be called once, when
        the unit is done. Tells what has happened; of a unit that was not committed nothing has, and the list is empty.
        """
        cdef Teller teller = self.teller
        cdef list out = []
        cdef list results
        cdef Target target
        cdef double now
        cdef double delay
        cdef Py_ssize_t i = self.first_answer
        cdef int n
        if unit.u.status != 1:
            for n, target in self.filed or ():
                self.body.give_back(target.mailbox_id)
            return out
        if self.filed is not None:
            results = unit.results
            for n, target in self.filed:
                out.append((n, target, results[i]))
                i += 1
        if teller is None:
            return out
        teller.scratch.size = 0
        if out and self.refusal == REPORT_IT:
            leave_out_refused(self, out)
        if self.event and self.recipients:
            teller.cells[teller.c_received] += 1
            teller.cells[teller.c_bytes] += <uint64_t>self.octets
            if teller.is_built:
                teller.put_received(self, self.began_at)
            else:
                self._tell_received()
        if out and self.refusal != REFUSE_UNIT:  # else whoever had the unit refused tells of it too
            now = teller.now()
            delay = now - self.began_at if now > self.began_at else 0.0
            for n, target, result in out:
                if not isinstance(result, tuple):
                    teller.log.info("local.refused", queue_id=queue_id_text(self.queue_id), mailbox=target.address,
                                    code=result)
                    continue
                teller.cells[teller.c_local] += 1
                teller.observe(delay)
                if teller.is_built:
                    teller.put_event(now, "delivery.delivered", self.queue_id, target.address, target.original,
                                     target.mailbox, b'"local:"', b'"local"', delay, b'"2.0.0"',
                                     b'"250 2.0.0 delivered to mailbox"')
                else:
                    teller._tell_fields(self._event("delivered", target.address, target, delay, "2.0.0",
                                                    "250 2.0.0 delivered to mailbox"))
        if self.has_held or self.places > len(self.recipients):
            self._tell_rest()
        if teller.scratch.size:
            teller.say()
        return out

    def _tell_received(self):
        envelope = self.envelope
        self.teller.log.info(
            self.event, session=self.session or None, queue_id=queue_id_text(self.queue_id), client=envelope.client,
            login=envelope.authenticated_as or None, **{"from": envelope.reverse_path},
            to=[(<Recipient>each).forward_path for each in self.recipients[:LOGGED]],
            recipients=self.recipients_in_all or len(self.recipients), size=self.octets,
            message_id=self.message_id or None, tenant=self.tenant() or None,
        )

    cdef str tenant(self):
        # Whose mail it is, for the line of its acceptance: its sender's; else its recipients', as far as all are of one.
        cdef Recipient recipient
        cdef str found = self.envelope.tenant
        cdef bint is_first = True
        if not found:
            for recipient in self.recipients:
                if not is_first and recipient.tenant != found:
                    return ""
                found = recipient.tenant
                is_first = False
        return found

    cdef int _tell_rest(self) except -1:
        # Recipients that stand for several, and those that are kept for an administrator: nothing that is counted.
        cdef Teller teller = self.teller
        cdef Recipient recipient
        cdef Target target
        cdef double now
        if teller.log.threshold > 20 and teller.log.trace is None:
            return 0
        now = teller.now()
        for recipient in self.recipients:
            if len(recipient.targets) > 1:
                stands = f"stands for {len(recipient.targets)} recipients"
                if teller.is_built:
                    teller.put_event(now, "delivery.expanded", self.queue_id, recipient.forward_path, None, None,
                                     b'"local:"', b'"local"', 0.0, b'"2.0.0"', encode_json(stands))
                else:
                    teller._tell_fields(self._event("expanded", recipient.forward_path, None, 0.0, "2.0.0", stands))
            for target in recipient.targets:
                if not target.held:
                    continue
                if teller.is_built:
                    teller.put_event(now, "delivery.held", self.queue_id, target.address, target.original, target.mailbox,
                                     target.told_hop(),
                                     b'"local"' if target.hop == LOCAL_HOP else b'"none"', 0.0, b'"2.0.0"', b'"held"')
                else:
                    teller._tell_fields(self._event("held", target.address, target, 0.0, "2.0.0", "held"))
        return 0

    def _event(self, str happened, bytes recipient, Target target, double delay, str dsn, str reply):
        hop = LOCAL_HOP if target is None else target.hop
        return Event(
            happened, "local", self.queue_id, recipient, hop.decode("utf-8", "backslashreplace"),
            "local" if hop == LOCAL_HOP else "none", delay, dsn, reply,
            target.original if target is not None and target.original != recipient else b"",
            (target.mailbox or b"") if target is not None else b"",
        )


cdef int leave_out_refused(Posting posting, list out) except -1:
    """Whom no mailbox was opened to has been refused, and is no recipient of what is told as received."""
    cdef Recipient recipient
    cdef Target target
    cdef set refused = {id(target) for _, target, result in out if not isinstance(result, tuple)}
    cdef list left = []
    if not refused:
        return 0
    for recipient in posting.recipients:
        if not recipient.targets:
            left.append(recipient)
            continue
        for target in recipient.targets:
            if id(target) not in refused:
                left.append(recipient)
                break
    posting.recipients = left
    return 0
