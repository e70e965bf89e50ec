"""Units of work, and what of an engine they need: see _unit.pxd for their form, docs/store.md for what each operation means.

Invariants: a unit is written by one thread and belongs to the engine from `submit` until it is finished; a body has one owner, its blob
or the unit that the blob was given to. Left to others: carrying out (_store), and what operations are good for (store/).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdlib cimport calloc
from libc.string cimport memset

from fastmta.model.errors import StorageFailure

include "_unit_parts/results.pxi"
include "_unit_parts/unit.pxi"
include "_unit_parts/packing.pxi"
include "_unit_parts/blob.pxi"
include "_unit_parts/engine.pxi"
include "_unit_parts/rows.pxi"
