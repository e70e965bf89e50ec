# What the committer's thread shares with the store, and the system calls it needs.

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_t:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    ctypedef struct pthread_condattr_t:
        pass
    int pthread_create(pthread_t*, void*, void* (*)(void*) noexcept nogil, void*)
    int pthread_join(pthread_t, void**)
    int pthread_mutex_init(pthread_mutex_t*, void*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)
    int pthread_mutex_destroy(pthread_mutex_t*)
    int pthread_condattr_init(pthread_condattr_t*)
    int pthread_condattr_setclock(pthread_condattr_t*, int)
    int pthread_cond_init(pthread_cond_t*, pthread_condattr_t*)
    int pthread_cond_wait(pthread_cond_t*, pthread_mutex_t*)
    int pthread_cond_timedwait(pthread_cond_t*, pthread_mutex_t*, timespec*)
    int pthread_cond_signal(pthread_cond_t*)
    int pthread_cond_broadcast(pthread_cond_t*)
    int pthread_cond_destroy(pthread_cond_t*)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int, timespec*)
    enum: CLOCK_REALTIME
    enum: CLOCK_MONOTONIC

cdef extern from "<signal.h>" nogil:
    int kill(int, int)
    enum: SIGKILL
    ctypedef struct sigset_t:
        pass
    int sigfillset(sigset_t*)
    int pthread_sigmask(int, sigset_t*, sigset_t*)
    enum: SIG_BLOCK

cdef extern from "<unistd.h>" nogil:
    int getpid()
    ssize_t write(int, const void*, size_t)

cdef enum:
    INJECT_PUT = 1
    INJECT_DEL = 2
    INJECT_COMMIT = 3
    INJECT_BEGIN = 4
    MAX_UNITS = 256
    CRASH_APPEND = 1
    CRASH_COMMIT = 2
    SLICE_NS = 2000000  # of reaping at a time
    BUSY_SLICE_PAUSE_MS = 50  # between two slices while units keep coming
    READER_CHECK_MS = 60000
    MAX_PATIENCE_NS = 1000000

cdef size_t MAX_WEIGHT = 4 * 1024 * 1024

cdef struct StoreState:
    void* env
    MDB_dbi dbi[DATABASES]
    int event_fd
    int observed
    int failed
    int stopping
    int sleeping
    int reap_now  # somebody waits for all due trash to go
    int64_t trash_delay_ms
    int64_t trash_due_ms  # the earliest row; may be early, never late for rows of our own
    int64_t reader_check_ms
    int64_t slice_ms  # when the last slice of reaping ended
    pthread_t thread
    pthread_mutex_t mutex
    pthread_cond_t wake
    pthread_cond_t finished
    CUnit* head
    CUnit* tail
    CUnit* done_head
    CUnit* done_tail
    int done_ready
    Buffer done_touched
    Buffer done_hops
    int pending
    int wake_at  # pending units that end the committer's sleep
    int company  # units expected at once, from what came during the last commits
    int64_t patience_ns  # how long a batch may wait for them: a commit's own length
    # figures
    uint64_t commits
    uint64_t units
    uint64_t own_txn_id
    uint64_t busy_ns
    uint64_t reaped
    uint64_t* cells
    int cell_seconds
    int cell_messages
    # tests
    int inject_kind
    int inject_after
    int inject_rc
    int crash_at
    int crash_after
