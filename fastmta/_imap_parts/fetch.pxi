# FETCH responses, written from the rows that a store gives: what was computed at arrival, flags, dates, whole messages and fields of
# headers. The bits of `items` are those of imap/fetch_plan.py.

cdef enum Item:
    ITEM_UID = 1
    ITEM_FLAGS = 2
    ITEM_INTERNALDATE = 4
    ITEM_SIZE = 8
    ITEM_ENVELOPE = 16
    ITEM_BODY = 32
    ITEM_BODYSTRUCTURE = 64
    ITEM_MODSEQ = 128
    ITEM_WHOLE = 256
    ITEM_SAVEDATE = 512
    ITEM_EMAILID = 1024
    ITEM_THREADID = 2048
    ITEM_UIDONLY = 4096  # "* uid UIDFETCH", RFC 9586
    ITEM_MORE = 8192  # for SEARCH: behind an ENVELOPE, whether the header has more of its text fields (1), address lists (2)

cdef enum:
    LINE_ROOM = 640  # of all that a line has but for keywords, structures and bytes of messages
    HEADER_FIRST = 16384  # of a header that is longer than a chunk; then four times as much
    HEADER_LONGEST = 65536
    HEADER_COST = 1024  # octets that a header is counted with whose end is in its first chunk: finding it costs as much
    HEADERS_A_CALL = 262144  # octets of headers that one writer looks at: about 2 ms, however little it writes of them
    MAX_WANTED = 4      # sections that are written here; each takes a chunk at most

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    struct tm:
        int tm_sec
        int tm_min
        int tm_hour
        int tm_mday
        int tm_mon
        int tm_year
    tm* gmtime_r(const time_t*, tm*)

cdef const char* MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"

cdef const char* HEX_DIGITS = "0123456789abcdef"

cdef struct FlagText:  # the system flags of a message, each with a space behind it
    char text[44]
    int length

cdef FlagText FLAG_TEXTS[32]


cdef int _fill_flag_texts() except -1:
    cdef int bits, n
    cdef bytes text
    for bits in range(32):
        text = b"".join([name for n, name in enumerate((b"\\Seen ", b"\\Answered ", b"\\Flagged ", b"\\Deleted ", b"\\Draft "))
                         if bits >> n & 1])
        memcpy(FLAG_TEXTS[bits].text, PyBytes_AS_STRING(text), len(text))
        FLAG_TEXTS[bits].length = <int>len(text)
    return 0


_fill_flag_texts()


# --- into room that was made before: each gives where it has ended ---

cdef inline char* w_text(char* at, const char* text, size_t n) noexcept nogil:
    memcpy(at, text, n)
    return at + n


cdef inline char* w_number(char* at, uint64_t number) noexcept nogil:
    cdef uint64_t power = 10
    cdef int n = 1
    cdef int i
    while n < 20 and number >= power:
        power *= 10  # of 20 digits it is not looked at any more
        n += 1
    for i in range(n - 1, -1, -1):
        at[i] = <char>(c'0' + number % 10)
        number //= 10
    return at + n


cdef inline char* w_two(char* at, int number, char lead) noexcept nogil:
    """Two digits; `lead` in place of a first 0."""
    at[0] = <char>(c'0' + number // 10) if number >= 10 else lead
    at[1] = <char>(c'0' + number % 10)
    return at + 2


cdef char* w_date(char* at, int64_t date_s, int tz_minutes) noexcept nogil:
    """A date as RFC 3501 writes INTERNALDATE: the day padded with a space."""
    cdef tm parts
    cdef time_t local
    cdef int zone = tz_minutes if tz_minutes >= 0 else -tz_minutes
    if date_s < 0:
        date_s = 0
    elif date_s > 253402214400LL:  # the end of the year 9999, so that the field keeps its width
        date_s = 253402214400LL
    local = date_s + tz_minutes * 60
    gmtime_r(&local, &parts)
    at[0] = c'"'
    at = w_two(at + 1, parts.tm_mday, c' ')
    at[0] = c'-'
    at = w_text(at + 1, MONTHS + 3 * parts.tm_mon, 3)
    at[0] = c'-'
    at = w_two(w_two(at + 1, (parts.tm_year + 1900) // 100, c'0'), (parts.tm_year + 1900) % 100, c'0')
    at[0] = c' '
    at = w_two(at + 1, parts.tm_hour, c'0')
    at[0] = c':'
    at = w_two(at + 1, parts.tm_min, c'0')
    at[0] = c':'
    at = w_two(at + 1, parts.tm_sec, c'0')
    at[0] = c' '
    at[1] = c'-' if tz_minutes < 0 else c'+'
    at = w_two(w_two(at + 2, zone // 60 % 100, c'0'), zone % 60, c'0')
    return w_text(at, b"\" ", 2)


cdef inline char* w_hex(char* at, uint64_t number) noexcept nogil:
    cdef int shift = 60
    while shift and number >> shift == 0:
        shift -= 4
    while shift >= 0:
        at[0] = HEX_DIGITS[number >> shift & 15]
        at += 1
        shift -= 4
    return at


cdef void mask_nuls(char* p, size_t n) noexcept nogil:
    """0x80 in the place of NUL, which no literal may hold (CHAR8, RFC 9051 §9)."""
    cdef char* end = p + n
    p = <char*>memchr(p, 0, n) if n else NULL
    while p != NULL:
        p[0] = <char>0x80
        p += 1
        p = <char*>memchr(p, 0, end - p) if p < end else NULL


# --- fields of a header ---

cdef struct Wanted:     # one BODY[HEADER.FIELDS...] of a FETCH; the names lie one behind the other in `names`
    const char* label
    size_t label_length
    const char* names   # each a byte of length and lower case
    size_t names_length
    bint invert


cdef bint is_wanted(Wanted* wanted, const char* name, size_t n) noexcept nogil:
    cdef const uint8_t* p = <const uint8_t*>wanted.names
    cdef const uint8_t* end = p + wanted.names_length
    cdef size_t i
    cdef uint8_t c
    while p < end:
        if p[0] == n:
            i = 0
            while i < n:
                c = <uint8_t>name[i]
                if (c | 32 if 65 <= c and c <= 90 else c) != p[i + 1]:
                    break
                i += 1
            if i == n:
                return not wanted.invert
        p += p[0] + 1
    return wanted.invert


cdef int put_fields(Buffer* out, Wanted* wanted, const char* p, const char* end, bint whole) noexcept nogil:
    """Adds the wanted fields of a header's bytes, and its empty line. 1: added; 0: the header goes on behind `end`, unless
    that is the `whole` message; -1: out of memory."""
    cdef const char* q
    cdef const char* colon
    cdef const char* line_end
    cdef const char* kept = NULL            # a run of lines to copy in one go
    cdef bint keep = False, ended = False
    while p < end:
        q = <const char*>memchr(p, 10, end - p)
        if q == NULL:
            if not whole:
                return 0
            q = end
            line_end = end
        else:
            line_end = q
            q += 1
        if line_end > p and (line_end - 1)[0] == 13:
            line_end -= 1
        if line_end == p:
            ended = True
            break
        if p[0] != 32 and p[0] != 9:
            colon = <const char*>memchr(p, 58, line_end - p)
            if colon == NULL:
                keep = wanted.invert
            else:
                while colon > p and ((colon - 1)[0] == 32 or (colon - 1)[0] == 9):
                    colon -= 1
                keep = is_wanted(wanted, p, colon - p)
        if keep and kept == NULL:
            kept = p
        elif not keep and kept != NULL:
            if buffer_add(out, kept, p - kept) < 0:
                return -1
            kept = NULL
        p = q
    if kept != NULL and buffer_add(out, kept, p - kept) < 0:
        return -1
    if not ended and not whole:
        return 0
    return 1


cdef int read_wanted(Wanted* wanted, list sections) except -1:
    """The sections' pointers, good as long as the list is; how many there are. Each is (label, packed names, invert)."""
    cdef int i
    cdef tuple one
    if len(sections) > MAX_WANTED:
        raise ValueError("too many sections")
    for i in range(len(sections)):
        one = sections[i]
        wanted[i].label = <bytes>one[0]
        wanted[i].label_length = len(<bytes>one[0])
        wanted[i].names = <bytes>one[1]
        wanted[i].names_length = len(<bytes>one[1])
        wanted[i].invert = one[2]
    return len(sections)



# --- lines ---

cdef inline int put_part(Buffer* out, const char* name, size_t name_length, const char* data, size_t n) noexcept nogil:
    cdef char* at
    if buffer_room(out, name_length + n + 5) < 0:
        return -1
    at = w_text(out.data + out.length, name, name_length)
    at = w_text(at, data, n) if n else w_text(at, b"NIL", 3)
    at[0] = c' '
    out.length = at + 1 - out.data
    return 0


@cython.final
cdef class FetchWriter(RowSink):
    """Writes `* seq FETCH (...)`, or with UIDONLY `* uid UIDFETCH (...)`, of each row, until `max_bytes` are reached.

    `\\Recent` is told of uids from `recent_from` on, no MODSEQ above `modseq_cap`. With WHOLE (BODY[] as a literal) a message larger
    than max_bytes ends the lines before itself. `sections`, at most 4, are fields of the header: (label, names in lower case with a
    byte of length before each, whether all others are meant); a message with a very long header ends the lines too, and so do
    HEADERS_A_CALL octets of headers that were looked at.
    """
    cdef int items
    cdef size_t max_bytes
    cdef uint64_t recent_from
    cdef uint64_t modseq_cap
    cdef list sections  # owns what `wanted` points to
    cdef Wanted wanted[MAX_WANTED]
    cdef int wanted_count
    cdef Buffer out
    cdef Buffer scratch
    cdef Buffer gather
    cdef Py_ssize_t at  # the index of the row that is being written
    cdef size_t looked  # octets of headers
    cdef set keyword_lists  # as rows have them, of those whose flags were written
    cdef bytes last_keywords

    def __cinit__(self, int items, size_t max_bytes, uint64_t recent_from=0x100000000, list sections=None,
                  uint64_t modseq_cap=0xFFFFFFFFFFFFFFFF):
        self.items = items
        self.max_bytes = max_bytes
        self.recent_from = recent_from
        self.modseq_cap = modseq_cap
        self.sections = sections
        self.wanted_count = read_wanted(self.wanted, sections) if sections is not None else 0
        self.wants_structure = (items & (ITEM_ENVELOPE | ITEM_BODY | ITEM_BODYSTRUCTURE)) != 0
        # What ends after a few messages must not have others looked up.
        self.block = 1 if items & ITEM_WHOLE or self.wanted_count else ROWS

    def __dealloc__(self):
        buffer_free(&self.out)
        buffer_free(&self.scratch)
        buffer_free(&self.gather)

    @property
    def lines(self):
        """What has been written, complete lines."""
        return self.out.data[: self.out.length]

    @property
    def keywords(self):
        """The lists of keywords that the lines have; None where they have none."""
        return self.keyword_lists

    cdef int note_keywords(self, const Row* row) except -1:
        cdef bytes last = self.last_keywords
        if (last is not None and PyBytes_GET_SIZE(last) == <Py_ssize_t>row.keywords_length
                and memcmp(PyBytes_AS_STRING(last), row.keywords, row.keywords_length) == 0):
            return 0  # mostly neighbours have the same
        if self.keyword_lists is None:
            self.keyword_lists = set()
        self.last_keywords = PyBytes_FromStringAndSize(row.keywords, row.keywords_length)
        self.keyword_lists.add(self.last_keywords)
        return 0

    cdef Py_ssize_t stopped_at(self) noexcept:
        return self.at

    cdef int take(self, RowSource source, const Row* rows, int count) except -1:
        cdef int written
        cdef int i = 0
        cdef size_t begin = self.out.length
        try:
            while i < count:
                if self.out.length >= self.max_bytes or (self.items & ITEM_WHOLE and rows[i].size > self.max_bytes):
                    return i
                if self.looked >= HEADERS_A_CALL:
                    return i
                self.at = rows[i].index
                begin = self.out.length
                written = self.line(source, &rows[i])
                if written == 2:
                    self.out.length = begin
                    return i
                if written:
                    raise MemoryError
                i += 1
        except BaseException:
            self.out.length = begin
            raise
        return count

    cdef int line(self, RowSource source, const Row* row) except -1:
        """1: no memory; 2: a header is a long one."""
        cdef int items = self.items
        cdef Buffer* out = &self.out
        cdef FlagText* flags
        cdef char* at
        cdef char* start
        cdef int failed, i
        if buffer_room(out, LINE_ROOM + row.keywords_length) < 0:
            return 1
        at = w_text(out.data + out.length, b"* ", 2)
        if items & ITEM_UIDONLY:
            at = w_text(w_number(at, row.uid), b" UIDFETCH (", 11)
        else:
            at = w_text(w_number(at, row.number), b" FETCH (", 8)
        if items & ITEM_UID:
            at = w_number(w_text(at, b"UID ", 4), row.uid)
            at[0] = c' '
            at += 1
        if items & ITEM_FLAGS:
            start = at = w_text(at, b"FLAGS (", 7)
            flags = &FLAG_TEXTS[row.flags & 31]
            at = w_text(at, flags.text, sizeof(flags.text)) - sizeof(flags.text) + flags.length  # all of it: no call
            if row.keywords_length:
                self.note_keywords(row)
                at = w_text(at, row.keywords, row.keywords_length)
                at[0] = c' '
                at += 1
            if row.uid >= self.recent_from:
                at = w_text(at, b"\\Recent ", 8)
            if at > start:
                at -= 1
            at = w_text(at, b") ", 2)
        if items & ITEM_INTERNALDATE:
            at = w_date(w_text(at, b"INTERNALDATE ", 13), row.date_s, row.tz_minutes)
        if items & ITEM_SIZE:
            at = w_number(w_text(at, b"RFC822.SIZE ", 12), row.size)
            at[0] = c' '
            at += 1
        out.length = at - out.data
        if self.wants_structure and self.put_structure(source, row):
            return 1
        if items & (ITEM_MODSEQ | ITEM_SAVEDATE | ITEM_EMAILID | ITEM_THREADID):
            if buffer_room(out, LINE_ROOM) < 0:
                return 1
            at = self.origin(source, row, out.data + out.length)
            out.length = at - out.data
        if items & ITEM_WHOLE:
            failed = self.put_whole(source, row)
            if failed:
                return failed
        for i in range(self.wanted_count):
            failed = self.put_header(source, row, &self.wanted[i])
            if failed:
                return failed
        if out.data[out.length - 1] == c' ':
            out.length -= 1
        return 1 if buffer_add(out, b")\r\n", 3) else 0

    cdef char* origin(self, RowSource source, const Row* row, char* at) noexcept:
        """MODSEQ; when a message came here (RFC 8514), and what it is (RFC 8474): its bytes, and what stands before them for one
        reader.
        """
        cdef int items = self.items
        if items & ITEM_MODSEQ:
            at = w_number(w_text(at, b"MODSEQ (", 8), row.modseq if row.modseq < self.modseq_cap else self.modseq_cap)
            at = w_text(at, b") ", 2)
        if items & ITEM_SAVEDATE:
            at = w_text(at, b"SAVEDATE ", 9)
            at = w_date(at, row.saved_s, 0) if row.saved_s else w_text(at, b"NIL ", 4)
        if items & ITEM_EMAILID:
            at = w_hex(w_text(at, b"EMAILID (M", 10), row.blob_id)
            at[0] = c'-'
            at = w_text(w_hex(at + 1, source.digest(row.prefix, row.prefix_length)), b") ", 2)
        if items & ITEM_THREADID:
            at = w_text(at, b"THREADID NIL ", 13)
        return at

    cdef int put_structure(self, RowSource source, const Row* row) except -1:
        """The wire bytes that were computed at arrival."""
        cdef uint32_t lengths[4]
        cdef const char* data
        cdef const char* table
        cdef char more
        cdef int failed = 0
        if row.structure_length < 16:
            source.wrong_structure(row)
        memcpy(lengths, row.structure, 16)
        data = row.structure + 16
        if <uint64_t>lengths[0] + lengths[1] + lengths[2] > row.structure_length - 16:
            source.wrong_structure(row)
        if self.items & ITEM_ENVELOPE:
            failed |= put_part(&self.out, b"ENVELOPE ", 9, data, lengths[0])
            if self.items & ITEM_MORE:
                table = data + lengths[0] + lengths[1] + lengths[2]
                if table + ROOT_MARKS_AT >= row.structure + row.structure_length:
                    source.wrong_structure(row)
                more = 48 + (<uint8_t>table[ROOT_MARKS_AT] // MORE_TEXT & 3)
                if more != 48:
                    failed |= put_part(&self.out, b"MORE ", 5, &more, 1)
        if self.items & ITEM_BODY:
            failed |= put_part(&self.out, b"BODY ", 5, data + lengths[0], lengths[1])
        if self.items & ITEM_BODYSTRUCTURE:
            failed |= put_part(&self.out, b"BODYSTRUCTURE ", 14, data + lengths[0] + lengths[1], lengths[2])
        return 1 if failed else 0

    cdef int put_literal(self, const char* label, size_t label_length, uint64_t n) noexcept nogil:
        """A label and the beginning of a literal behind it."""
        cdef char* at
        if buffer_room(&self.out, label_length + 32) < 0:
            return 1
        at = w_text(w_text(self.out.data + self.out.length, label, label_length), b" {", 2)
        self.out.length = w_text(w_number(at, n), b"}\r\n", 3) - self.out.data
        return 0

    cdef int put_whole(self, RowSource source, const Row* row) except -1:
        """BODY[] with all of a message as a literal."""
        cdef size_t begin
        if self.put_literal(b"BODY[]", 6, row.size):
            return 1
        begin = self.out.length
        if source.read_all(row, &self.out):
            return 1
        mask_nuls(self.out.data + begin, self.out.length - begin)
        return 1 if buffer_add(&self.out, b" ", 1) else 0

    cdef int put_header(self, RowSource source, const Row* row, Wanted* wanted) except -1:
        """BODY[HEADER.FIELDS...] as a literal. 0: written; 1: no memory; 2: the header is a long one, `read` finds it."""
        cdef Beginning view
        cdef Buffer* scratch = &self.scratch
        cdef size_t n, mark
        cdef bint whole
        cdef int done = 0
        source.begin(row, &view)
        self.looked += HEADER_COST
        scratch.length = 0
        if (row.prefix_length and put_fields(scratch, wanted, row.prefix, row.prefix + row.prefix_length, True) < 0
                or view.head_length and put_fields(scratch, wanted, view.head, view.head + view.head_length, True) < 0):
            return 1
        mark = scratch.length
        whole = view.whole
        if view.body != NULL:
            done = put_fields(scratch, wanted, view.body, view.body + view.body_length, whole)
        n = HEADER_FIRST
        while done == 0 and not whole:
            # Behind what is in `scratch`, and copied together: it goes on from one chunk to the next, or around the cuts.
            if n > HEADER_LONGEST:
                return 2
            scratch.length = mark
            whole = n >= view.size - view.head_length
            if whole:
                n = <size_t>(view.size - view.head_length)
            self.gather.length = 0
            self.looked += n
            if buffer_room(&self.gather, n) < 0:
                return 1
            source.read(row, view.head_length, self.gather.data, n)
            done = put_fields(scratch, wanted, self.gather.data, self.gather.data + n, whole)
            n *= 4
        if done < 0:
            return 1
        if scratch.length and scratch.data[scratch.length - 1] != 10 and buffer_add(scratch, b"\r\n", 2) < 0:
            return 1
        mask_nuls(scratch.data, scratch.length)
        if (buffer_add(scratch, b"\r\n", 2) or self.put_literal(wanted.label, wanted.label_length, scratch.length)
                or buffer_add(&self.out, scratch.data, scratch.length) or buffer_add(&self.out, b" ", 1)):
            return 1
        return 0
