# FETCH lines: what was computed at arrival, flags, whole messages and fields of headers, written in one loop.

cdef const char* MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"


cdef inline int put_number(Buffer* out, const char* lead, uint64_t number, const char* end) noexcept nogil:
    # Inlined, so that what stands around the number is copied without being measured.
    cdef char digits[24]
    cdef int at = 24
    cdef size_t before = strlen(lead)
    cdef size_t behind = strlen(end)
    cdef char* place
    while True:
        at -= 1
        digits[at] = <char>(c'0' + number % 10)
        number //= 10
        if number == 0:
            break
    if buffer_room(out, before + 24 + behind) < 0:
        return -1
    place = out.data + out.length
    memcpy(place, lead, before)
    memcpy(place + before, digits + at, 24 - at)
    memcpy(place + before + 24 - at, end, behind)
    out.length += before + 24 - at + behind
    return 0


cdef int put_date(Buffer* out, const char* name, int64_t date_s, int tz_minutes) noexcept nogil:
    """A date as RFC 3501 writes INTERNALDATE: the day padded with a space."""
    cdef char text[64]
    cdef tm parts
    cdef time_t local
    cdef int n
    cdef int zone = tz_minutes if tz_minutes >= 0 else -tz_minutes
    if date_s < 0:
        date_s = 0
    elif date_s > 253402214400LL:  # the end of the year 9999, so that the field keeps its width
        date_s = 253402214400LL
    local = date_s + tz_minutes * 60
    gmtime_r(&local, &parts)
    n = snprintf(text, sizeof(text), "%s \"%2d-%.3s-%04d %02d:%02d:%02d %c%02d%02d\" ", name, parts.tm_mday,
                 MONTHS + 3 * parts.tm_mon, parts.tm_year + 1900, parts.tm_hour, parts.tm_min, parts.tm_sec,
                 c'-' if tz_minutes < 0 else c'+', zone // 60, zone % 60)
    return buffer_add(out, text, n)


cdef int put_origin(Buffer* out, int items, MessageRecord* message, const char* prefix) noexcept nogil:
    """When a message came here (RFC 8514), and what it is (RFC 8474): its bytes, and what stands before them for one reader."""
    cdef char text[64]
    cdef int n, failed = 0
    if items & ITEM_SAVEDATE and message.saved_s:
        failed |= put_date(out, b"SAVEDATE", message.saved_s, 0)
    elif items & ITEM_SAVEDATE:
        failed |= buffer_add(out, b"SAVEDATE NIL ", 13)
    if items & ITEM_EMAILID:
        n = snprintf(text, sizeof(text), "EMAILID (M%llx-%llx) ", <unsigned long long>message.blob_id,
                     <unsigned long long>(xxh64(prefix, message.prefix_length, 0) if message.prefix_length else 0))
        failed |= buffer_add(out, text, n)
    if items & ITEM_THREADID:
        failed |= buffer_add(out, b"THREADID NIL ", 13)
    return failed


cdef inline int put_flag(Buffer* out, const char* name, bint given) noexcept nogil:
    return buffer_add(out, name, strlen(name)) if given else 0


cdef int put_flags(Buffer* out, uint32_t flags, const char* keywords, size_t keywords_length, bint recent) noexcept nogil:
    cdef int failed = buffer_add(out, b"FLAGS (", 7)
    cdef size_t start = out.length
    failed |= put_flag(out, b"\\Seen ", flags & 1)
    failed |= put_flag(out, b"\\Answered ", flags & 2)
    failed |= put_flag(out, b"\\Flagged ", flags & 4)
    failed |= put_flag(out, b"\\Deleted ", flags & 8)
    failed |= put_flag(out, b"\\Draft ", flags & 16)
    if keywords_length:
        failed |= buffer_add(out, keywords, keywords_length) | buffer_add(out, b" ", 1)
    failed |= put_flag(out, b"\\Recent ", recent)
    if failed == 0 and out.length > start:
        out.length -= 1
    return failed | buffer_add(out, b") ", 2)


cdef int put_structure(Buffer* out, int items, Walk* structures, uint32_t uid) except -1:
    """The wire bytes that were computed at arrival."""
    cdef uint32_t lengths[4]
    cdef const char* at
    cdef int failed = 0
    cdef bint found = walk_to(structures, uid)
    if not found or structures.value.mv_size < 16:
        wrong_structure(structures, uid)
    memcpy(lengths, structures.value.mv_data, 16)
    at = <const char*>structures.value.mv_data + 16
    if <uint64_t>lengths[0] + lengths[1] + lengths[2] > structures.value.mv_size - 16:
        wrong_structure(structures, uid)
    if items & ITEM_ENVELOPE:
        failed |= put_part(out, b"ENVELOPE ", at, lengths[0])
    if items & ITEM_BODY:
        failed |= put_part(out, b"BODY ", at + lengths[0], lengths[1])
    if items & ITEM_BODYSTRUCTURE:
        failed |= put_part(out, b"BODYSTRUCTURE ", at + lengths[0] + lengths[1], lengths[2])
    return failed & 1


cdef int wrong_structure(Walk* structures, uint32_t uid) except -1:
    structures.key.n = 9
    k_u32(&structures.key, uid)
    (<Reading>structures.reading).failed(FM_DISORDER, &structures.key)


cdef int put_part(Buffer* out, const char* name, const char* data, size_t n) noexcept nogil:
    cdef int failed = buffer_add(out, name, strlen(name))
    failed |= buffer_add(out, data, n) if n else buffer_add(out, b"NIL", 3)
    return failed | buffer_add(out, b" ", 1)


cdef int put_whole(Buffer* out, Reading reading, void* blobs, MessageRecord* message, const char* prefix) except -1:
    """BODY[] with all of a message as a literal."""
    cdef Key k
    cdef MDB_val key, value
    cdef BlobView view
    cdef size_t body
    cdef uint32_t i
    cdef Proof* proof
    cdef int failed = put_number(out, b"BODY[] {", message.size, b"}\r\n")
    body = out.length
    failed |= buffer_room(out, message.size + 1) or buffer_add(out, prefix, message.prefix_length)
    if failed:
        return 1
    k_id(&k, T_BLOB, message.blob_id)
    if not seek(reading, blobs, &k, 9, &key, &value) or key.mv_size != 9:
        reading.failed(FM_DISORDER, &k)
    view_of(&view, message.blob_id, &value)
    if not view_fits(&view) or message.prefix_length + view.meta.size != message.size:
        reading.failed(FM_DISORDER, &k)
    if view.meta.cuts:
        if shown_copy(reading, &view, 0, out.data + out.length, <Py_ssize_t>view.meta.size) < 0:
            reading.failed(FM_DISORDER, &k)
        out.length += view.meta.size
        return 1 if buffer_add(out, b" ", 1) else 0
    proof = proof_at(reading.store.s, message.blob_id, 0)
    failed |= buffer_add(out, view.head, view.meta.head_length)
    for i in range(view.meta.chunks):
        if (not following(reading, blobs, &k, 9, &key, &value)
                or out.length - body + value.mv_size + view.meta.tail_length > message.size):
            reading.failed(FM_DISORDER, &k)
        failed |= buffer_add(out, value.mv_data, value.mv_size)
        proof_chunk(proof, i, &value)
    failed |= buffer_add(out, view.tail, view.meta.tail_length)
    if failed:
        return 1
    if out.length - body != message.size:
        reading.failed(FM_DISORDER, &k)
    if not proof_end(proof, &view):
        tell_unlike(reading.store, message.blob_id)
    return 1 if buffer_add(out, b" ", 1) else 0


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


cdef int put_header(Buffer* out, Buffer* scratch, Buffer* gather, Wanted* wanted, Reading reading, void* blobs, MessageRecord* message,
                    const char* prefix) except -1:
    """BODY[HEADER.FIELDS...] as a literal. 0: written; 1: no memory; 2: the header is a long one, `read` finds it."""
    cdef Key k
    cdef MDB_val key, value
    cdef BlobView view
    cdef const char* data
    cdef size_t n, mark
    cdef bint whole
    cdef int done
    k_id(&k, T_BLOB, message.blob_id)
    if not seek(reading, blobs, &k, 9, &key, &value) or key.mv_size != 9:
        reading.failed(FM_DISORDER, &k)
    view_of(&view, message.blob_id, &value)
    if not view_fits(&view):
        reading.failed(FM_DISORDER, &k)
    data = view.tail
    n = view.meta.tail_length
    if view.meta.chunks and not view.meta.cuts:
        if not following(reading, blobs, &k, 9, &key, &value):
            reading.failed(FM_DISORDER, &k)
        data = <const char*>value.mv_data
        n = value.mv_size
    scratch.length = 0
    if (message.prefix_length and put_fields(scratch, wanted, prefix, prefix + message.prefix_length, True) < 0
            or view.meta.head_length and put_fields(scratch, wanted, view.head, view.head + view.meta.head_length, True) < 0):
        return 1
    mark = scratch.length
    whole = not view.meta.cuts and n == view.meta.stored_size
    done = put_fields(scratch, wanted, data, data + n, whole) if not view.meta.cuts else 0
    n = HEADER_FIRST
    while done == 0 and not whole:
        # Behind what is in `scratch`, and copied together: it goes on from one chunk to the next, or around the cuts.
        if n > HEADER_LONGEST:
            return 2
        scratch.length = mark
        whole = n >= view.meta.size - view.meta.head_length
        if whole:
            n = <size_t>(view.meta.size - view.meta.head_length)
        gather.length = 0
        if buffer_room(gather, n) < 0:
            return 1
        if shown_copy(reading, &view, view.meta.head_length, gather.data, <Py_ssize_t>n) < 0:
            reading.failed(FM_DISORDER, &k)
        done = put_fields(scratch, wanted, gather.data, gather.data + n, whole)
        n *= 4
    if done < 0:
        return 1
    if scratch.length and scratch.data[scratch.length - 1] != 10 and buffer_add(scratch, b"\r\n", 2) < 0:
        return 1
    if (buffer_add(scratch, b"\r\n", 2) | buffer_add(out, wanted.label, wanted.label_length)
            | put_number(out, b" {", scratch.length, b"}\r\n") | buffer_add(out, scratch.data, scratch.length)
            | buffer_add(out, b" ", 1)):
        return 1
    return 0


cdef enum:
    HEADER_FIRST = 16384  # of a header that is longer than a chunk; then four times as much
    HEADER_LONGEST = 65536
    MAX_WANTED = 4      # sections that the loop writes; each takes a chunk at most


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


cdef int put_line(Buffer* out, uint32_t seq, int items, Walk* messages, Walk* structures, void* blobs,
                  bint recent, uint64_t modseq_cap, Wanted* wanted, int sections, Buffer* scratch, Buffer* gather) except -1:
    """1: no memory; 2: a header is a long one, and nothing is written."""
    cdef MessageRecord message
    cdef int failed, i
    cdef size_t begin = out.length
    memcpy(&message, messages.value.mv_data, sizeof(message))
    failed = put_number(out, b"* ", messages.uid if items & ITEM_UIDONLY else seq,
                        b" UIDFETCH (" if items & ITEM_UIDONLY else b" FETCH (")
    if items & ITEM_UID:
        failed |= put_number(out, b"UID ", messages.uid, b" ")
    if items & ITEM_FLAGS:
        failed |= put_flags(out, message.flags, <char*>messages.value.mv_data + sizeof(message), message.keywords_length,
                            recent)
    if items & ITEM_INTERNALDATE:
        failed |= put_date(out, b"INTERNALDATE", message.date_s, message.tz_minutes)
    if items & ITEM_SIZE:
        failed |= put_number(out, b"RFC822.SIZE ", message.size, b" ")
    if items & (ITEM_ENVELOPE | ITEM_BODY | ITEM_BODYSTRUCTURE):
        failed |= put_structure(out, items, structures, messages.uid)
    if items & ITEM_MODSEQ:
        failed |= put_number(out, b"MODSEQ (", message.modseq if message.modseq < modseq_cap else modseq_cap, b") ")
    if items & (ITEM_SAVEDATE | ITEM_EMAILID | ITEM_THREADID):
        failed |= put_origin(out, items, &message, <char*>messages.value.mv_data + sizeof(message) + message.keywords_length)
    if items & ITEM_WHOLE:
        failed |= put_whole(out, <Reading>messages.reading, blobs, &message,
                            <char*>messages.value.mv_data + sizeof(message) + message.keywords_length)
    for i in range(sections):
        if not failed:
            failed = put_header(out, scratch, gather, &wanted[i], <Reading>messages.reading, blobs, &message,
                                <char*>messages.value.mv_data + sizeof(message) + message.keywords_length)
            if failed == 2:
                out.length = begin
                return 2
    if failed == 0 and out.data[out.length - 1] == c' ':
        out.length -= 1
    return 1 if failed or buffer_add(out, b")\r\n", 3) else 0


def fetch_lines(Store store not None, uint64_t mailbox_id, seqs, uids, int items, Py_ssize_t start, size_t max_bytes,
                uint64_t recent_from, list sections=None, uint64_t modseq_cap=0xFFFFFFFFFFFFFFFF):
    """(complete `* seq FETCH (...)` lines for uids[start:], the next start); ends at max_bytes, or after some rows.

    With ITEM_WHOLE a message larger than max_bytes ends the lines before it: the next start is its own index. `sections`
    are BODY[HEADER.FIELDS...]: (label, packed names, invert); a message with a very long header ends the lines too. No
    MODSEQ above modseq_cap is told.
    """
    cdef const unsigned int[::1] numbers = seqs
    cdef const unsigned int[::1] uids_wanted = uids
    cdef Py_ssize_t count = min(numbers.shape[0], uids_wanted.shape[0])
    cdef Py_ssize_t i = start
    cdef Py_ssize_t stop
    cdef Reading reading
    cdef Walk messages, structures
    cdef void* blobs
    cdef Buffer out, scratch, gather
    cdef Wanted wanted[MAX_WANTED]
    cdef int count_wanted = read_wanted(wanted, sections) if sections is not None else 0
    cdef int written
    cdef size_t whole = 0
    if start < 0:
        raise ValueError("start is negative")
    reading = Reading(store)
    memset(&out, 0, sizeof(out))
    memset(&scratch, 0, sizeof(scratch))
    memset(&gather, 0, sizeof(gather))
    walk_start(&messages, reading, T_MESSAGE, mailbox_id)
    walk_start(&structures, reading, T_ENVELOPE, mailbox_id)
    blobs = reading.cursor(T_BLOB)
    stop = min(count, start + FETCH_ROWS)  # of messages that are gone there may be many, and they make no line
    try:
        while i < stop and out.length < max_bytes:
            whole = out.length
            if walk_to(&messages, uids_wanted[i]):
                if items & ITEM_WHOLE and (<MessageRecord*>messages.value.mv_data).size > max_bytes:
                    break
                written = put_line(&out, numbers[i], items, &messages, &structures, blobs, uids_wanted[i] >= recent_from,
                                   modseq_cap, wanted, count_wanted, &scratch, &gather)
                if written == 2:
                    break
                if written:
                    raise MemoryError
            i += 1
        return out.data[: out.length], i
    except StoreDamaged:
        if i == start:
            raise
        return out.data[:whole], i  # those before it; the next call begins with it
    finally:
        buffer_free(&out)
        buffer_free(&scratch)
        buffer_free(&gather)
