# The server's side of a command line: verb, path, ESMTP parameters. The line is given without its CRLF.

cdef const char* _VERB_NAMES[VERBS]
_VERB_NAMES[:] = [
    b"", b"EHLO", b"HELO", b"LHLO", b"MAIL", b"RCPT", b"DATA", b"BDAT", b"RSET", b"NOOP", b"QUIT", b"VRFY", b"EXPN",
    b"HELP", b"STARTTLS", b"AUTH", b"XCLIENT", b"XFORWARD", b"BURL", b"",
]
cdef enum:
    FOREIGN = 8
cdef const char* _FOREIGN_NAMES[FOREIGN]  # Postfix's smtpd_forbidden_commands, and the rest of HTTP's methods
_FOREIGN_NAMES[:] = [b"GET", b"POST", b"CONNECT", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"TRACE"]


cdef inline uint8_t _upper(uint8_t c) noexcept nogil:
    return c - 32 if 97 <= c <= 122 else c


cdef inline bint _is_letter_or_digit(uint8_t c) noexcept nogil:
    return 48 <= c <= 57 or 65 <= c <= 90 or 97 <= c <= 122


cdef inline bint _is_atext(uint8_t c) noexcept nogil:
    # RFC 5322 §3.2.3, and RFC 6531 §3.3's octets over 127, which are validated as a whole.
    if _is_letter_or_digit(c) or c >= 128:
        return True
    return c != 0 and strchr("!#$%&'*+-/=?^_`{|}~", c) != NULL


cdef bint equals_nocase(const char* p, Py_ssize_t n, const char* upper, Py_ssize_t m) noexcept nogil:
    cdef Py_ssize_t i
    if n != m:
        return False
    for i in range(n):
        if _upper(<uint8_t>p[i]) != <uint8_t>upper[i]:
            return False
    return True


cdef int parse_verb(const char* p, Py_ssize_t n, Py_ssize_t* args) noexcept nogil:
    cdef Py_ssize_t length = 0
    cdef int verb
    while length < n and p[length] != c' ':
        length += 1
    args[0] = length
    while args[0] < n and p[args[0]] == c' ':
        args[0] += 1
    if length < 3 or length > 8:
        return VERB_UNKNOWN
    for verb in range(<int>VERB_EHLO, <int>VERB_HTTP):
        if equals_nocase(p, length, _VERB_NAMES[verb], strlen(_VERB_NAMES[verb])):
            return verb
    for verb in range(<int>FOREIGN):
        if equals_nocase(p, length, _FOREIGN_NAMES[verb], strlen(_FOREIGN_NAMES[verb])):
            return VERB_HTTP
    return VERB_UNKNOWN


cdef int64_t parse_decimal(const char* p, Py_ssize_t n) noexcept nogil:
    cdef int64_t value = 0
    cdef Py_ssize_t i
    if n < 1 or n > 18:
        return -1
    for i in range(n):
        if not _is_digit(<uint8_t>p[i]):
            return -1
        value = value * 10 + (p[i] - 48)
    return value


cdef Py_ssize_t find_control(const char* p, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        if <uint8_t>p[i] < 32 or <uint8_t>p[i] == 127:
            return i
    return -1


cdef bint is_utf8(const uint8_t* p, Py_ssize_t n) noexcept nogil:
    # RFC 3629 §4: no overlong form, no surrogate, nothing above U+10FFFF.
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t k
    cdef Py_ssize_t extra
    cdef uint8_t c
    cdef uint8_t low
    cdef uint8_t high
    while i < n:
        c = p[i]
        i += 1
        if c < 0x80:
            continue
        low, high = 0x80, 0xBF
        if 0xC2 <= c <= 0xDF:
            extra = 1
        elif 0xE0 <= c <= 0xEF:
            extra = 2
            if c == 0xE0:
                low = 0xA0
            elif c == 0xED:
                high = 0x9F
        elif 0xF0 <= c <= 0xF4:
            extra = 3
            if c == 0xF0:
                low = 0x90
            elif c == 0xF4:
                high = 0x8F
        else:
            return False
        if n - i < extra:
            return False
        for k in range(extra):
            if not low <= p[i + k] <= high:
                return False
            low, high = 0x80, 0xBF
        i += extra
    return True


cdef Py_ssize_t _domain_end(const char* p, Py_ssize_t n, Py_ssize_t i) noexcept nogil:
    # The end of a Domain at i (RFC 5321 §4.1.2), or -1. "_" is let through: real senders' domains have it.
    cdef Py_ssize_t label
    cdef uint8_t c
    while True:
        label = i
        while i < n:
            c = <uint8_t>p[i]
            if not (_is_letter_or_digit(c) or c == c'-' or c == c'_' or c >= 128):
                break
            i += 1
        if i == label or i - label > 63 or p[label] == c'-' or p[i - 1] == c'-':
            return -1
        if i == n or p[i] != c'.':
            return i
        i += 1


cdef Py_ssize_t _literal_end(const char* p, Py_ssize_t n, Py_ssize_t i) noexcept nogil:
    # The end of an address literal whose "[" is at i (RFC 5321 §4.1.3: IPv4, or IPv6 with its tag), or -1.
    cdef char text[INET6_ADDRSTRLEN + 1]
    cdef char address[16]
    cdef Py_ssize_t start = i + 1
    cdef Py_ssize_t length
    cdef int family = AF_INET
    while i < n and p[i] != c']':
        i += 1
    if i == n:
        return -1
    if i - start > 5 and equals_nocase(p + start, 5, "IPV6:", 5):
        start += 5
        family = AF_INET6
    length = i - start
    if length < 1 or length > INET6_ADDRSTRLEN or memchr(p + start, 0, length) != NULL:
        return -1
    memcpy(text, p + start, length)
    text[length] = 0
    return i + 1 if inet_pton(family, text, address) == 1 else -1


cdef Py_ssize_t _local_part_end(const char* p, Py_ssize_t n, Py_ssize_t i, bint* quoted) noexcept nogil:
    cdef Py_ssize_t atom
    quoted[0] = i < n and p[i] == c'"'
    if quoted[0]:
        i += 1
        while i < n and p[i] != c'"':
            if p[i] == c'\\':
                i += 1
                if i == n or <uint8_t>p[i] >= 127:
                    return -1
            if <uint8_t>p[i] < 32 or <uint8_t>p[i] == 127:
                return -1
            i += 1
        return i + 1 if i < n else -1
    while True:
        atom = i
        while i < n and _is_atext(<uint8_t>p[i]):
            i += 1
        if i == atom:
            return -1
        if i == n or p[i] != c'.':
            return i
        i += 1


cdef int parse_path(const char* p, Py_ssize_t n, bint forward, Path* out) noexcept nogil:
    # RFC 5321 §4.1.2. A source route is parsed and dropped (§4.1.1.3: servers SHOULD ignore it); p[i] is read only
    # where i < n has been checked on the same line or by the function called.
    cdef Py_ssize_t i = 1
    cdef Py_ssize_t k
    out.at = -1
    out.utf8 = False
    out.quoted = False
    if n < 2 or p[0] != c'<':
        return PATH_SYNTAX
    if p[1] == c'>':
        out.start = out.end = 1
        out.after = 2
        return PATH_SYNTAX if forward else PATH_OK
    if p[1] == c'@':
        while True:
            i = _domain_end(p, n, i + 1)
            if i < 0 or i == n:
                return PATH_SYNTAX
            if p[i] == c':':
                i += 1
                break
            if p[i] != c',' or i + 1 == n or p[i + 1] != c'@':
                return PATH_SYNTAX
            i += 1
    out.start = i
    i = _local_part_end(p, n, i, &out.quoted)
    if i < 0 or i == n:
        return PATH_SYNTAX
    if i - out.start > LOCAL_PART_BYTES:
        return PATH_TOO_LONG
    if p[i] == c'@':
        out.at = i
        i += 1
        k = _literal_end(p, n, i) if i < n and p[i] == c'[' else _domain_end(p, n, i)
        if k < 0:
            return PATH_SYNTAX
        if k - i > DOMAIN_BYTES:
            return PATH_TOO_LONG
        i = k
    elif not forward or not equals_nocase(p + out.start, i - out.start, "POSTMASTER", 10):
        return PATH_SYNTAX
    if i == n or p[i] != c'>':
        return PATH_SYNTAX
    if i - out.start + 2 > PATH_BYTES:
        return PATH_TOO_LONG
    out.end = i
    out.after = i + 1
    for k in range(out.start, out.end):
        if <uint8_t>p[k] >= 128:
            out.utf8 = True
            break
    if out.utf8 and not is_utf8(<const uint8_t*>p + out.start, out.end - out.start):
        return PATH_SYNTAX
    return PATH_OK


cdef int next_parameter(const char* p, Py_ssize_t n, Py_ssize_t* at, Parameter* out) noexcept nogil:
    # RFC 5321 §4.1.2: esmtp-keyword ["=" esmtp-value], each with a space in front; more spaces are let through.
    cdef Py_ssize_t i = at[0]
    if i < n and p[i] != c' ':
        return -1
    while i < n and p[i] == c' ':
        i += 1
    at[0] = i
    if i == n:
        return 0
    out.name = i
    while i < n and (_is_letter_or_digit(<uint8_t>p[i]) or (p[i] == c'-' and i > out.name)):
        i += 1
    out.name_end = out.value = out.value_end = i
    if i == out.name:
        return -1
    out.has_value = i < n and p[i] == c'='
    if out.has_value:
        i += 1
        out.value = i
        while i < n and <uint8_t>p[i] > 32 and p[i] != 127 and p[i] != c'=':
            i += 1
        out.value_end = i
        if i == out.value:
            return -1
    at[0] = i
    return 1 if i == n or p[i] == c' ' else -1


VERB_NUMBERS = {_VERB_NAMES[verb].decode(): verb for verb in range(<int>VERB_EHLO, <int>VERB_HTTP)}
VERB_NUMBERS["HTTP"] = VERB_HTTP
VERB_NUMBERS[""] = VERB_UNKNOWN


def split_command(bytes line not None):
    """A command line without CRLF as (verb number, the rest after the spaces)."""
    cdef Py_ssize_t args
    cdef int verb = parse_verb(line, len(line), &args)
    return verb, line[args:]


def split_path(bytes text not None, *, bint forward):
    """Parses "<path>" at the start of `text`: (canonical mailbox without brackets, the rest, whether it needs SMTPUTF8).

    Drops a source route, and the quotes of a local part that needs none. The null path is b"". Raises ValueError:
    "syntax" or "length".
    """
    cdef Path path
    cdef int error = parse_path(text, len(text), forward, &path)
    if error:
        raise ValueError("length" if error == PATH_TOO_LONG else "syntax")
    mailbox = text[path.start:path.end]
    if path.quoted:
        mailbox = unquote(mailbox)
    return mailbox, text[path.after:], bool(path.utf8)


def unquote(bytes mailbox not None):
    """The mailbox with its local part in the one canonical form: quoted only where it must be (RFC 5321 §4.1.2)."""
    cdef Py_ssize_t at = mailbox.rfind(b"@")
    cdef bytes local = mailbox[:at] if at >= 0 else mailbox
    cdef bytearray plain
    cdef Py_ssize_t i = 1
    cdef bint quoted
    cdef const char* raw
    if not local.startswith(b'"'):
        return mailbox
    plain = bytearray()
    while i < len(local) - 1:
        if local[i] == c'\\':
            i += 1
        plain.append(local[i])
        i += 1
    local = bytes(plain)
    raw = local
    if len(local) == 0 or _local_part_end(raw, len(local), 0, &quoted) != len(local) or quoted:
        local = b'"' + local.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
    return local + mailbox[at:] if at >= 0 else local


def split_parameters(bytes text not None):
    """The parameters behind a path as [(upper-case name, value or None)]; ValueError where the syntax is wrong."""
    cdef Py_ssize_t at = 0
    cdef Parameter item
    cdef int status
    cdef list out = []
    while True:
        status = next_parameter(text, len(text), &at, &item)
        if status < 0:
            raise ValueError("syntax")
        if status == 0:
            return out
        name = text[item.name:item.name_end].decode("ascii").upper()
        out.append((name, text[item.value:item.value_end] if item.has_value else None))


def is_domain(bytes text not None, *, bint literal=True):
    """Whether the whole text is a Domain, or an address literal where those are allowed."""
    cdef Py_ssize_t n = len(text)
    if n == 0 or n > DOMAIN_BYTES:
        return False
    if literal and text[0] == c'[':
        return _literal_end(text, n, 0) == n
    return _domain_end(text, n, 0) == n
