# The connection: its socket's events, its commands, its message. One class, whose methods lie in four files.

@cython.final
cdef class Connection(Waiter):
    """A connection of `service`. The loop's protocol object; bytes come through data_received alone, TLS or not."""

    def __init__(self, Service service not None):
        self.service = service
        self.login = ""
        self.peer_ip = ""
        self.helo = b""
        self.argument = b""
        self.ret = ""
        self.envid = b""

    # --- the socket's side ---

    def connection_made(self, transport):
        cdef Service service = self.service
        cdef object early
        self.transport = transport
        service.last_session += 1
        self.number = service.last_session
        self.last_tick = self.first_tick = service.tick
        service.sessions.add(self)
        service.cells[service.c_connections] += 1
        service.cells[service.c_open] += 1
        service.out.size = 0
        tls = transport.get_extra_info("ssl_object")
        sock = transport.get_extra_info("socket")
        peer = self.told_peer or transport.get_extra_info("peername")  # uvloop knows it; the socket would ask the kernel
        self.peer_ip, self.trusted, self.loopback, name, self.keeps_bare = service.host.admit(self, peer)
        self.call_client("unknown" if name is None else name)
        if tls is not None:
            self._tls_fields(tls)
        service.host.attend(self)
        refusal = service.host.refuse(self)
        if refusal is None and tls is None and sock is not None and self._spoke_early(sock.fileno()):
            refusal = service.host.spoke_early(self)
            self.pipelined = True
        if refusal is not None:
            self.close_after_reply()
            _answer(self, refusal, VERB_UNKNOWN)
        elif name is None:  # the greeting waits until the client's name is known
            self.ungreeted = True
            self._await(VERB_UNKNOWN, CONNECTED, False)
            service.host.find_name(self)
        elif self.stages & ASK_CONNECT:
            self.ungreeted = True
            reply = service.host.connected(self)
            if reply is None:
                self._await(VERB_UNKNOWN, CONNECTED, False)
            else:
                _advance(self, reply, VERB_UNKNOWN, CONNECTED, False)
        else:
            _put_bytes(&service.out, service.greeting)
        self._finish_event()

    def call_client(self, str name not None):
        """How the log and Received call the client, beside its address."""
        self.client = f"{name}[{self.peer_ip}]"
        shown = f"IPv6:{self.peer_ip}" if ":" in self.peer_ip else self.peer_ip
        self.client_field = f" ({name} [{shown}])".encode()

    def become(self, str ip not None, int port):
        """Asked by the host: the client is another one from here on (XCLIENT). Gives its name, or None as `admit`."""
        self.reset()
        self.told_peer = (ip, port)
        self.helo = b""
        self.esmtp = False
        self.login = ""
        self.peer_ip, self.trusted, self.loopback, name, self.keeps_bare = self.service.host.admit(self, self.told_peer)
        self.call_client("unknown" if name is None else name)
        return name

    cdef bint _spoke_early(self, int fd) except -1:
        # RFC 5321 §4.3.1: a client waits for the greeting. What is in the socket before it leaves was sent blindly.
        cdef char octet
        return fd >= 0 and recv(fd, &octet, 1, MSG_PEEK | MSG_DONTWAIT) > 0

    def data_received(self, bytes data not None):
        cdef Service service = self.service
        if self.closing:
            if self.lingering:
                self.lingered += len(data)
                if self.lingered > DISCARD_BYTES and self.transport is not None:
                    self.transport.abort()
            return
        if self.ungreeted and self.residual is None:
            service.out.size = 0
            self.pipelined = True
            reply = service.host.spoke_early(self)
            if reply is not None:
                self._forget_wait()
                _advance(self, reply, VERB_UNKNOWN, CONNECTED, False)
                self._finish_event()
                return
        if self.residual is not None:
            data = self.residual + data
            self.residual = None
        if not self.waiting and PyBytes_GET_SIZE(data) >= FREE_BYTES:
            _enter(self)
        if self.waiting:
            self.residual = data
            if len(data) > WAITING_BYTES and self.transport is not None:
                self.transport.pause_reading()
            return
        service.out.size = 0
        try:
            _run(self, data)
        except Exception as error:
            self._broke(error)
        self._finish_event()

    def eof_received(self):
        self.eof = True
        # A client that has sent all and closed its half still gets the answers that it waits for; TLS has no half.
        return bool(self.waiting and not self.tls and not self.closing)

    def connection_lost(self, error):
        cdef Service service = self.service
        if self.transport is None:
            return
        self.transport = None
        self.closing = True
        self.residual = None
        self._forget_wait()
        service.sessions.discard(self)
        service.cells[service.c_open] -= 1
        if not self.waiting & WAIT_COMMIT:
            self.reset()
        self.exchange = None
        if self.share is not None:
            self.share.leave()
        service.host.gone(self)

    def pause_writing(self):
        self._pause(WAIT_WRITE)

    def resume_writing(self):
        self._resume(WAIT_WRITE)

    def _turn_came(self):
        self.in_turn = True
        self._resume(WAIT_TURN)
        self.in_turn = False

    cdef int _pause(self, int reason) except -1:
        self.waiting |= reason
        if self.transport is not None and not self.closing:
            self.transport.pause_reading()
        return 0

    cdef int _resume(self, int reason) except -1:
        if not self.waiting & reason:
            return 0
        self.waiting &= ~reason
        self.service.out.size = 0
        if self.delayed is not None and self.transport is not None:
            self._flush()
        return self._go_on()

    cdef int _go_on(self) except -1:
        # After a wait: answers what came meanwhile, with the replies already put into `out`, and reads again.
        cdef bytes data
        if not self.waiting and not self.closing and self.transport is not None:
            data = self.residual
            self.residual = None
            self.last_tick = self.service.tick
            try:
                if data is not None:
                    _run(self, data)
            except Exception as error:
                self._broke(error)
            if not self.waiting and not self.closing:
                self.transport.resume_reading()
        return self._finish_event()

    cdef int _finish_event(self) except -1:
        if self.transport is None:
            self.service.out.size = 0
            return 0
        if (self.service.farewell is not None and self.state <= GREETED and not self.waiting & ~WAIT_CHECK
                and not self.closing):
            self._forget_wait()
            self.closing = True
            _put_bytes(&self.service.out, self.service.farewell)
        self._flush()
        if self.want_tls:
            self.want_tls = False
            self.residual = None
            self.transport.pause_reading()
            self.service.host.start_tls(self, self.transport)
        elif self.closing or (self.eof and not self.waiting):
            self._end()
        return 0

    cdef int _flush(self) except -1:
        cdef Text* out = &self.service.out
        if self.waiting & WAIT_DELAY or self.delayed is not None:
            if out.size:
                self.delayed = (self.delayed or b"") + PyBytes_FromStringAndSize(out.data, out.size)
                out.size = 0
            if self.delayed is None or (self.waiting & WAIT_DELAY and not self.closing):
                return 0
            self.transport.write(self.delayed)
            self.delayed = None
            return 0
        if out.size:
            self.transport.write(PyBytes_FromStringAndSize(out.data, out.size))
            out.size = 0
        return 0

    cdef int _end(self) except -1:
        # Closing a socket with unread input resets the connection, and the peer may lose our last reply to that; so
        # after a refusal our half is closed first and the rest is read and dropped, within bounds.
        if self.lingering and not self.eof and self.transport.can_write_eof():
            self.transport.write_eof()
            self.transport.resume_reading()
            self.last_tick = self.service.tick
        else:
            self.transport.close()
        return 0

    def swept(self):
        """A second has passed: deadlines, and the end of a delay (Service.sweep)."""
        cdef int64_t idle = self.service.tick - self.last_tick
        if self.transport is None:
            return
        if self.waiting & WAIT_DELAY and idle >= self.service.error_sleep:
            self._resume(WAIT_DELAY)
            return
        if self.closing:
            if idle > LINGER_S:
                self.transport.abort()
            return
        if self.waiting & ~WAIT_WRITE:  # the client waits for us
            return
        if self.state == IN_DATA or self.chunk_left > 0:
            idle -= self.size // MIN_DATA_RATE
        if idle <= self.service.timeout:
            return
        if self.waiting & WAIT_WRITE:
            self.transport.abort()
            return
        self.service.out.size = 0
        self.shut_down(Reply(421, "4.4.2", f"{self.service.settings.myhostname} Error: timeout exceeded"))

    def end_if_quiet(self):
        """Says farewell where no transaction is open and nothing is awaited (Service.drain)."""
        self.service.out.size = 0
        if self.transport is not None and not self.closing:
            self._finish_event()

    @property
    def age_s(self):
        """Seconds since the connection came."""
        return self.service.tick - self.first_tick

    def shut_down(self, reply):
        """Says a last reply, unless the client waits for its message's commit, and closes."""
        if self.transport is None or self.closing or self.waiting & (WAIT_COMMIT | WAIT_TLS):
            return False
        self.service.out.size = 0
        self._forget_wait()
        self.reset()
        self.closing = True
        _answer(self, reply, VERB_UNKNOWN)
        self._finish_event()
        return True

    # --- TLS and authentication, which end in a task ---

    def tls_started(self, transport):
        """The handshake is done: everything learnt in plain text is forgotten (RFC 3207 §4.2)."""
        self.transport = transport
        self.reset()
        self.helo = b""
        self.esmtp = False
        self.login = ""
        self.state = CONNECTED
        self.residual = None
        if self.screening is not None:
            self.screening.forget_hello()
        self._tls_fields(transport.get_extra_info("ssl_object"))
        self.waiting &= ~WAIT_TLS
        self.last_tick = self.service.tick
        refusal = self.service.host.lacks_certificate(self)
        if refusal is not None:
            self.shut_down(refusal)

    def _tls_fields(self, tls):
        self.tls = True
        self.tls_field = self.service.host.tls_begun(self, tls)

    def start_tls(self):
        """Asked by the rules: after the reply the handshake begins."""
        self.want_tls = True
        self.waiting |= WAIT_TLS

    def wait(self, bint checking=False):
        """Asked by whoever starts something for this session: nothing is parsed until `resume` with this number."""
        self.generation += 1
        self.waiting |= WAIT_CHECK if checking else WAIT_TASK
        return self.generation

    def resume(self, uint64_t generation, object finish):
        """The wait is over: `finish()` gives the reply to its command, or None where it waits for something else now.

        Whoever comes with another generation is too late: the session has gone on or ended without him.
        """
        if self.transport is None or generation != self.generation or not self.waiting & WAIT_ANSWER:
            return
        self.waiting &= ~WAIT_ANSWER
        self.last_tick = self.service.tick
        self.service.out.size = 0
        try:
            reply = finish()
            if reply is not None:
                if self.wait_verb == VERB_BURL and reply.code < 400:
                    _chunk_done(self)
                elif self.wait_verb == VERB_BDAT or self.wait_verb == VERB_BURL:
                    _chunk_judged(self, reply)
                else:
                    _advance(self, reply, self.wait_verb, self.wait_state, self.wait_more or self.residual is not None)
        except Exception as error:
            self._broke(error)
        self._go_on()

    def decided(self, uint64_t generation, object finish):
        """The checks at the end of the message have spoken; late answers as in `resume`."""
        if self.transport is None or generation != self.generation or not self.waiting & WAIT_ANSWER:
            return
        self.waiting &= ~WAIT_ANSWER
        self.last_tick = self.service.tick
        self.service.out.size = 0
        try:
            _decided(self, finish())
        except Exception as error:
            self._broke(error)
        self._go_on()

    def forgive(self):
        """The refusal that comes next is for a failure of ours: no error of the client's."""
        self.forgiven = True

    cdef int _await(self, int verb, int next_state, bint more) except -1:
        # The command waits; `_advance` ends it.
        self.wait_verb = verb
        self.wait_state = next_state
        self.wait_more = more
        return 0

    cdef bint _forget_wait(self) except -1:
        # Whatever is under way for this session comes too late from now on.
        self.generation += 1
        self.waiting &= ~WAIT_ANSWER
        return 0

    def added_fields(self) -> bytes:
        """The fields of ours that will stand between Received and what came."""
        return _added_fields(self)

    def close_after_reply(self):
        self.closing = True
        self.lingering = True

    def _broke(self, error):
        # The one handler of the unexpected in a connection: the peer learns nothing, the queue is untouched.
        self.service.host.failed(self, error)
        self._forget_wait()
        self.reset()
        self.close_after_reply()
        _answer(self, Reply(421, "4.3.0", f"{self.service.settings.myhostname} Error: internal failure"), VERB_UNKNOWN)

    # --- the transaction, as the rules see it, and the store's answer ---
    cpdef begin(self, bytes reverse_path, int64_t size_bytes, bint smtputf8, bytes envid, str ret):
        """Opens a transaction: None, or the reply that refuses it for want of room."""
        cdef Service service = self.service
        if not service.storage_ok():
            return Reply(452, "4.3.1", "Insufficient system storage")
        self.room_tick = service.tick
        service.check_version()
        self.reverse_path = reverse_path
        self.smtputf8 = smtputf8
        self.envid = envid
        self.ret = ret
        self.terms = None
        self.recipients = []
        self.overshoot = 0
        self.has_local = False
        self.bare = 0
        if self.stages & TELL_AHEAD:
            service.host.sender_known(self)
        return None

    def demand(self, object demands not None):
        """Keeps what the MAIL of the transaction demands: None, or the reply that refuses it."""
        cdef double now = self.service.now()
        refusal = demands.refusal(now, self.service.settings.hold_s)
        if refusal is not None:
            self.reset()
            return refusal
        self.terms = demands.terms(now)
        return None

    def begin_data(self):
        """For the rules: 354, or the reply that refuses DATA for want of room."""
        _begin_message(self)
        if self.blob is None:
            return Reply(452, "4.3.1", "Insufficient system storage")
        return GO_ON

    def begin_chunk(self, bint last):
        """For the rules: a chunk begins that `put_chunk` brings; None, or the reply that refuses it for want of room."""
        if self.state == IN_RCPT:
            _begin_message(self)
            if self.blob is None:
                return Reply(452, "4.3.1", "Insufficient system storage")
        self.bdat = True
        self.state = IN_BDAT
        self.chunk_last = last
        self.chunk_left = 0
        return None

    def put_chunk(self, uint64_t generation, bytes piece not None):
        """Octets of the chunk that begin_chunk began. False where no more are wanted: `resume` says what came of it."""
        cdef const char* p = PyBytes_AS_STRING(piece)
        cdef Py_ssize_t n = len(piece)
        if self.transport is None or generation != self.generation or not self.waiting & WAIT_ANSWER:
            return False
        self.last_tick = self.service.tick
        self.chunk_left = n + 1  # not its end: that is said by `resume`
        _message(self, p, p + n, False)
        self.chunk_left = 0
        return self.failure == FAIL_NONE

    def when_drained(self, told):
        """Whether what was put is more than the store has taken in so far: `told` is called when it has."""
        if self.blob is None or not self.blob.in_flight or not self.blob.congested:
            return False
        self.blob.on_drain = told
        return True

    def add_recipient(self, bytes forward_path not None, int notify, bytes orcpt not None):
        """For the rules: resolves and keeps one recipient, and gives the reply."""
        reply = _add(self, forward_path, notify, orcpt)
        return ACCEPTED if reply is None else reply

    cpdef reset(self):
        """Forgets the transaction, and the message that was being received."""
        self.reverse_path = None
        self.recipients = None
        self.envid = b""
        self.ret = ""
        self.terms = None
        self.smtputf8 = False
        self.has_local = False
        self.bare = 0
        if self.blob is not None:
            self.blob.abandon()
            self.blob = None
        _uncount(self)
        self.structure = None
        self.scan = None
        self.posting = None
        self.refusals = None
        self.outcome = None
        self.data_asked = False
        if self.screening is not None:
            self.screening.reset()
        self.failure = FAIL_NONE
        self.bdat = False
        self.chunk_last = False
        if self.state >= IN_MAIL:
            self.state = GREETED

    def _drained(self):
        self._resume(WAIT_BLOB)

    cdef int unit_done(self, Unit unit) except -1:
        # The committer has answered. Called by the store's dispatch: nothing may be raised into other sessions' turns.
        self.waiting &= ~WAIT_COMMIT
        self.service.out.size = 0
        try:
            _committed(self, unit)
            self._go_on()
        except Exception as error:
            self._broke(error)
            self._finish_event()
        return 0

    @property
    def message_bytes(self):
        """The octets of the message that came."""
        return self.blob.body_size if self.blob is not None else 0

    def read_message(self, uint64_t offset, Py_ssize_t octets):
        """Octets of the message that came, without what is put in front of it; fewer only at its end."""
        return self.blob.read(offset, octets) if self.blob is not None else b""

    @property
    def is_committing(self):
        """Whether the client waits for the store."""
        return bool(self.waiting & (WAIT_COMMIT | WAIT_BLOB))
