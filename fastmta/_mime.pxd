"""C face of the MIME scanner, for _session and _imap: `feed_c` while bytes arrive, `finish` for the record."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    FIELD_COUNT = 18
    BOUNDARY_DEPTH = 100
    # Octet of a record's table that says of the message itself what its ENVELOPE does not show: several fields of a
    # name, or what has no room. Records of earlier programs have the first mark alone.
    ROOT_MARKS_AT = 33
    ROOT_MARK = 1
    MORE_TEXT = 2           # Date, Subject, In-Reply-To, Message-ID
    MORE_ADDRESSES = 4


cdef struct Buffer:
    char* data
    Py_ssize_t size
    Py_ssize_t capacity
    bint failed             # an allocation failed: the content is cut, the owner raises MemoryError


cdef struct Slice:          # a run of bytes of Structure.text; start is ABSENT where there is none
    uint32_t start
    uint32_t length


cdef struct Node:           # one entity: a header and a body. Nodes lie in the order in which they begin
    int parent              # -1: the message itself
    int first_child
    int last_child
    int next_sibling
    int number              # among its siblings, from 1
    int depth
    uint8_t kind
    bint is_message         # its header is a message's: the root, and what a message/rfc822 part contains
    bint in_digest
    bint header_done
    bint repeats            # a field that may stand once stands there again; the first one counts
    uint64_t header_offset
    uint64_t header_length  # the empty line included
    uint64_t body_offset
    uint64_t body_length
    uint64_t lines          # LFs before the body until the node is closed, LFs in the body from then on
    Slice media_type
    Slice subtype
    Slice parameters        # from the first ";" of Content-Type on
    Slice fields[FIELD_COUNT]


cdef struct Boundary:
    int node
    Slice value


cdef class Structure:
    cdef Buffer text        # unfolded values of the header fields that matter
    cdef Buffer carry       # the beginning of a line that an earlier feed ended in
    cdef Node* nodes
    cdef int node_count
    cdef int node_capacity
    cdef Boundary boundaries[BOUNDARY_DEPTH]
    cdef int boundary_count
    cdef int current
    cdef int field          # the field that a continuation line belongs to, or -1
    cdef uint8_t mode
    cdef bint part_follows  # the delimiter line just seen opens a part
    cdef bint after_cr
    cdef bint failed
    cdef int eol            # length of the line end before line_start
    cdef uint64_t line_start
    cdef uint64_t newlines
    cdef readonly uint64_t size

    cdef int feed_c(self, const char* data, Py_ssize_t length) noexcept nogil
    cdef int scan(self, const char* data, const char* end) noexcept nogil
    cdef const char* skip_body(self, const char* data, const char* p, const char* end) noexcept nogil
    cdef const char* take_body_start(self, const char* data, const char* p, const char* end) noexcept nogil
    cdef const char* take_header_line(self, const char* data, const char* p, const char* end) noexcept nogil
    cdef int line_ended(self, uint64_t next_line, bint cr) noexcept nogil
    cdef int header_line(self, const char* line, Py_ssize_t length, uint64_t next_line) noexcept nogil
    cdef int add_value(self, const char* value, Py_ssize_t length) noexcept nogil
    cdef int end_header(self, uint64_t body_offset) noexcept nogil
    cdef int classify(self, int index) noexcept nogil
    cdef int new_node(self, int parent, uint64_t offset, bint is_message) noexcept nogil
    cdef int start_part(self, uint64_t offset) noexcept nogil
    cdef bint take_delimiter(self, const char* line, Py_ssize_t length) noexcept nogil
    cdef int close_below(self, int ancestor, uint64_t end, uint64_t newlines) noexcept nogil
    cdef int close_node(self, int index, uint64_t end, uint64_t newlines) noexcept nogil
    cdef int close_all(self) noexcept nogil
    cpdef clear(self)
    cdef int put_in_front(self, const char* data, Py_ssize_t length, bint all_of_it) noexcept nogil
    cpdef bytes finish(self, uint64_t prefix_length=*, bytes head=*, uint64_t cut=*, bytes header=*)
