# Lines on their way to the log and to the trace.

@cython.final
cdef class Lines:
    """Lines that wait until they are written together. `begun` is called with the first of them, `full` with each that
    comes when they have `most` octets; None: nobody is told.
    """

    def __init__(self, begun=None, full=None, Py_ssize_t most=0):
        self.begun = begun
        self.full = full
        self.most = most
        self.gathered = []

    cpdef int add(self, bytes lines) except -1:
        """One line or several, each with its newline."""
        self.gathered.append(lines)
        self.size += PyBytes_GET_SIZE(lines)
        if PyList_GET_SIZE(self.gathered) == 1:
            if self.begun is not None:
                self.begun()
        elif self.size >= self.most and self.full is not None:
            self.full()
        return 0

    cpdef bytes take(self):
        """All of them, which now wait no more; b"" where there are none."""
        cdef list taken = self.gathered
        if not taken:
            return b""
        self.gathered = []
        self.size = 0
        return taken[0] if PyList_GET_SIZE(taken) == 1 else b"".join(taken)
