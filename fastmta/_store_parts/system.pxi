# The system calls that the committer's thread and the store need.

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
    int pthread_setname_np(pthread_t, const char*)  # GNU's; up to 15 characters
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
    int nanosleep(const timespec*, timespec*)
    enum: CLOCK_REALTIME
    enum: CLOCK_MONOTONIC

cdef extern from "<signal.h>" nogil:
    int kill(int, int)
    enum: SIGKILL
    ctypedef struct sigset_t:
        pass
    int sigfillset(sigset_t*)
    int sigdelset(sigset_t*, int)
    enum: SIGSEGV
    enum: SIGBUS
    int pthread_sigmask(int, sigset_t*, sigset_t*)
    enum: SIG_BLOCK

cdef extern from "<unistd.h>" nogil:
    int getpid()
    ssize_t write(int, const void*, size_t)

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int, int)
    enum: EFD_NONBLOCK
    enum: EFD_CLOEXEC

cdef extern from "<sys/statfs.h>" nogil:
    struct c_statfs "statfs":
        long f_type
    int c_statfs_of "statfs"(const char*, c_statfs*)

cdef extern from "<fcntl.h>" nogil:
    struct flock:
        short l_type
        short l_whence
        long l_start
        long l_len
        int l_pid
    int fcntl(int, int, ...)
    enum: F_RDLCK
    enum: F_WRLCK
    enum: F_UNLCK

cdef extern from "<unistd.h>" nogil:
    int c_close "close"(int)
    ssize_t c_read "read"(int, void*, size_t)

cdef enum:
    F_OFD_GETLK_ = 36
    F_OFD_SETLK_ = 37
