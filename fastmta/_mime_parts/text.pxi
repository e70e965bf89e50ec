# Headers and bodies as text, for SEARCH, TOP, HEADER.FIELDS and the command line. Python objects, bounded by the caller's input.

# RFC 2047 §2 lets an encoded word have 75 octets; senders write longer ones, which are read up to MAX_WORD_BYTES of text.
_WORD = r"=\?([^?\s]{1,64})\?([BbQq])\?([^?\s]{0,%d})\?=" % MAX_WORD_BYTES
_ENCODED_WORD = re.compile(_WORD)
_BETWEEN_WORDS = re.compile(r"(\?=)[ \t\r\n]+(?=" + _WORD.replace("(", "(?:") + ")")
_FOLD = re.compile(r"\r?\n(?=[ \t])")
_BLANKS = re.compile(r"[ \t]+")


cdef enum:
    LONGEST_NAME = 1000  # octets of a field's name, blanks before its colon included; a longer one is nobody's


@cython.final
cdef class HeaderFields:
    """Picks the fields of the given names out of a header that comes in pieces, as they lie (RFC 3501 §6.4.5, HEADER.FIELDS).

    `names` are bytes or str in any case. With `invert`: all other fields (HEADER.FIELDS.NOT). No object is made of a line, so a
    piece costs what its octets do, whatever stands in it.
    """
    cdef set names
    cdef uint64_t lengths   # bit n: a name of n octets, modulo 64, is among them
    cdef bint invert
    cdef bint keep          # the field that is being read is wanted
    cdef bint within        # the last piece ended in the middle of a line of it
    cdef bytes left         # the beginning of a line, of which the name is not all there
    cdef readonly bint done  # the empty line has come; nothing behind it is looked at
    cdef bint broken        # what was given ended in the middle of a line

    def __init__(self, names, bint invert=False):
        self.names = {(name.encode("utf-8", "surrogateescape") if isinstance(name, str) else bytes(name)).lower() for name in names}
        for name in self.names:
            self.lengths |= <uint64_t>1 << (len(name) & 63)
        self.invert = invert
        self.left = b""

    cdef bint wanted(self, const char* name, Py_ssize_t length) except -1:
        if not self.lengths >> (length & 63) & 1:
            return self.invert
        return (name[:length].lower() in self.names) != self.invert

    def feed(self, piece):
        """What of the next piece (bytes-like) belongs to the fields. The empty line is not among it: `end` has it."""
        cdef bytes data = self.left + bytes(piece) if self.left else bytes(piece)
        cdef const char* start = data
        cdef const char* end = start + len(data)
        cdef const char* p = start
        cdef const char* q
        cdef const char* colon
        cdef const char* line_end
        cdef const char* kept = NULL  # a run of lines to copy in one go
        cdef Buffer out
        memset(&out, 0, sizeof(Buffer))
        self.left = b""
        try:
            while p < end and not self.done:
                q = <const char*>memchr(p, 10, end - p)
                line_end = end if q == NULL else q
                if not self.within:
                    if q != NULL and line_end > p and (line_end - 1)[0] == 13:
                        line_end -= 1
                    if q != NULL and line_end == p:
                        self.done = True
                        break
                    if p[0] != c" " and p[0] != c"\t":
                        colon = <const char*>memchr(p, c":", line_end - p)
                        if colon != NULL:
                            while colon > p and is_space((colon - 1)[0]):
                                colon -= 1
                            self.keep = self.wanted(p, colon - p)
                        elif q == NULL and end - p <= LONGEST_NAME:
                            self.left = p[:end - p]
                            break
                        else:
                            self.keep = self.invert
                self.within = q == NULL
                if self.keep and kept == NULL:
                    kept = p
                elif not self.keep and kept != NULL:
                    put(&out, kept, p - kept)
                    kept = NULL
                p = end if q == NULL else q + 1
            if kept != NULL:
                put(&out, kept, p - kept)
            if out.failed:
                raise MemoryError
            if out.size:
                self.broken = out.data[out.size - 1] != 10
            return out.data[:out.size] if out.size else b""
        finally:
            release(&out)

    def end(self):
        """What follows the last piece: the line that it ended in, if it is wanted, and the empty line."""
        cdef bytes left = self.left
        self.left = b""
        if left and left != b"\r" and self.invert:
            return left + b"\r\n\r\n"
        return b"\r\n\r\n" if self.broken else b"\r\n"


def header_fields(raw_header, names, bint invert=False):
    """As HeaderFields, of a header that is all there: its fields of these names and the empty line.

    `raw_header` is bytes-like and may hold the empty line and more.
    """
    cdef HeaderFields picked = HeaderFields(names, invert)
    return picked.feed(raw_header) + picked.end()


def _decode_base64(data):
    """Base64 read generously: what is not of its alphabet is passed over, and a cut last group gives what it can."""
    cdef bytes clean = data.translate(None, _NOT_BASE64)
    cut = clean.find(b"=")
    if cut >= 0:
        clean = clean[:cut]
    if len(clean) % 4 == 1:
        clean = clean[: len(clean) - 1]
    return binascii.a2b_base64(clean + b"==="[: (4 - len(clean) % 4) % 4])


def _decode_word(match):
    charset, kind, text = match.groups()
    raw = text.encode("utf-8", "surrogateescape")
    if kind in "Qq":
        raw = binascii.a2b_qp(raw, header=True)
    else:
        raw = _decode_base64(raw)
    return _decode_charset(raw, charset).replace("\r", "").replace("\n", "")


def decode_header(raw):
    """An unstructured field's value as text: unfolded, blanks as one space, encoded words (RFC 2047) decoded, raw UTF-8 taken as it is, else Latin-1.

    Malformed words stay as they are; nothing raises.
    """
    cdef bytes data = bytes(raw)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    text = _FOLD.sub("", text).strip()
    if "\t" in text or "  " in text:  # many fold with a tab
        text = _BLANKS.sub(" ", text)
    if "=?" not in text:
        return text
    return _ENCODED_WORD.sub(_decode_word, _BETWEEN_WORDS.sub(r"\1", text))


def decode_body(raw, encoding, charset, Py_ssize_t limit=1 << 20):
    """The text of a part's body: at most `limit` bytes of it are read, its transfer encoding and charset undone; nothing raises.

    `raw` is bytes-like; `encoding` and `charset` are str or bytes, as a Part has them.
    """
    cdef bytes data = bytes(memoryview(raw)[:limit])
    cdef str name = (encoding.decode("ascii", "replace") if isinstance(encoding, bytes) else encoding or "").lower()
    if name == "base64":
        data = _decode_base64(data)
    elif name == "quoted-printable":
        data = binascii.a2b_qp(data)
    return _decode_charset(data, charset or "")


_NOT_BASE64 = bytes(sorted(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")))
