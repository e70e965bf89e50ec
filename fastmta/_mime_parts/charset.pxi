# Charsets by name. The table below is all that there is: a name is looked up in it as it stands but for ASCII case, and never
# handed to Python's registry of codecs, which folds names ("-punycode" is "punycode" there), imports modules by them, and
# remembers each. Every codec named here decodes in linear time whatever the bytes; UTF-7, whose own in Python has no such promise
# in its documentation, is decoded below.

# canonical name as SEARCH lists it: (Python's codec, other labels). What a label meant to its senders is read by the superset that
# the WHATWG encoding standard reads it by, where there is one.
_CHARSETS = {
    "US-ASCII": ("utf-8", "ascii ansi_x3.4-1968 iso646-us iso-ir-6 cp367 ibm367 unknown-8bit x-unknown"),
    "UTF-8": ("utf-8", "utf8 unicode-1-1-utf-8"),
    "UTF-7": ("", "unicode-1-1-utf-7"),
    "UTF-16": ("utf-16", "utf16 iso-10646-ucs-2 ucs-2 unicode"),
    "UTF-16BE": ("utf-16-be", ""),
    "UTF-16LE": ("utf-16-le", ""),
    "UTF-32": ("utf-32", "utf32 iso-10646-ucs-4 ucs-4"),
    "UTF-32BE": ("utf-32-be", ""),
    "UTF-32LE": ("utf-32-le", ""),
    "ISO-8859-1": ("iso8859-1", "iso8859-1 iso_8859-1 iso88591 latin1 l1 cp819 ibm819 iso-ir-100"),
    "ISO-8859-2": ("iso8859-2", "iso8859-2 iso_8859-2 latin2 l2"),
    "ISO-8859-3": ("iso8859-3", "iso8859-3 iso_8859-3 latin3 l3"),
    "ISO-8859-4": ("iso8859-4", "iso8859-4 iso_8859-4 latin4 l4"),
    "ISO-8859-5": ("iso8859-5", "iso8859-5 iso_8859-5 cyrillic"),
    "ISO-8859-6": ("iso8859-6", "iso8859-6 iso_8859-6 arabic iso-8859-6-i iso-8859-6-e"),
    "ISO-8859-7": ("iso8859-7", "iso8859-7 iso_8859-7 greek"),
    "ISO-8859-8": ("iso8859-8", "iso8859-8 iso_8859-8 hebrew iso-8859-8-i iso-8859-8-e logical visual"),
    "ISO-8859-9": ("iso8859-9", "iso8859-9 iso_8859-9 latin5 l5"),
    "ISO-8859-10": ("iso8859-10", "iso8859-10 iso_8859-10 latin6 l6"),
    "ISO-8859-11": ("iso8859-11", "iso8859-11 iso_8859-11"),
    "ISO-8859-13": ("iso8859-13", "iso8859-13 iso_8859-13 latin7"),
    "ISO-8859-14": ("iso8859-14", "iso8859-14 iso_8859-14 latin8"),
    "ISO-8859-15": ("iso8859-15", "iso8859-15 iso_8859-15 latin9 latin-9 l9"),
    "ISO-8859-16": ("iso8859-16", "iso8859-16 iso_8859-16 latin10"),
    "WINDOWS-874": ("cp874", "cp874 ibm874"),
    "WINDOWS-1250": ("cp1250", "cp1250 x-cp1250"),
    "WINDOWS-1251": ("cp1251", "cp1251 x-cp1251"),
    "WINDOWS-1252": ("cp1252", "cp1252 x-cp1252 ansi"),
    "WINDOWS-1253": ("cp1253", "cp1253 x-cp1253"),
    "WINDOWS-1254": ("cp1254", "cp1254 x-cp1254"),
    "WINDOWS-1255": ("cp1255", "cp1255 x-cp1255"),
    "WINDOWS-1256": ("cp1256", "cp1256 x-cp1256"),
    "WINDOWS-1257": ("cp1257", "cp1257 x-cp1257"),
    "WINDOWS-1258": ("cp1258", "cp1258 x-cp1258"),
    "KOI8-R": ("koi8-r", "koi8 koi koi8_r cskoi8r"),
    "KOI8-U": ("koi8-u", "koi8-ru"),
    "KOI8-T": ("koi8-t", ""),
    "TIS-620": ("tis-620", "tis620 iso-ir-166"),
    "MACINTOSH": ("mac-roman", "mac x-mac-roman macroman"),
    "X-MAC-CYRILLIC": ("mac-cyrillic", "mac-cyrillic x-mac-ukrainian"),
    "X-MAC-CE": ("mac-latin2", "mac-centraleurope"),
    "X-MAC-GREEK": ("mac-greek", "mac-greek"),
    "X-MAC-TURKISH": ("mac-turkish", "mac-turkish"),
    "IBM437": ("cp437", "cp437 437"),
    "IBM737": ("cp737", "cp737"),
    "IBM775": ("cp775", "cp775"),
    "IBM850": ("cp850", "cp850 850"),
    "IBM852": ("cp852", "cp852 852"),
    "IBM855": ("cp855", "cp855 855"),
    "IBM857": ("cp857", "cp857 857"),
    "IBM858": ("cp858", "cp858 ibm00858"),
    "IBM860": ("cp860", "cp860 860"),
    "IBM861": ("cp861", "cp861 861"),
    "IBM862": ("cp862", "cp862 862"),
    "IBM863": ("cp863", "cp863 863"),
    "IBM864": ("cp864", "cp864"),
    "IBM865": ("cp865", "cp865 865"),
    "IBM866": ("cp866", "cp866 866"),
    "IBM869": ("cp869", "cp869 869"),
    "GB18030": ("gb18030", ""),
    "GBK": ("gb18030", "cp936 ms936 windows-936 x-gbk"),
    "GB2312": ("gb18030", "gb_2312-80 gb_2312 csgb2312 euc-cn euccn chinese x-euc-cn"),
    "HZ-GB-2312": ("hz", "hz"),
    "BIG5": ("cp950", "big-5 cp950 cn-big5 x-x-big5 csbig5"),
    "BIG5-HKSCS": ("big5hkscs", "big5hkscs"),
    "EUC-JP": ("euc-jp", "eucjp x-euc-jp ujis cseucpkdfmtjapanese"),
    "SHIFT_JIS": ("cp932", "shift-jis sjis x-sjis ms_kanji windows-31j cp932 ms932 csshiftjis"),
    "ISO-2022-JP": ("iso2022-jp-ext", "iso2022-jp csiso2022jp iso-2022-jp-ms cp50220 cp50221"),
    "ISO-2022-JP-1": ("iso2022-jp-1", ""),
    "ISO-2022-JP-2": ("iso2022-jp-2", ""),
    "ISO-2022-JP-3": ("iso2022-jp-3", ""),
    "ISO-2022-JP-2004": ("iso2022-jp-2004", ""),
    "EUC-KR": ("cp949", "euckr ks_c_5601-1987 ks_c_5601-1989 ks_c_5601 ksc5601 ksc_5601 cp949 uhc windows-949 korean cseuckr"),
    "ISO-2022-KR": ("iso2022-kr", "iso2022-kr csiso2022kr"),
    "JOHAB": ("johab", "cp1361"),
}

CHARSETS = tuple(_CHARSETS)     # canonical names, in the table's order: what SEARCH's BADCHARSET lists

_UTF_7 = re.compile(rb"\+([A-Za-z0-9+/]*)-?")


def _utf_7_run(match):
    cdef bytes coded = match.group(1)
    if not coded:
        return b"+" if match.group() == b"+-" else match.group()
    raw = binascii.a2b_base64(coded + b"A" * ((4 - len(coded) % 4) % 4))
    # Bits that fill up the last character are no UTF-16: six bits a letter, whole units of sixteen count.
    return raw[:len(coded) * 6 // 16 * 2].decode("utf-16-be", "replace").encode("utf-8", "surrogatepass")


def _decode_utf_7(bytes data, str errors="replace"):
    """UTF-7 (RFC 2152): each run of base64 once, in linear time."""
    return _UTF_7.sub(_utf_7_run, data.decode("ascii", errors).encode("utf-8")).decode("utf-8", "replace")


def _bind(str codec):
    if not codec:
        return _decode_utf_7
    decode = codecs.lookup(codec).decode
    return lambda data, errors="replace": decode(data, errors)[0]


_DECODERS = {}                  # codec -> function, made when first used: at most one for each codec of the table
_LABELS = {
    label.lower(): codec
    for name, (codec, others) in _CHARSETS.items()
    for label in (name, *others.split())
}
_LABEL_BYTES = max(map(len, _LABELS))


cdef object codec_of(object charset):
    """The codec of a charset's label, "" for UTF-7, or None. `charset` is str or bytes; a language behind "*" is left out (RFC 2231 §5)."""
    cdef str name
    if isinstance(charset, bytes):
        charset = (<bytes>charset)[:_LABEL_BYTES + 64].decode("latin-1")
    name = charset[:_LABEL_BYTES + 64].partition("*")[0].strip(" \t\"'")
    if len(name) > _LABEL_BYTES or not name.isascii():
        return None
    return _LABELS.get(name.lower())


cdef object decoder_of(object charset):
    """The decoding function of a charset's label, or None."""
    codec = codec_of(charset)
    if codec is None:
        return None
    found = _DECODERS.get(codec)
    if found is None:
        found = _DECODERS[codec] = _bind(codec)
    return found


def knows_charset(charset not None):
    """Whether text of this charset can be decoded."""
    return decoder_of(charset) is not None


def decode_text(data, charset not None):
    """Bytes in a charset as text; LookupError where the charset is not in the table, UnicodeDecodeError where the bytes do not fit."""
    found = decoder_of(charset)
    if found is None:
        raise LookupError("unknown charset")
    if charset.upper() in ("US-ASCII", b"US-ASCII"):
        return bytes(data).decode("ascii")
    return found(bytes(data), "strict")


def _decode_charset(bytes data, charset):
    """Bytes as text; an unknown charset is read as UTF-8, what does not fit becomes U+FFFD."""
    found = decoder_of(charset)
    return found(data, "replace") if found is not None else data.decode("utf-8", "replace")
