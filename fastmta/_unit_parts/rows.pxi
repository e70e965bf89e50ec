# The face of reading a mailbox's rows: blocks of structs go from an engine to a sink, which writes what its protocol says.


cdef class RowSource:
    cdef int begin(self, const Row* row, Beginning* out) except -1:
        """The first of a message's bytes behind its prefix, where they lie."""
        raise NotImplementedError

    cdef int read(self, const Row* row, uint64_t offset, char* out, size_t n) except -1:
        """Copies n bytes of what is shown behind the prefix; all of them must be there."""
        raise NotImplementedError

    cdef int read_all(self, const Row* row, Buffer* out) except -1:
        """Adds a whole message, the prefix first. 1: no memory."""
        raise NotImplementedError

    cdef uint64_t digest(self, const char* data, size_t n) noexcept:
        """A number that stands for these bytes, the same for ever; 0 for none."""
        return 0

    cdef int wrong_structure(self, const Row* row) except -1:
        """Raises what is to be said of a structure that is none."""
        raise NotImplementedError


cdef class RowSink:
    cdef int take(self, RowSource source, const Row* rows, int count) except -1:
        """How many it has taken; where they are fewer than `count`, it wants no more. After an exception, its own, or
        StoreDamaged from the source, it has taken those before the row that `stopped_at` names.
        """
        raise NotImplementedError

    cdef Py_ssize_t stopped_at(self) noexcept:
        return -1
