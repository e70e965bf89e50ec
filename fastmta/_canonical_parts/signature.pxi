# One DKIM-Signature or ARC-Message-Signature (RFC 6376 §3.5), and the words that seals and keys have in common with it.

@cython.final
cdef class Signature:
    """The tags of one signature field."""

    cdef readonly Field field
    cdef readonly str algorithm
    cdef readonly bytes signature
    cdef readonly bytes body_hash
    cdef readonly str header_form
    cdef readonly str body_form
    cdef readonly str domain
    cdef readonly str selector
    cdef readonly tuple names         # in lower case
    cdef readonly str identity_domain
    cdef readonly object signed_at    # 0: not said
    cdef readonly object expires_at   # 0: never
    cdef readonly bint has_length
    cdef readonly str shown           # the beginning of b=, by which RFC 6008 tells signatures apart


cdef int need(dict tags, tuple names) except -1:
    cdef str name
    for name in names:
        if not tags.get(name):
            raise TagError(f"the signature has no {name}=")
    return 0


def parse_signature(Field field not None, *, bint arc=False):
    """The field's tags. Raises TagError with the reason; nothing is verified yet."""
    cdef dict tags = field.tags
    cdef Signature made = Signature.__new__(Signature)
    need(tags, OF_ARC if arc else OF_DKIM)
    if not arc and tags["v"] != b"1":
        raise TagError("the signature has another version")
    made.header_form, made.body_form = forms_of(tags.get("c", b"simple/simple"))
    if tags.get("q") and b"dns/txt" not in [word.strip(b" \t\r\n").lower() for word in tags["q"].split(b":")]:
        raise TagError("the key cannot be asked for in the DNS")
    if "h" not in tags:
        raise TagError("the signature has no h=")
    made.names = names_of(tags["h"])
    if len(made.names) > MOST_NAMES or not (arc or all(made.names)):  # ARC's may be empty: its seal covers the rest
        raise TagError("h= is no list of field names")
    made.domain = made.identity_domain = domain_of(tags["d"])
    if not arc and "i" in tags:
        made.identity_domain = domain_of(from_quoted_printable(tags["i"]).rpartition(b"@")[2])
        if made.identity_domain != made.domain and not made.identity_domain.endswith("." + made.domain):
            raise TagError("i= is not in the domain of d=")
    made.signed_at = unsigned_number(tags["t"]) if "t" in tags else 0
    made.expires_at = unsigned_number(tags["x"]) if "x" in tags else 0
    if made.expires_at and made.expires_at <= made.signed_at:
        raise TagError("x= is not after t=")
    made.has_length = "l" in tags
    if made.has_length and not (tags["l"].isdigit() and len(tags["l"]) <= 76):
        raise TagError("l= is not a number")
    made.field = field
    made.algorithm = tags["a"].lower().decode("ascii", "replace")
    made.signature = decode_base64(tags["b"])
    made.body_hash = decode_base64(tags["bh"])
    made.selector = domain_of(tags["s"])
    made.shown = without_spaces(tags["b"])[:8].decode("ascii", "replace")
    return made


cdef tuple forms_of(bytes value):
    # (the header's form, the body's).
    cdef bytes flat = without_spaces(value).lower()
    cdef bytes header, body
    cdef object found
    found = FORMS.get(flat)
    if found is not None:
        return found
    header, _, body = flat.partition(b"/")
    if header not in (b"simple", b"relaxed") or body not in (b"", b"simple", b"relaxed"):
        raise TagError("unknown canonicalization")
    return header.decode("ascii"), (body or b"simple").decode("ascii")


def body_form_of(Field field not None):
    """The form in which a signature hashes the body; None where it is malformed. Another that it names is as simple."""
    try:
        value = field.tags.get("c", b"")
    except TagError:
        return None
    return "relaxed" if without_spaces(value).lower().partition(b"/")[2] == b"relaxed" else "simple"


@cython.boundscheck(False)  # `at` and `end` within 0..n
cdef tuple names_of(bytes value):
    # A list separated by colons, white space around its members dropped.
    cdef const char* p = PyBytes_AS_STRING(value)
    cdef Py_ssize_t n = PyBytes_GET_SIZE(value)
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t end, next
    cdef const char* colon
    cdef list names = []
    while True:
        colon = <const char*>memchr(p + at, c':', n - at)
        next = n if colon == NULL else colon - p
        end = next
        while at < end and is_space(p[at]):
            at += 1
        while end > at and is_space(p[end - 1]):
            end -= 1
        names.append(lowered(p + at, end - at))
        if colon == NULL:
            return tuple(names)
        at = next + 1


@cython.boundscheck(False)  # `i` < `n`
cdef bytes lowered(const char* p, Py_ssize_t n):
    cdef bytes made = PyBytes_FromStringAndSize(NULL, n)
    cdef char* out = PyBytes_AS_STRING(made)
    cdef Py_ssize_t i
    for i in range(n):
        out[i] = p[i] + 32 if c'A' <= p[i] <= c'Z' else p[i]
    return made


def domain_of(bytes value not None):
    """The domain in d=, s= or behind the @ of i=, as A-labels; TagError for what can stand in no key's name."""
    cdef bytes flat = without_spaces(value)
    if not flat.isascii():
        flat = a_labels(flat)
    flat = flat.lower().rstrip(b".")
    if PyBytes_GET_SIZE(flat) > 253 or not is_name(PyBytes_AS_STRING(flat), PyBytes_GET_SIZE(flat)):
        raise TagError("not a domain")
    return PyUnicode_DecodeASCII(PyBytes_AS_STRING(flat), PyBytes_GET_SIZE(flat), NULL)


@cython.boundscheck(False)  # `i` < `n`
cdef bint is_name(const char* p, Py_ssize_t n) noexcept nogil:
    # Labels of 1 to 63 letters, digits, hyphens and underscores.
    cdef Py_ssize_t i
    cdef Py_ssize_t label = 0
    for i in range(n):
        if p[i] == c'.':
            if label == 0 or label > 63:
                return False
            label = 0
        elif c'a' <= p[i] <= c'z' or c'0' <= p[i] <= c'9' or p[i] == c'-' or p[i] == c'_':
            label += 1
        else:
            return False
    return 0 < label <= 63


cdef bytes a_labels(bytes flat):
    import idna

    if len(flat) > 1000:
        raise TagError("not a domain")
    try:
        return idna.encode(flat.decode(), uts46=True)
    except (UnicodeError, idna.IDNAError) as error:
        raise TagError("not a domain") from error


def decode_base64(bytes value not None):
    """Base64 with white space inside; TagError where it is none."""
    try:
        return a2b_base64(without_spaces(value), strict_mode=True)
    except BinasciiError as error:
        raise TagError("not base64") from error


def from_quoted_printable(bytes value not None):
    """DKIM's own quoted-printable (RFC 6376 §2.11): white space means nothing, and =XX is an octet."""
    return QUOTED.sub(lambda match: bytes([int(match[1], 16)]), without_spaces(value))


@cython.boundscheck(False)  # `i` < `n`
def unsigned_number(bytes value not None):
    """A decimal number of at most 12 digits (RFC 6376 §3.5, t= and x=)."""
    cdef const char* p = PyBytes_AS_STRING(value)
    cdef Py_ssize_t n = PyBytes_GET_SIZE(value)
    cdef Py_ssize_t i
    cdef long long number = 0
    if not 1 <= n <= 12:
        raise TagError("not a number")
    for i in range(n):
        if not c'0' <= p[i] <= c'9':
            raise TagError("not a number")
        number = number * 10 + (p[i] - c'0')
    return number


def arc_instance(Field field not None):
    """i= of an ARC field (RFC 8617 §4.2.1); TagError where there is no valid one."""
    cdef bytes first, name, value
    if field.name == b"arc-authentication-results":
        first, found, _ = field.value.partition(b";")
        name, equals, value = without_spaces(first).partition(b"=")
        if not (found and equals and name.lower() == b"i"):
            raise TagError("ARC-Authentication-Results does not begin with i=")
    else:
        value = without_spaces(field.tags.get("i", b""))
    if not value.isdigit() or not 1 <= len(value) <= 2 or not 1 <= int(value) <= MOST_SETS:
        raise TagError(f"i= is not a number from 1 to {MOST_SETS}")
    return int(value)


def octets_of(fields):
    """How long the fields are together."""
    cdef Field field
    cdef Py_ssize_t size = 0
    for field in fields:
        size += PyBytes_GET_SIZE(field.raw)
    return size


cdef tuple OF_ARC = ("a", "b", "bh", "d", "s")
cdef tuple OF_DKIM = ("v", "a", "b", "bh", "d", "h", "s")
cdef dict FORMS = {b"relaxed/relaxed": ("relaxed", "relaxed"), b"simple/simple": ("simple", "simple"),
                   b"relaxed/simple": ("relaxed", "simple"), b"simple/relaxed": ("simple", "relaxed")}
