# The LMDB that the `lmdb` wheel carries: its v09 functions, resolved by name at import (v10 is another file format).

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

cdef extern from "<dlfcn.h>" nogil:
    void* dlopen(const char*, int)
    void* dlsym(void*, const char*)
    char* dlerror()
    enum: RTLD_NOW
    enum: RTLD_LOCAL

cdef extern from "<errno.h>" nogil:
    int errno
    enum: EAGAIN
    enum: EDQUOT
    enum: EINTR
    enum: EINVAL
    enum: EIO
    enum: ENOMEM
    enum: ENOSPC
    enum: EROFS

ctypedef unsigned int MDB_dbi

cdef struct MDB_val:
    size_t mv_size
    void* mv_data

cdef struct MDB_stat:
    unsigned int ms_psize
    unsigned int ms_depth
    size_t ms_branch_pages
    size_t ms_leaf_pages
    size_t ms_overflow_pages
    size_t ms_entries

cdef struct MDB_envinfo:
    void* me_mapaddr
    size_t me_mapsize
    size_t me_last_pgno
    size_t me_last_txnid
    unsigned int me_maxreaders
    unsigned int me_numreaders

cdef enum:
    MDB_NOSYNC = 0x10000
    MDB_RDONLY = 0x20000
    MDB_NOTLS = 0x200000
    MDB_NORDAHEAD = 0x800000
    MDB_CREATE = 0x40000
    MDB_CP_COMPACT = 1
    MDB_FIRST = 0
    MDB_LAST = 6
    MDB_NEXT = 8
    MDB_PREV = 12
    MDB_SET_RANGE = 17
    MDB_NOTFOUND = -30798
    MDB_PAGE_NOTFOUND = -30797
    MDB_CORRUPTED = -30796
    MDB_PANIC = -30795
    MDB_VERSION_MISMATCH = -30794
    MDB_INVALID = -30793
    MDB_MAP_FULL = -30792
    MDB_TXN_FULL = -30788
    MDB_CURSOR_FULL = -30787
    MDB_INCOMPATIBLE = -30784
    MDB_BAD_TXN = -30782
    MDB_BAD_VALSIZE = -30781
    MDB_BAD_DBI = -30780

cdef int (*mdb_env_create)(void**) noexcept nogil
cdef int (*mdb_env_open)(void*, const char*, unsigned int, unsigned int) noexcept nogil
cdef int (*mdb_env_set_mapsize)(void*, size_t) noexcept nogil
cdef int (*mdb_env_set_maxdbs)(void*, MDB_dbi) noexcept nogil
cdef int (*mdb_env_set_maxreaders)(void*, unsigned int) noexcept nogil
cdef int (*mdb_env_stat)(void*, MDB_stat*) noexcept nogil
cdef int (*mdb_env_set_assert)(void*, void (*)(void*, const char*) noexcept nogil) noexcept nogil
cdef int (*mdb_env_get_fd)(void*, int*) noexcept nogil
cdef int (*mdb_dbi_open)(void*, const char*, unsigned int, MDB_dbi*) noexcept nogil
cdef const char* (*mdb_strerror)(int) noexcept nogil

cdef struct Calls:  # of LMDB that are made of an open environment; memory.pxi has the same ones
    void (*env_close)(void*) noexcept nogil
    int (*env_info)(void*, MDB_envinfo*) noexcept nogil
    int (*env_copyfd2)(void*, int, unsigned int) noexcept nogil
    int (*reader_check)(void*, int*) noexcept nogil
    int (*reader_list)(void*, int (*)(const char*, void*) noexcept, void*) noexcept nogil
    int (*txn_begin)(void*, void*, unsigned int, void**) noexcept nogil
    int (*txn_commit)(void*) noexcept nogil
    void (*txn_abort)(void*) noexcept nogil
    void (*txn_reset)(void*) noexcept nogil
    int (*txn_renew)(void*) noexcept nogil
    size_t (*txn_id)(void*) noexcept nogil
    int (*get)(void*, MDB_dbi, MDB_val*, MDB_val*) noexcept nogil
    int (*put)(void*, MDB_dbi, MDB_val*, MDB_val*, unsigned int) noexcept nogil
    int (*delete)(void*, MDB_dbi, MDB_val*, MDB_val*) noexcept nogil
    int (*cursor_open)(void*, MDB_dbi, void**) noexcept nogil
    void (*cursor_close)(void*) noexcept nogil
    int (*cursor_get)(void*, MDB_val*, MDB_val*, int) noexcept nogil

cdef Calls lmdb  # those of the wheel


cdef int _resolve(void* library, const char* name, void** where) except -1:
    cdef bytes symbol = b"mdb09_" + name
    where[0] = dlsym(library, symbol)
    if where[0] == NULL:
        raise ImportError(f"fastmta: the installed lmdb wheel has no {symbol.decode()}; install lmdb>=3.0,<3.1")
    return 0


cdef int _load_lmdb() except -1:
    """Finds the wheel's extension without importing python-lmdb, and fills the pointers above."""
    spec = importlib.util.find_spec("lmdb")
    cdef bytes path
    cdef void* library
    found = []
    if spec is not None and spec.submodule_search_locations:
        for folder in spec.submodule_search_locations:
            for suffix in importlib.machinery.EXTENSION_SUFFIXES:
                candidate = os.path.join(folder, "cpython" + suffix)
                if os.path.exists(candidate):
                    found.append(candidate)
    if not found:
        raise ImportError("fastmta: the lmdb package has no compiled extension; install lmdb>=3.0,<3.1 from its wheel")
    path = os.fsencode(found[0])
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL)
    if library == NULL:
        raise ImportError(f"fastmta: cannot load {found[0]}: {dlerror().decode('utf-8', 'replace')}")
    _resolve(library, b"env_create", <void**>&mdb_env_create)
    _resolve(library, b"env_open", <void**>&mdb_env_open)
    _resolve(library, b"env_set_mapsize", <void**>&mdb_env_set_mapsize)
    _resolve(library, b"env_set_maxdbs", <void**>&mdb_env_set_maxdbs)
    _resolve(library, b"env_set_maxreaders", <void**>&mdb_env_set_maxreaders)
    _resolve(library, b"env_info", <void**>&lmdb.env_info)
    _resolve(library, b"env_stat", <void**>&mdb_env_stat)
    _resolve(library, b"env_copyfd2", <void**>&lmdb.env_copyfd2)
    _resolve(library, b"env_close", <void**>&lmdb.env_close)
    _resolve(library, b"env_set_assert", <void**>&mdb_env_set_assert)
    _resolve(library, b"env_get_fd", <void**>&mdb_env_get_fd)
    _resolve(library, b"reader_check", <void**>&lmdb.reader_check)
    _resolve(library, b"reader_list", <void**>&lmdb.reader_list)
    _resolve(library, b"txn_begin", <void**>&lmdb.txn_begin)
    _resolve(library, b"txn_commit", <void**>&lmdb.txn_commit)
    _resolve(library, b"txn_abort", <void**>&lmdb.txn_abort)
    _resolve(library, b"txn_reset", <void**>&lmdb.txn_reset)
    _resolve(library, b"txn_renew", <void**>&lmdb.txn_renew)
    _resolve(library, b"txn_id", <void**>&lmdb.txn_id)
    _resolve(library, b"dbi_open", <void**>&mdb_dbi_open)
    _resolve(library, b"get", <void**>&lmdb.get)
    _resolve(library, b"put", <void**>&lmdb.put)
    _resolve(library, b"del", <void**>&lmdb.delete)
    _resolve(library, b"cursor_open", <void**>&lmdb.cursor_open)
    _resolve(library, b"cursor_close", <void**>&lmdb.cursor_close)
    _resolve(library, b"cursor_get", <void**>&lmdb.cursor_get)
    _resolve(library, b"strerror", <void**>&mdb_strerror)
    return 0


_load_lmdb()
