# Headers and bodies as text, for SEARCH, TOP, HEADER.FIELDS and the command line. Python objects, bounded by the caller's input.

# RFC 2047 §2 lets an encoded word have 75 octets; senders write longer ones, which are read up to MAX_WORD_BYTES of text.
_WORD = r"=\?([^?\s]{1,64})\?([BbQq])\?([^?\s]{0,%d})\?=" % MAX_WORD_BYTES
_ENCODED_WORD = re.compile(_WORD)
_BETWEEN_WORDS = re.compile(r"(\?=)[ \t\r\n]+(?=" + _WORD.replace("(", "(?:") + ")")
_FOLD = re.compile(r"\r?\n(?=[ \t])")


def header_fields(raw_header, names, bint invert=False):
    """The header fields of the given names, as they lie, and the empty line (RFC 3501 §6.4.5, HEADER.FIELDS).

    `raw_header` is bytes-like and may hold the empty line and more; `names` are bytes or str in any case. With `invert`: all
    other fields (HEADER.FIELDS.NOT).
    """
    cdef bytes data = bytes(raw_header)
    cdef const char* start = data
    cdef const char* end = start + len(data)
    cdef const char* p = start
    cdef const char* q
    cdef const char* colon
    cdef const char* line_end
    cdef bint keep = False
    cdef set wanted = {(name.encode("utf-8", "surrogateescape") if isinstance(name, str) else bytes(name)).lower() for name in names}
    cdef list out = []
    while p < end:
        q = <const char*>memchr(p, 10, end - p)
        q = end if q == NULL else q + 1
        line_end = q
        if line_end > p and (line_end - 1)[0] == 10:
            line_end -= 1
        if line_end > p and (line_end - 1)[0] == 13:
            line_end -= 1
        if line_end == p:
            break
        if p[0] != c" " and p[0] != c"\t":
            colon = <const char*>memchr(p, c":", line_end - p)
            if colon == NULL:
                keep = invert
            else:
                while colon > p and is_space((colon - 1)[0]):
                    colon -= 1
                keep = (p[:colon - p].lower() in wanted) != invert
        if keep:
            out.append(p[:q - p])
        p = q
    if out and not out[len(out) - 1].endswith(b"\n"):
        out.append(b"\r\n")
    out.append(b"\r\n")
    return b"".join(out)


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
    """An unstructured field's value as text: unfolded, encoded words (RFC 2047) decoded, raw UTF-8 taken as it is, else Latin-1.

    Malformed words stay as they are; nothing raises.
    """
    cdef bytes data = bytes(raw)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    text = _FOLD.sub("", text).strip()
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
