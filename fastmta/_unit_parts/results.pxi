# What became of a unit, and what its operations gave back.

FAILURES = {
    REFUSE_EXISTS: "exists",
    REFUSE_MISSING: "missing",
    REFUSE_CHANGED: "changed",
    REFUSE_QUOTA: "quota",
    REFUSE_STATE: "state",
    REFUSE_LIMIT: "limit",
    FAIL_FULL: "full",
    FAIL_IO: "io",
    FAIL_DAMAGED: "damaged",
}
PENDING = PENDING_
COMMITTED = COMMITTED_
REFUSED = REFUSED_
FAILED = FAILED_


cdef list decode_results(const char* p, size_t n):
    """The results of a unit as Python objects; the committer's own encoding, so it is trusted."""
    cdef list out = []
    cdef const char* end = p + n
    cdef uint32_t numbers[2]
    cdef uint32_t count, i
    cdef uint64_t modseq
    cdef int64_t number
    cdef char letter
    while p < end:
        letter = p[0]
        p += 1
        if letter == c'A':
            memcpy(numbers, p, 8)
            memcpy(&modseq, p + 8, 8)
            out.append((numbers[0], numbers[1], modseq))
            p += 16
        elif letter == c'W':
            out.append(FAILURES[<int>p[0]])
            p += 1
        elif letter == c'C':
            memcpy(&number, p, 8)
            out.append(number)
            p += 8
        elif letter == c'R':
            memcpy(numbers, p, 8)
            out.append((numbers[0], numbers[1]))
            p += 8
        elif letter == c'F':
            memcpy(&modseq, p, 8)
            memcpy(&count, p + 8, 4)
            out.append((modseq, (p + 12)[:count * 4]))
            p += 12 + count * 4
        elif letter == c'E':
            memcpy(&count, p, 4)
            out.append((p + 4)[:count * 4])
            p += 4 + count * 4
        elif letter == c'M':
            memcpy(&count, p, 4)
            out.append((p + 4)[:count])
            p += 4 + count
        elif letter == c'Y':
            memcpy(numbers, p, 8)
            count = numbers[1]
            source = PyBytes_FromStringAndSize(NULL, count * 4)
            target = PyBytes_FromStringAndSize(NULL, count * 4)
            for i in range(count):
                memcpy(PyBytes_AS_STRING(source) + i * 4, p + 8 + i * 8, 4)
                memcpy(PyBytes_AS_STRING(target) + i * 4, p + 12 + i * 8, 4)
            out.append((numbers[0], source, target))
            p += 8 + count * 8
        else:
            raise SystemError("an unknown result")
    return out
