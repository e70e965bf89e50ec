"""The store: one LMDB environment, a native committer thread, units of operations, and read loops.

All that touches LMDB is here (docs/adr/0001 to 0004). The parts, in the order of their inclusion: the library's functions, stored
records, a transaction, the disk's reserve, the operations, the committer, reads, and the Store itself.

Invariants: nothing is answered before its commit has returned; a unit is applied whole or not at all; no pointer into the map
outlives the call that read it; the committer never takes the GIL and touches only C memory.
"""

cimport cython
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.string cimport memchr, strlen

from fastmta._unit cimport *

import importlib.machinery
import importlib.util
import os
from array import array
from typing import NamedTuple

from fastmta.model.errors import Cold, StorageFailure, StoreDamaged, StoreUnreadable

include "_store_parts/lmdb.pxi"
include "_store_parts/records.pxi"
include "_store_parts/pages.pxi"
include "_store_parts/cold.pxi"
include "_store_parts/guard.pxi"
include "_store_parts/system.pxi"
include "_store_parts/memory.pxi"
include "_store_parts/committer_types.pxi"
include "_store_parts/txn.pxi"
include "_store_parts/counts.pxi"
include "_store_parts/room.pxi"
include "_store_parts/queue_index.pxi"
include "_store_parts/quota.pxi"
include "_store_parts/ops_queue.pxi"
include "_store_parts/ops_mail.pxi"
include "_store_parts/ops_retained.pxi"
include "_store_parts/ops_message.pxi"
include "_store_parts/ops_record.pxi"
include "_store_parts/journal.pxi"
include "_store_parts/committer.pxi"
include "_store_parts/holds.pxi"
include "_store_parts/trash.pxi"
include "_store_parts/read.pxi"
include "_store_parts/read_blob.pxi"
include "_store_parts/read_mail.pxi"
include "_store_parts/read_changes.pxi"
include "_store_parts/read_rows.pxi"
include "_store_parts/read_queue.pxi"
include "_store_parts/read_waiting.pxi"
include "_store_parts/environment.pxi"
include "_store_parts/store.pxi"
