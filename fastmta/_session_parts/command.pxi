# Functions on a Connection: the receive loop and commands.

cdef int _run(Connection self, bytes data) except -1:
    # Every pointer lies in `data`, which this call keeps alive; p <= end, and each turn of the loop moves p.
    cdef const char* start = PyBytes_AS_STRING(data)
    cdef const char* p = start
    cdef const char* end = start + PyBytes_GET_SIZE(data)
    cdef const char* lf
    cdef Py_ssize_t n
    cdef Py_ssize_t limit
    cdef int lines = 0
    cdef bint crlf
    cdef bint slow
    while p < end and not self.waiting and not self.closing:
        if self.state == IN_DATA:
            p = _message(self, p, end, True)
            continue
        if self.chunk_left > 0:
            n = end - p if end - p < self.chunk_left else <Py_ssize_t>self.chunk_left
            p = _message(self, p, p + n, False)
            continue
        lf = <const char*>memchr(p, c'\n', end - p)
        if self.skipped:
            n = end - p if lf == NULL else lf + 1 - p
            p += n
            self.skipped = self.skipped + n if lf == NULL else 0
            if self.skipped > SKIP_BYTES:
                self.close_after_reply()
                _answer(self, Reply(421, "4.7.0", f"{self.service.settings.myhostname} Error: the line does not end"),
                        VERB_UNKNOWN)
            continue
        limit = SASL_LINE_BYTES if self.state == IN_AUTH else LINE_BYTES
        n = end - p if lf == NULL else lf + 1 - p
        if n > limit:
            self.last_tick = self.service.tick
            if self.state == IN_AUTH:  # RFC 4954 §4, and its code for this alone
                self.state = GREETED
                self.exchange = None
                _answer(self, Reply(500, "5.5.6", "Line too long"), VERB_UNKNOWN)
            else:
                _answer(self, Reply(500, "5.5.2", "Line too long"), VERB_UNKNOWN)
            self.skipped = n if lf == NULL else 0
            p += n
            continue
        if lf == NULL:
            break
        n -= 1
        crlf = n > 0 and p[n - 1] == c'\r'
        slow = self.errors >= self.service.soft_errors
        if slow:
            self._flush()
        _line(self, p, n - 1 if crlf else n, crlf, lf + 1 < end)
        if slow and not self.closing and not self.want_tls:
            self._pause(WAIT_DELAY)  # the reply waits too
        p = lf + 1
        lines += 1
        if lines >= FREE_LINES and p < end and not self.waiting and not self.closing and _turn_is_over(self):
            break
    if self.in_turn:
        self.in_turn = False
        self.share.over()  # charges it with the last piece
    if p < end and not self.closing and not self.waiting & WAIT_TLS:
        self.residual = data if p == start else data[p - start:]
        if self.waiting and end - p > WAITING_BYTES and self.transport is not None:
            self.transport.pause_reading()
    return 0


cdef bint _turn_is_over(Connection self) except -1:
    # One budget for all sessions of the worker (runtime/turns.py); the rest of the input waits for this one's turn.
    if not self.in_turn:
        if not _enter(self):
            return True
    elif self.share.over():
        self.waiting |= WAIT_TURN
        self.share.later(self._turn_came)
        return True
    return False


cdef bint _enter(Connection self) except -1:
    # Whether input that has just come is worked on now; else the session waits for its turn.
    if self.share is None:
        self.share = self.service.host.share()
    self.in_turn = self.share.enter(self._turn_came)
    if not self.in_turn:
        self.waiting |= WAIT_TURN
    return self.in_turn


cdef int _line(Connection self, const char* p, Py_ssize_t n, bint crlf, bint more) except -1:
    cdef Service service = self.service
    cdef Py_ssize_t i
    cdef Py_ssize_t args
    cdef uint8_t octet
    cdef uint8_t ones = 0
    cdef uint8_t control = 0
    cdef int verb
    self.last_tick = service.tick
    if bare_mode(self) == BARE_REJECT and (not crlf or memchr(p, c'\r', n) != NULL):
        self.close_after_reply()  # what else is in this connection was cut into lines by somebody else's rules
        return _answer(self, Reply(550, "5.5.2", "Error: bare <CR> or <LF> received"), VERB_UNKNOWN)
    if self.state == IN_AUTH:
        reply = service.rules.auth_line(self, p[:n])
        if reply is None:
            return self._await(VERB_AUTH, GREETED, more)
        return _answer(self, reply, VERB_AUTH)
    verb = parse_verb(p, n, &args)
    if verb == VERB_HTTP or (n > 1 and p[0] == 22 and p[1] == 3):  # HTTP, or a TLS handshake in plain text
        self.close_after_reply()
        return _answer(self, Reply(554, "5.5.1", "Error: I speak SMTP, good bye"), VERB_UNKNOWN)
    for i in range(n):  # without a way out, so that the compiler takes many octets at once
        octet = <uint8_t>p[i]
        ones |= octet
        control |= (octet < 32) | (octet == 127)
    if control:
        return _answer(self, Reply(501, "5.5.2", "Control characters are not allowed"), verb)
    if ones >= 128 and not is_utf8(<const uint8_t*>p, n):
        return _answer(self, Reply(501, "5.5.2", "This is not valid UTF-8"), verb)
    return _command(self, verb, p + args, n - args, more)


cdef int _command(Connection self, int verb, const char* p, Py_ssize_t n, bint more) except -1:
    cdef Service service = self.service
    cdef int next_state = <uint8_t>PyBytes_AS_STRING(service.table)[self.state * VERBS + verb]
    if verb == VERB_UNKNOWN:
        return _answer(self, Reply(500, "5.5.2", "Error: command not recognized"), verb)
    if more and (not self.esmtp or verb == VERB_DATA or verb == VERB_EHLO or verb == VERB_HELO or verb == VERB_LHLO
                 or verb == VERB_NOOP or verb == VERB_VRFY):
        self.pipelined = True  # RFC 2920 §3.1, for those who care (reject_unauth_pipelining)
    if verb == VERB_BDAT:
        return _bdat(self, p, n, next_state != NO_TRANSITION)
    if next_state == NO_TRANSITION:
        reply = service.rules.out_of_sequence(self, verb)
        if verb == VERB_DATA and more:
            # The octets behind a refused DATA can't be told from commands: a message may be speaking.
            self.close_after_reply()
        return _answer(self, reply, verb)
    if verb == VERB_MAIL:
        if _fast_mail(self, p, n):
            return 0
    elif verb == VERB_RCPT:
        if _fast_rcpt(self, p, n):
            return 0
    elif verb == VERB_DATA:
        if n:
            return _answer(self, Reply(501, "5.5.4", "Syntax: DATA"), verb)
        if not self.stages & ASK_DATA:
            _begin_message(self)
            if self.blob is None:
                if more:
                    self.close_after_reply()
                return _answer(self, Reply(452, "4.3.1", "Insufficient system storage"), verb)
            self.state = next_state
            return _say(self, b"354 End data with <CR><LF>.<CR><LF>\r\n", 37)
    elif verb == VERB_QUIT:
        self.closing = True
        return _say(self, b"221 2.0.0 Bye\r\n", 15)
    elif (verb == VERB_NOOP or verb == VERB_RSET or verb == VERB_VRFY or verb == VERB_EXPN or verb == VERB_HELP
          or verb == VERB_EHLO or verb == VERB_HELO or verb == VERB_LHLO):
        self.junk += 1
        if self.junk > service.junk_limit:
            _error(self, False)
            if self.closing:
                return 0
    return _ask(self, verb, next_state, p, n, more)


cdef int _ask(Connection self, int verb, int next_state, const char* p, Py_ssize_t n, bint more) except -1:
    # The rules' turn. A failure that nobody expected costs this command, not the session.
    try:
        self.argument = p[:n]
        reply = self.service.rules.handle(self, verb, self.argument)
    except Exception as error:
        self.service.host.failed(self, error)
        reply = Reply(451, "4.3.0", "Error: internal failure")
    if reply is None:
        return self._await(verb, next_state, more)
    if verb == VERB_BDAT or verb == VERB_BURL:
        return _chunk_judged(self, reply)
    return _advance(self, reply, verb, next_state, more)


cdef int _advance(Connection self, object reply, int verb, int next_state, bint more) except -1:
    # What a command comes to, at once or after a wait: the state that its answer leads to, and the answer.
    cdef int code = reply.code
    if self.ungreeted:
        self.ungreeted = False
        if code >= 400:
            self.close_after_reply()
    if (200 <= code < 300 or code == 354) and not self.want_tls:
        self.state = next_state
    elif verb == VERB_DATA and more and code >= 400:
        self.close_after_reply()  # as where DATA is out of sequence
    return _answer(self, reply, verb)


cdef int _fast_mail(Connection self, const char* p, Py_ssize_t n) except -1:
    # 1: done. 0: not plain, or to be refused: the rules say it.
    cdef Service service = self.service
    cdef Path path
    cdef Parameter item
    cdef Py_ssize_t at
    cdef int64_t size = -1
    cdef bint body = False
    cdef int status
    if self.state == CONNECTED or self.stages & (ASK_MAIL | ASK_LIMITS) or service.submission or self.login or n < 7 or not equals_nocase(p, 5, b"FROM:", 5):
        return 0
    p += 5
    n -= 5
    while n > 0 and p[0] == c' ':
        p += 1
        n -= 1
    if parse_path(p, n, False, &path) or path.quoted or path.utf8:
        return 0
    at = path.after
    while True:
        status = next_parameter(p, n, &at, &item)
        if status == 0:
            break
        if status < 0 or not item.has_value:
            return 0
        if size < 0 and equals_nocase(p + item.name, item.name_end - item.name, b"SIZE", 4):
            size = parse_decimal(p + item.value, item.value_end - item.value)
            if size < 0:
                return 0
        elif not body and equals_nocase(p + item.name, item.name_end - item.name, b"BODY", 4):
            body = True
            if not (equals_nocase(p + item.value, item.value_end - item.value, b"8BITMIME", 8)
                    or equals_nocase(p + item.value, item.value_end - item.value, b"7BIT", 4)):
                return 0
        else:
            return 0
    if service.size_limit and size > service.size_limit:
        return 0
    reply = self.begin(p[path.start:path.end], 0 if size < 0 else size, False, b"", "")
    if reply is not None:
        self.argument = b"FROM:" + p[:n]
        _answer(self, reply, VERB_MAIL)
        return 1
    self.state = <uint8_t>PyBytes_AS_STRING(service.table)[self.state * VERBS + VERB_MAIL]
    _say(self, b"250 2.1.0 Ok\r\n", 14)
    return 1


cdef int _fast_rcpt(Connection self, const char* p, Py_ssize_t n) except -1:
    cdef Path path
    if self.stages & (ASK_RCPT | ASK_LIMITS) or n < 5 or not equals_nocase(p, 3, b"TO:", 3):
        return 0
    p += 3
    n -= 3
    while n > 0 and p[0] == c' ':
        p += 1
        n -= 1
    if parse_path(p, n, True, &path) or path.quoted or path.utf8:
        return 0
    if path.after < n:
        return 0
    reply = _add(self, p[path.start:path.end], 0, b"")
    if reply is not None:
        self.argument = b"TO:" + p[:n]
        _answer(self, reply, VERB_RCPT)
        return 1
    self.state = <uint8_t>PyBytes_AS_STRING(self.service.table)[self.state * VERBS + VERB_RCPT]
    _say(self, b"250 2.1.5 Ok\r\n", 14)
    return 1


cdef object _add(Connection self, bytes path, int notify, bytes orcpt):
    # None where the recipient was taken, else the reply that refuses it.
    cdef Recipient known
    if len(self.recipients) >= self.service.recipient_limit:
        # Postfix's smtpd_recipient_overshoot_limit: who sends all recipients in one go still gets to DATA.
        self.overshoot += 1
        self.forgiven = self.overshoot <= self.service.overshoot_limit
        return Reply(452, "4.5.3", "Error: too many recipients")
    answer = self.service._resolve(path, _may_relay(self))
    if isinstance(answer, Reply):
        return answer
    known = <Recipient>answer
    if notify or orcpt:
        known = Recipient(path, known.resolution, notify, orcpt, known.tick)
    self.recipients.append(known)
    self.has_local |= known.has_local
    return None


cdef bint _may_relay(Connection self) except -1:
    if self.relays == RELAYS_AS_KNOWN:
        return self.trusted or self.login != ""
    return self.relays == RELAYS


cdef int _say(Connection self, const char* text, Py_ssize_t n) except -1:
    return _put(&self.service.out, text, n)


cdef int _answer(Connection self, object reply, int verb) except -1:
    cdef int code = reply.code
    if code >= 500 and self.service.settings.softens:
        reply = reply.softened()
    _put_bytes(&self.service.out, reply.encode())
    if code >= 400:
        self.service.host.refused(self, verb, reply)
        if self.forgiven:
            self.forgiven = False
        elif not self.closing:
            _error(self, code < 500)
    return 0


cdef int _error(Connection self, bint temporary) except -1:
    # Postfix's smtpd_hard_error_limit; smtpd_soft_error_limit is for each reply from here on (`_run`).
    cdef Service service = self.service
    self.errors += 1
    if self.errors >= service.hard_errors:
        service.host.gave_up(self)
        self.reset()
        self.close_after_reply()
        _put_bytes(&service.out, f"421 4.7.0 {service.settings.myhostname} Error: too many errors\r\n".encode())
    return 0
