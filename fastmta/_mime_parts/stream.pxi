# Text of a body in pieces, so that SEARCH holds neither the loop nor the memory for a long one; and what headers hide from a plain look.

cdef object incremental_of(object charset):
    """A fresh decoder of a charset's pieces, or None for UTF-7; an unknown charset is read as UTF-8."""
    codec = codec_of(charset)
    if codec is None:
        codec = "utf-8"
    if not codec:
        return None
    return codecs.getincrementaldecoder(codec)("replace")


@cython.final
cdef class TextDecoder:
    """The text of one part's body: feed it in pieces of any size, the last one with `final`. Nothing raises."""

    cdef object charset
    cdef bint base64
    cdef bint quoted
    cdef bint ended             # base64's padding has been seen
    cdef bytes left

    def __init__(self, encoding, charset):
        cdef str name = (encoding.decode("ascii", "replace") if isinstance(encoding, bytes) else encoding or "").lower()
        self.base64 = name == "base64"
        self.quoted = name == "quoted-printable"
        self.charset = incremental_of(charset or "")
        self.left = b""

    def feed(self, data, bint final=False):
        """The text that these bytes complete."""
        cdef bytes raw = bytes(data)
        cdef Py_ssize_t cut
        if self.base64:
            raw = self._from_base64(raw, final)
        elif self.quoted:
            raw = self.left + raw
            self.left = b""
            if not final:
                cut = raw.rfind(b"=", max(0, len(raw) - 3))
                if cut >= 0:
                    self.left = raw[cut:]
                    raw = raw[:cut]
            raw = binascii.a2b_qp(raw)
        if self.charset is not None:
            return self.charset.decode(raw, final)
        if not (self.base64 or self.quoted):        # UTF-7: a run of base64 never passes a line's end
            raw = self.left + raw
            cut = len(raw) if final else raw.rfind(b"\n") + 1
            if not final and len(raw) - cut > MAX_LINE_BYTES:
                cut = len(raw)
            self.left = raw[cut:]
            raw = raw[:cut]
        return _decode_utf_7(raw)

    cdef bytes _from_base64(self, bytes raw, bint final):
        cdef Py_ssize_t cut
        if self.ended:
            return b""
        raw = self.left + raw.translate(None, _NOT_BASE64)
        cut = raw.find(b"=")
        if cut >= 0:
            self.ended = True
            raw = raw[:cut]
        elif not final:
            cut = len(raw) // 4 * 4
            self.left = raw[cut:]
            raw = raw[:cut]
        return _decode_base64(raw)


def header_end(data not None):
    """Where the header of these bytes ends, its last line included and the empty line not; -1 where no empty line is in them."""
    cdef const unsigned char[::1] view = data
    cdef const char* start
    cdef const char* p
    cdef const char* end
    if view.shape[0] == 0:
        return -1
    start = p = <const char*>&view[0]
    end = p + view.shape[0]
    while p < end:
        if p[0] == c"\n" or (p[0] == c"\r" and p + 1 < end and p[1] == c"\n"):
            return p - start
        p = <const char*>memchr(p, 10, end - p)
        if p == NULL:
            return -1
        p += 1
    return -1


_PARAMETER = re.compile(r"""[;\s]([A-Za-z0-9_-]{1,64})\*(?:([0-9]{1,3})(\*?))?[ \t]*=[ \t]*(?:"([^"]{0,4096})"|([^;\s"]{0,4096}))""")


def extended_parameters(raw_header):
    """The values of RFC 2231's parameters in a header, joined and decoded, a line each: how names of attachments are found."""
    cdef bytes data = bytes(raw_header)
    cdef dict charsets = {}
    cdef dict values = {}
    if b"*" not in data:
        return ""
    text = _FOLD.sub("", data.decode("latin-1"))
    for match in _PARAMETER.finditer(text):
        name, section, star, quoted, token = match.groups()
        value = quoted if quoted is not None else token
        key = name.lower()
        extended = section is None or star == "*"
        if section is None or section == "0":
            values.setdefault(key, []).append([])
            charsets[key] = ""
            if extended:
                charset, quote, rest = value.partition("'")
                if quote:
                    charsets[key] = charset
                    value = rest.partition("'")[2]
        if key not in values:
            continue
        raw = value.encode("latin-1")
        values[key][len(values[key]) - 1].append(_unquote(raw) if extended else raw)
    return "\n".join(_decode_charset(b"".join(pieces), charsets[key]) for key in values for pieces in values[key])


_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")


def _unquote(raw):
    return _PERCENT.sub(lambda match: bytes((int(match.group(1), 16),)), raw)
