# Address lists (RFC 5322 §3.4 with the obsolete forms of §4.4) as ENVELOPE's lists of (name route mailbox host).
#
# Nothing fails: what is no address is kept as well as it can be shown. A mailbox without a domain gets the host
# "MISSING_DOMAIN", since a host of NIL would mean a group (RFC 3501 §7.4.2); these two words are Dovecot's.

cdef struct AddressScratch:
    Buffer words        # phrase, or the local part; words with one space between
    Buffer name
    Buffer route
    Buffer host
    Buffer comment
    bint cut            # the bounds have left addresses out of a list


cdef void put_address(
    Buffer* out, Buffer* name, Buffer* route, const char* mailbox, Py_ssize_t mailbox_length, Buffer* host
) noexcept nogil:
    put_char(out, b"(")
    if name.size:
        put_string(out, name.data, name.size)
    else:
        put_nil(out)
    put_char(out, b" ")
    if route.size:
        put_string(out, route.data, route.size)
    else:
        put_nil(out)
    put_char(out, b" ")
    if mailbox_length:
        put_string(out, mailbox, mailbox_length)
    else:
        put(out, b'"MISSING_MAILBOX"', 17)
    put_char(out, b" ")
    if host.size:
        put_string(out, host.data, host.size)
    else:
        put(out, b'"MISSING_DOMAIN"', 16)
    put_char(out, b")")


cdef inline bint is_special(char c) noexcept nogil:
    return (
        c == c"," or c == c";" or c == c":" or c == c"<" or c == c">" or c == c"@" or c == c'"' or c == c"(" or is_space(c)
    )


cdef const char* take_words(const char* p, const char* end, Buffer* words, Py_ssize_t* last_word, Buffer* comment) noexcept nogil:
    """Past atoms, dots and quoted strings. `last_word` is where the last run without white space begins, dots joining what they touch."""
    cdef const char* start
    cdef bint spaced = False
    words.size = 0
    last_word[0] = 0
    while p < end:
        start = p
        p = skip_space(p, end, comment if words.size else NULL)     # a comment in front of everything names nobody
        if p > start:
            spaced = True
        if p >= end or (is_special(p[0]) and p[0] != c'"'):
            break
        if spaced and words.size:
            put_char(words, b" ")
            last_word[0] = words.size
        spaced = False
        if p[0] == c'"':
            p = take_quoted(p, end, words)
        else:
            start = p
            while p < end and not is_special(p[0]):
                p += 1
            put(words, start, p - start)
    return p


cdef Py_ssize_t join_dots(Buffer* words, Py_ssize_t last_word) noexcept nogil:
    """Where a local part begins that ends the words: CFWS may stand around its dots ("a . b@c", RFC 5322 §4.4), and is taken out."""
    cdef char* data = words.data
    cdef Py_ssize_t start = last_word
    cdef Py_ssize_t i, kept
    while start > 1 and (data[start - 2] == c"." or (start < words.size and data[start] == c".")):
        start -= 1
        while start > 0 and data[start - 1] != c" ":
            start -= 1
    kept = start
    for i in range(start, words.size):
        if data[i] == c" " and i > start and (data[i - 1] == c"." or (i + 1 < words.size and data[i + 1] == c".")):
            continue
        data[kept] = data[i]
        kept += 1
    words.size = kept
    return start


cdef const char* take_host(const char* p, const char* end, Buffer* host, Buffer* comment) noexcept nogil:
    """Past a domain or address literal behind "@"; dots may have CFWS around them."""
    cdef const char* start
    host.size = 0
    p = skip_space(p, end, comment)
    if p < end and p[0] == c"[":
        while p < end and p[0] != c"]":
            if p[0] == c"\\" and p + 1 < end:
                p += 1
            if not is_space(p[0]):
                put_char(host, p[0])
            p += 1
        put_char(host, b"]")
        return p + 1 if p < end else end
    while p < end:
        start = p
        while p < end and not is_special(p[0]):
            p += 1
        put(host, start, p - start)
        p = skip_space(p, end, comment)
        if p >= end or is_special(p[0]) or not host.size:
            break
        if p[0] != c"." and host.data[host.size - 1] != c".":
            break
    return p


cdef const char* take_angle(const char* p, const char* end, Buffer* out, AddressScratch* s) noexcept nogil:
    """An angle address whose "<" is at `p`, written with the phrase s.words as its name."""
    cdef Py_ssize_t last_word = 0
    cdef Buffer phrase = s.words
    s.words = s.name
    s.name = phrase
    s.route.size = 0
    s.host.size = 0
    p = skip_space(p + 1, end, NULL)
    if p < end and p[0] == c"@":                    # a source route: "@a,@b:"
        while p < end and p[0] != c":" and p[0] != c">":
            if p[0] == c"(":
                p = skip_comment(p, end, NULL)
                continue
            if not is_space(p[0]):
                put_char(&s.route, p[0])
            p += 1
        if p < end and p[0] == c":":
            p += 1
    p = take_words(p, end, &s.words, &last_word, NULL)
    join_dots(&s.words, last_word)
    if p < end and p[0] == c"@":
        p = take_host(p + 1, end, &s.host, NULL)
    put_address(out, &s.name, &s.route, s.words.data, s.words.size, &s.host)
    # Whatever else was written between the brackets. One that is not closed must not take those behind it along.
    while p < end and p[0] != c">" and p[0] != c"," and p[0] != c";":
        if p[0] == c'"':
            s.words.size = 0
            p = take_quoted(p, end, &s.words)
        elif p[0] == c"(":
            p = skip_comment(p, end, NULL)
        else:
            p += 1
    return p + 1 if p < end and p[0] == c">" else p


cdef const char* take_mailbox(const char* p, const char* end, Buffer* out, AddressScratch* s, Py_ssize_t last_word) noexcept nogil:
    """An address without brackets whose words are read and whose "@", or end, is at `p`. A trailing comment is its name (RFC 822's way)."""
    cdef const char* mailbox
    cdef Py_ssize_t length
    s.host.size = 0
    s.route.size = 0
    s.name.size = 0
    if p < end and p[0] == c"@":
        last_word = join_dots(&s.words, last_word)
        p = take_host(p + 1, end, &s.host, &s.comment)
        if last_word > 0:
            put(&s.name, s.words.data, last_word - 1)
        mailbox = s.words.data + last_word
        length = s.words.size - last_word
    else:
        mailbox = s.words.data
        length = s.words.size
    if not s.name.size and s.comment.size:
        put(&s.name, s.comment.data, s.comment.size)
    put_address(out, &s.name, &s.route, mailbox, length, &s.host)
    return p


cdef void put_addresses(Buffer* out, const char* p, const char* end, AddressScratch* s) noexcept nogil:
    """The whole list in parentheses, or NIL where the field names nobody."""
    cdef Py_ssize_t start = out.size
    cdef Py_ssize_t last_word = 0
    cdef bint in_group = False
    cdef int count = 0
    put_char(out, b"(")
    while count < MAX_ADDRESSES:
        s.comment.size = 0
        p = take_words(p, end, &s.words, &last_word, &s.comment)
        if p >= end and not s.words.size:
            break
        if p < end and p[0] == c"<":
            p = take_angle(p, end, out, s)
            count += 1
        elif p < end and p[0] == c":":
            if in_group:
                put(out, b"(NIL NIL NIL NIL)", 17)
            put(out, b"(NIL NIL ", 9)
            put_string(out, s.words.data, s.words.size)
            put(out, b" NIL)", 5)
            in_group = True
            count += 1
            p += 1
            continue
        elif s.words.size or (p < end and p[0] == c"@"):
            p = take_mailbox(p, end, out, s, last_word)
            count += 1
        # Past anything up to the separator: what follows an address within its element is no address.
        while p < end and p[0] != c"," and p[0] != c";":
            if p[0] == c'"':
                s.words.size = 0
                p = take_quoted(p, end, &s.words)
            elif p[0] == c"(":
                p = skip_comment(p, end, NULL)
            else:
                p += 1
        if p < end:
            if p[0] == c";" and in_group:
                put(out, b"(NIL NIL NIL NIL)", 17)
                in_group = False
            p += 1
    if p < end:
        s.cut = True
    if in_group:
        put(out, b"(NIL NIL NIL NIL)", 17)
    if out.size == start + 1:
        out.size = start
        put_nil(out)
    else:
        put_char(out, b")")
