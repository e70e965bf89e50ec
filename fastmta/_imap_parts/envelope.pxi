# SEARCH through the ENVELOPEs that were made at arrival: "* n FETCH (ENVELOPE (...))" lines as the store's loop writes them.
#
# A value in plain ASCII is decided here. One with an encoded word or a literal (octets over 127) is handed back, for the caller to
# decode: (n - 1, its octets). (n - 1, None) says that the header decides what is not found: there is no ENVELOPE, or it does not show
# all (the store's loop says so by MORE behind it, where it is asked).

cdef extern from "<string.h>" nogil:
    void* memmem(const void*, size_t, const void*, size_t)

cdef enum:
    ENVELOPE_FIELDS = 10
    ENVELOPE_DATE = 0
    ENVELOPE_DEPTH = 4              # of parentheses; an ENVELOPE has 3


cdef struct Span:
    const char* at
    Py_ssize_t size
    int kind                        # 0 NIL, 1 quoted, 2 literal, 3 a list, -1 malformed
    bint more                       # the header has more of this than the ENVELOPE


cdef struct Text:
    char* data
    Py_ssize_t size
    Py_ssize_t capacity
    bint coded                      # an encoded word or a literal is in it
    bint failed


cdef inline bint is_digit(char c) noexcept nogil:
    return 48 <= c and c <= 57


cdef const char* span_at(const char* p, const char* end, Span* span) noexcept nogil:
    """The value at `p` and where it ends; strings without their quotes, lists with their parentheses."""
    cdef int depth = 0
    cdef uint64_t literal
    cdef const char* start = p
    cdef bint first = True
    cdef int kind = -1
    span.kind = -1
    while p < end and (first or depth):
        if p[0] == c'"':
            start = p + 1 if first else start
            kind = 1 if first else kind
            p += 1
            while p < end and p[0] != c'"':
                p += 2 if p[0] == c'\\' else 1
            if p >= end:
                return end
            if first:
                span.at = start
                span.size = p - start
            p += 1
        elif p[0] == c'{':
            p += 1
            literal = 0
            while p < end and is_digit(p[0]) and literal < 0xFFFFFFFFu:
                literal = literal * 10 + <uint64_t>(p[0] - c'0')
                p += 1
            if end - p < 3 or p[0] != c'}':
                return end
            p += 3
            if literal > <uint64_t>(end - p):
                return end
            if first:
                kind = 2
                span.at = p
                span.size = <Py_ssize_t>literal
            p += literal
        elif p[0] == c'(':
            if first:
                kind = 3
                start = p
            depth += 1
            if depth > ENVELOPE_DEPTH:
                return end
            p += 1
        elif p[0] == c')':
            if depth == 0:
                return end
            depth -= 1
            p += 1
            if depth == 0:
                span.at = start
                span.size = p - start
        elif p[0] == c'N' and end - p >= 3:
            kind = 0 if first else kind
            p += 3
        elif p[0] == c' ' and not first:
            p += 1
        else:
            return end
        first = False
    if depth == 0 and not first:
        span.kind = kind
    return p


cdef bint text_room(Text* text, Py_ssize_t more) noexcept nogil:
    cdef char* grown
    if text.capacity - text.size >= more:
        return True
    grown = <char*>realloc(text.data, (text.size + more) * 2)
    if grown == NULL:
        text.failed = True
        return False
    text.data = grown
    text.capacity = (text.size + more) * 2
    return True


cdef void text_put(Text* text, const char* data, Py_ssize_t n) noexcept nogil:
    if n > 0 and text_room(text, n):
        memcpy(text.data + text.size, data, n)
        text.size += n


cdef void text_value(Text* text, Span* span) noexcept nogil:
    """A string's octets, unescaped; tabs and several spaces, which folding leaves, are one space."""
    cdef Py_ssize_t i = 0
    cdef char c
    cdef char before = 0
    if span.kind == 2:
        text.coded = True
        text_put(text, span.at, span.size)
        return
    if span.kind != 1 or not text_room(text, span.size):
        return
    while i < span.size:
        c = span.at[i]
        if c == c'\\' and i + 1 < span.size:
            i += 1
            c = span.at[i]
        if c == c'?' and i and span.at[i - 1] == c'=':
            text.coded = True
        i += 1
        if c == c'\t':
            c = c' '
        if c == c' ' and before == c' ':
            continue
        before = c
        text.data[text.size] = c
        text.size += 1


cdef bint span_is(Span* span, const char* word, Py_ssize_t n) noexcept nogil:
    return span.kind == 1 and span.size == n and memcmp(span.at, word, n) == 0


cdef void text_addresses(Text* text, Span* value) noexcept nogil:
    """An address list as a header shows it: `name <mailbox@host>, mailbox@host, group: mailbox@host;`."""
    cdef const char* p = value.at + 1
    cdef const char* end = value.at + value.size - 1
    cdef const char* next_one
    cdef Span one
    cdef Span part[4]
    cdef int i
    cdef bint named, separate = False
    while p < end:
        next_one = span_at(p, end, &one)
        if one.kind != 3:
            return
        p = one.at + 1
        for i in range(4):
            p = span_at(p, one.at + one.size - 1, &part[i])
            if part[i].kind < 0:
                return
            if i < 3:
                p += 1
        p = next_one
        if part[3].kind == 0 and part[2].kind == 0:         # a group's end
            text_put(text, b";", 1)
            separate = True
            continue
        if separate:
            text_put(text, b", ", 2)
        separate = True
        if part[3].kind == 0:                               # a group's begin
            text_value(text, &part[2])
            text_put(text, b": ", 2)
            separate = False
            continue
        named = part[0].kind != 0
        if named:
            text_value(text, &part[0])
            text_put(text, b" <", 2)
        if not span_is(&part[2], b"MISSING_MAILBOX", 15):
            text_value(text, &part[2])
        if not span_is(&part[3], b"MISSING_DOMAIN", 14):
            text_put(text, b"@", 1)
            text_value(text, &part[3])
        if named:
            text_put(text, b">", 1)


cdef inline char folded(char c) noexcept nogil:
    return c | 32 if 65 <= c and c <= 90 else c


cdef bint text_has(Text* text, const char* needle, Py_ssize_t n) noexcept nogil:
    """Whether `needle`, in lower case, is in the text, which becomes lower case. Linear, since libc's memmem is."""
    cdef Py_ssize_t i
    if n == 0:
        return True
    for i in range(text.size):
        text.data[i] = folded(text.data[i])
    return text.size >= n and memmem(text.data, text.size, needle, n) != NULL


cdef const char* line_field(const char* p, const char* end, int field, Py_ssize_t* number, Span* value) noexcept nogil:
    """One line's number and the field of its ENVELOPE (kind -1: it has none); where the next line begins."""
    cdef Span skipped
    cdef int i
    cdef const char* newline
    number[0] = 0
    value.kind = -1
    value.more = False
    if end - p < 8 or p[0] != c'*':
        return end
    p += 2
    while p < end and is_digit(p[0]) and number[0] < 0x7FFFFFFF:
        number[0] = number[0] * 10 + (p[0] - c'0')
        p += 1
    if end - p > 18 and memcmp(p, b" FETCH (ENVELOPE (", 18) == 0:
        p += 18
        for i in range(ENVELOPE_FIELDS):
            p = span_at(p, end, value if i == field else &skipped)
            if i < ENVELOPE_FIELDS - 1 and p < end:
                p += 1
        if end - p > 7 and memcmp(p, b") MORE ", 7) == 0:
            value.more = (p[7] & (2 if 2 <= field <= 7 else 1)) != 0
    newline = <const char*>memchr(p, c'\n', end - p) if p < end else NULL
    return end if newline == NULL else newline + 1


def envelope_matches(bytes lines, int field, bytes needle, bytearray found) -> list:
    """Sets found[n - 1] for each line whose field contains `needle` (folded, in UTF-8). `field`: 0 Date to 9 Message-ID.

    The list that it gives has the values that only their decoding decides, and behind such a one what the header decides.
    """
    cdef const char* p = PyBytes_AS_STRING(lines)
    cdef const char* end = p + PyBytes_GET_SIZE(lines)
    cdef const char* word = PyBytes_AS_STRING(needle)
    cdef Py_ssize_t n = PyBytes_GET_SIZE(needle)
    cdef Py_ssize_t number, slots = len(found)
    cdef char* out = found
    cdef Span value
    cdef Text text
    cdef bint lists = 2 <= field <= 7
    cdef list unsure = []
    memset(&text, 0, sizeof(text))
    try:
        while p < end:
            p = line_field(p, end, field, &number, &value)
            if not 1 <= number <= slots or value.kind == 0:
                continue
            if value.kind < 0:
                unsure.append((number - 1, None))
                continue
            text.size = 0
            text.coded = False
            if lists:
                if value.kind != 3:
                    continue
                text_addresses(&text, &value)
            else:
                text_value(&text, &value)
            if text.failed:
                raise MemoryError
            if text.coded:
                unsure.append((number - 1, PyBytes_FromStringAndSize(text.data, text.size)))
            elif text_has(&text, word, n):
                out[number - 1] = 1
                continue
            if value.more:
                unsure.append((number - 1, None))
        return unsure
    finally:
        free(text.data)


def envelope_text(bytes line, int field) -> object:
    """The octets of one line's field as envelope_matches hands them back; None where it is NIL."""
    cdef const char* p = PyBytes_AS_STRING(line)
    cdef Py_ssize_t number
    cdef Span value
    cdef Text text
    line_field(p, p + PyBytes_GET_SIZE(line), field, &number, &value)
    if value.kind <= 0:
        return None
    memset(&text, 0, sizeof(text))
    try:
        if value.kind == 3:
            text_addresses(&text, &value)
        else:
            text_value(&text, &value)
        if text.failed:
            raise MemoryError
        return PyBytes_FromStringAndSize(text.data, text.size) if text.size else b""
    finally:
        free(text.data)


cdef const char* MONTH_NAMES = b"janfebmaraprmayjunjulaugsepoctnovdec"


cdef int64_t day_number(int year, int month, int day) noexcept nogil:
    """Days since 1970-01-01 of the Gregorian calendar."""
    cdef int64_t y = year - (month <= 2)
    cdef int64_t era = y // 400
    cdef int64_t of_era = y - era * 400
    cdef int64_t of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


cdef bint plain_day(Span* value, int64_t* day) noexcept nogil:
    """The day of a date as everybody writes it: `[Www, ]D Mon YYYY `; False for all others."""
    cdef const char* p = value.at
    cdef const char* end = p + value.size
    cdef int number = 0, month, year = 0, k
    if value.kind != 1:
        return False
    if end - p > 4 and p[3] == c',':
        p += 4
    while p < end and p[0] == c' ':
        p += 1
    for k in range(2):
        if p < end and is_digit(p[0]):
            number = number * 10 + (p[0] - c'0')
            p += 1
    while p < end and p[0] == c' ':
        p += 1
    if end - p < 9 or p[3] != c' ' or p[8] != c' ':
        return False
    month = 0
    while month < 12 and not (folded(p[0]) == MONTH_NAMES[3 * month] and folded(p[1]) == MONTH_NAMES[3 * month + 1]
                              and folded(p[2]) == MONTH_NAMES[3 * month + 2]):
        month += 1
    for k in range(4, 8):
        if not is_digit(p[k]):
            return False
        year = year * 10 + (p[k] - c'0')
    if month == 12 or not 1 <= number <= 28 or year < 1000:     # the ends of months are the caller's
        return False
    day[0] = day_number(year, month + 1, number)
    return True


cdef inline int two_digits(const char* p) noexcept nogil:
    return (p[0] - c'0') * 10 + (p[1] - c'0') if is_digit(p[0]) and is_digit(p[1]) else -1


cdef object plain_instant(Span* value):
    """Seconds since 1970 of a date as everybody writes it, `... HH:MM:SS +ZZZZ` behind its day; None for all others."""
    cdef const char* p = value.at
    cdef const char* end = p + value.size
    cdef int64_t day = 0
    cdef int hour, minute, second, zone_hours, zone_minutes
    if not plain_day(value, &day):
        return None
    p = <const char*>memchr(p, c':', end - p)
    if p == NULL or p - value.at < 3 or end - p < 12:
        return None
    hour = two_digits(p - 2)
    minute = two_digits(p + 1)
    second = two_digits(p + 4)
    zone_hours = two_digits(p + 8)
    zone_minutes = two_digits(p + 10)
    if (p[3] != c':' or p[6] != c' ' or (p[7] != c'+' and p[7] != c'-') or (p - 3)[0] != c' '
            or (end - p > 12 and p[12] != c' ')
            or not (0 <= hour < 24 and 0 <= minute < 60 and 0 <= second <= 60 and 0 <= zone_hours < 24
                    and 0 <= zone_minutes < 60)):
        return None
    zone_minutes += zone_hours * 60
    if p[7] == c'-':
        zone_minutes = -zone_minutes
    return day * 86400 + hour * 3600 + minute * 60 + second - zone_minutes * 60


cdef object span_text(Span* span):
    """A string's octets, unescaped; None for NIL."""
    cdef Text text
    if span.kind <= 0 or span.kind == 3:
        return None
    if span.kind == 2 or memchr(span.at, c'\\', span.size) == NULL:
        return PyBytes_FromStringAndSize(span.at, span.size)
    memset(&text, 0, sizeof(text))
    try:
        text_value(&text, span)
        if text.failed:
            raise MemoryError
        return PyBytes_FromStringAndSize(text.data, text.size) if text.size else b""
    finally:
        free(text.data)


cdef object first_address(Span* value):
    """(name or None, mailbox, host) of the first address of a list; of a group, its name as the mailbox and no host, as
    ENVELOPE has it (RFC 5256 §3, RFC 5957 §3). None where there is none."""
    cdef const char* p
    cdef const char* end
    cdef Span one
    cdef Span part[4]
    cdef int i
    if value.kind != 3:
        return None
    p = value.at + 1
    end = value.at + value.size - 1
    while p < end:
        p = span_at(p, end, &one)
        if one.kind != 3:
            return None
        value.at = one.at + 1
        for i in range(4):
            value.at = span_at(value.at, one.at + one.size - 1, &part[i])
            if part[i].kind < 0:
                return None
            if i < 3:
                value.at += 1
        if part[2].kind != 0:
            return (span_text(&part[0]),
                    b"" if span_is(&part[2], b"MISSING_MAILBOX", 15) else span_text(&part[2]) or b"",
                    b"" if span_is(&part[3], b"MISSING_DOMAIN", 14) else span_text(&part[3]) or b"")
    return None


def envelope_values(bytes lines) -> list:
    """What SORT and THREAD need of each line: (number, instant or None, Date, Subject, first From, first To, first Cc,
    In-Reply-To, Message-ID); octets as they stand, None for NIL. A line without an ENVELOPE gives nothing."""
    cdef const char* p = PyBytes_AS_STRING(lines)
    cdef const char* end = p + PyBytes_GET_SIZE(lines)
    cdef const char* newline
    cdef Py_ssize_t number
    cdef Span spans[ENVELOPE_FIELDS]
    cdef int i
    cdef list out = []
    while end - p > 8 and p[0] == c'*':
        p += 2
        number = 0
        while p < end and is_digit(p[0]) and number < 0x7FFFFFFF:
            number = number * 10 + (p[0] - c'0')
            p += 1
        if end - p > 18 and memcmp(p, b" FETCH (ENVELOPE (", 18) == 0:
            p += 18
            for i in range(ENVELOPE_FIELDS):
                p = span_at(p, end, &spans[i])
                if i < ENVELOPE_FIELDS - 1 and p < end:
                    p += 1
            out.append((number, plain_instant(&spans[0]), span_text(&spans[0]), span_text(&spans[1]),
                        first_address(&spans[2]), first_address(&spans[5]), first_address(&spans[6]),
                        span_text(&spans[8]), span_text(&spans[9])))
        newline = <const char*>memchr(p, c'\n', end - p) if p < end else NULL
        p = end if newline == NULL else newline + 1
    return out


def envelope_days(bytes lines, int64_t low, int64_t high, bytearray found) -> list:
    """As envelope_matches, for the day that Date names, low..high, both included."""
    cdef const char* p = PyBytes_AS_STRING(lines)
    cdef const char* end = p + PyBytes_GET_SIZE(lines)
    cdef Py_ssize_t number, slots = len(found)
    cdef char* out = found
    cdef Span value
    cdef int64_t day = 0
    cdef list unsure = []
    while p < end:
        p = line_field(p, end, ENVELOPE_DATE, &number, &value)
        if not 1 <= number <= slots or value.kind == 0:
            continue
        if value.kind < 0:
            unsure.append((number - 1, None))
        elif plain_day(&value, &day):
            if low <= day <= high:
                out[number - 1] = 1
        else:
            unsure.append((number - 1, PyBytes_FromStringAndSize(value.at, value.size)))
    return unsure


def mask_ranges(array.array numbers, array.array ranges) -> bytes:
    """Messages whose number lies in one of the ranges (low, high, low, high...), which ascend, as the numbers do."""
    cdef Py_ssize_t n = len(numbers)
    cdef Py_ssize_t m = len(ranges) // 2
    cdef bytes out = PyBytes_FromStringAndSize(NULL, n)
    cdef uint8_t* o = <uint8_t*>PyBytes_AS_STRING(out)
    cdef uint32_t* v = <uint32_t*>numbers.data.as_voidptr
    cdef Range* r = <Range*>ranges.data.as_voidptr
    cdef Py_ssize_t low = 0, high = m, middle, i, k
    if n == 0:
        return out
    while low < high:               # the first range that does not end before the first number
        middle = (low + high) // 2
        if r[middle].high < v[0]:
            low = middle + 1
        else:
            high = middle
    k = low
    for i in range(n):
        while k < m and r[k].high < v[i]:
            k += 1
        o[i] = k < m and r[k].low <= v[i]
    return out


def merged_ranges(array.array pairs, uint32_t star) -> object:
    """A set's pairs with "*" put in, ordered and merged; numbers above `star` stay."""
    cdef int over
    return _normal(pairs, star, &over)


def mask_table(array.array numbers, bytes table) -> bytes:
    """table[number] for each message; 0 where the number is not in the table."""
    cdef Py_ssize_t n = len(numbers)
    cdef Py_ssize_t m = PyBytes_GET_SIZE(table)
    cdef bytes out = PyBytes_FromStringAndSize(NULL, n)
    cdef uint8_t* o = <uint8_t*>PyBytes_AS_STRING(out)
    cdef const uint8_t* t = <const uint8_t*>PyBytes_AS_STRING(table)
    cdef uint32_t* v = <uint32_t*>numbers.data.as_voidptr
    cdef Py_ssize_t i
    for i in range(n):
        o[i] = t[v[i]] if v[i] < <uint32_t>m else 0
    return out
