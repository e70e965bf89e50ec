# A unit's memory, and a unit written down: little-endian structs as they lie in memory, so of machines like this one.

cdef enum:
    UNIT_MAGIC = 0x31554D46  # "FMU1"


cdef void unit_free_bodies(CUnit* u) noexcept nogil:
    cdef size_t i
    for i in range(u.bodies.length // sizeof(Body*)):
        body_free((<Body**>u.bodies.data)[i])
    u.bodies.length = 0


cdef void unit_free(CUnit* u) noexcept nogil:
    unit_free_bodies(u)
    buffer_free(&u.bodies)
    buffer_free(&u.ops)
    buffer_free(&u.results)
    free(u)


cdef int unit_pack(CUnit* u, Buffer* out) noexcept nogil:
    """Adds a unit to `out`; -1 without memory."""
    cdef PackedUnit head
    cdef PackedBody packed
    cdef Body* body
    cdef size_t i
    head.magic = UNIT_MAGIC
    head.bodies = <uint32_t>(u.bodies.length // sizeof(Body*))
    head.ops_length = u.ops.length
    if buffer_add(out, &head, sizeof(head)) < 0 or buffer_add(out, u.ops.data, u.ops.length) < 0:
        return -1
    for i in range(head.bodies):
        body = (<Body**>u.bodies.data)[i]
        memset(&packed, 0, sizeof(packed))
        packed.blob_id = body.blob_id
        packed.incarnation = body.incarnation
        packed.first_chunk = body.first_chunk
        packed.bits = body.bits
        packed.cuts = body.cuts
        packed.whole = body.whole
        packed.head_length = body.head_length
        packed.front_length = <uint32_t>body.front.length
        packed.cut_length = body.cut_length
        packed.bytes_length = body.bytes.length
        if (buffer_add(out, &packed, sizeof(packed)) < 0
                or buffer_add(out, body.front.data, body.front.length) < 0
                or buffer_add(out, body.bytes.data, body.bytes.length) < 0):
            return -1
    return 0


cdef bint op_fits(const Op* op, size_t left) noexcept nogil:
    """Whether an operation lies inside of what is left, and says nothing that only the builder forbids."""
    cdef uint64_t parts = 0
    cdef int code, i
    if left < sizeof(Op) or op.length < sizeof(Op) or op.length > left or op.length % 8:
        return False
    for i in range(6):
        parts += op.part[i]
    code = op.code
    if parts > op.length - sizeof(Op) or not 0 < code < OP_CODES:
        return False
    if code <= OP_GUARD and not (0 < op.table < TABLES and op.part[0] < KEY_MAX):
        return False
    if code == OP_COUNT and op.part[0] >= KEY_MAX:
        return False
    if code == OP_MOVE_EACH:
        return op.part[0] % MOVE_KEY == 0
    if code == OP_UIDL:
        return 0 < op.part[0] <= UIDL_MAX
    if code == OP_RELEASE:
        return op.part[0] % RETAINED_KEY == 0
    return op.part[0] % 4 == 0 if code == OP_FLAGS or code == OP_EXPUNGE or code == OP_COPY else True


cdef bint brings_body(int code) noexcept nogil:
    return code == OP_BLOB or code == OP_CHUNKS or code == OP_FAIL


cdef int ops_fit(CUnit* u) noexcept nogil:
    """How many bodies the operations bring, each the next; -1 where they are not what a builder writes."""
    cdef size_t at = 0
    cdef Op* op
    cdef int bodies = 0
    while at < u.ops.length:
        op = <Op*>(u.ops.data + at)
        if not op_fits(op, u.ops.length - at):
            return -1
        if brings_body(op.code):
            if op.n != <uint32_t>bodies:
                return -1
            bodies += 1
        at += op.length
    return bodies


cdef int chunks_fit(CUnit* u) noexcept nogil:
    """Whether each CHUNKS has the bytes that it counts."""
    cdef size_t at = 0
    cdef Op* op
    while at < u.ops.length:
        op = <Op*>(u.ops.data + at)
        if op.code == OP_CHUNKS and op.b > unit_body(u, op).bytes.length:
            return False
        at += op.length
    return True


cdef int unit_unpack(CUnit* u, const unsigned char* p, size_t n) except -1:
    """Fills a new unit; ValueError where the octets are not one unit and nothing else."""
    cdef PackedUnit head
    cdef PackedBody packed
    cdef const unsigned char* end = p + n
    cdef Body* body
    cdef uint32_t i
    if n < sizeof(head):
        raise ValueError("a packed unit has a head of 16 octets")
    memcpy(&head, p, sizeof(head))
    p += sizeof(head)
    if head.magic != UNIT_MAGIC or head.ops_length > <uint64_t>(end - p) or head.bodies > n // sizeof(packed):
        raise ValueError("this is no packed unit")
    if buffer_add(&u.ops, p, head.ops_length) < 0:
        raise MemoryError
    p += head.ops_length
    if ops_fit(u) != <int64_t>head.bodies:
        raise ValueError("an operation of a packed unit is damaged, or of a later version")
    for i in range(head.bodies):
        if <size_t>(end - p) < sizeof(packed):
            raise ValueError("a packed unit was cut")
        memcpy(&packed, p, sizeof(packed))
        p += sizeof(packed)
        if packed.front_length > <uint64_t>(end - p) or packed.bytes_length > <uint64_t>(end - p) - packed.front_length:
            raise ValueError("a packed unit was cut")
        if (packed.front_length != 8 * <uint32_t>packed.cuts + packed.head_length or packed.cuts > CUTS_MAX
                or packed.head_length > HEAD_MAX or packed.bytes_length > BODY_MEMORY):
            raise ValueError("a body of a packed unit is damaged")
        body = body_new(packed.blob_id, packed.incarnation)
        if buffer_add(&u.bodies, &body, sizeof(body)) < 0:
            body_free(body)
            raise MemoryError
        body.first_chunk = packed.first_chunk
        body.bits = packed.bits
        body.cuts = packed.cuts
        body.whole = packed.whole
        body.head_length = packed.head_length
        body.cut_length = packed.cut_length
        if buffer_add(&body.front, p, packed.front_length) < 0 or buffer_add(&body.bytes, p + packed.front_length, packed.bytes_length) < 0:
            raise MemoryError
        p += packed.front_length + packed.bytes_length
    if p != end or not chunks_fit(u):
        raise ValueError("a packed unit is longer or shorter than it says")
    u.weight = n
    return 0
