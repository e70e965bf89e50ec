"""The one budget of work: how the sessions of a worker share its loop, so that no input of one delays the others.

Time on the loop is drawn in pieces. A *turn* is one pass of the loop; all sessions together may work TURN_S of it on
what has just arrived, and WAITED_S on what waited. A session may work SLICE_S at a stretch, then the others come. What
does not fit waits here, and the session that has used least goes first: one that sends a command now and then is
always ahead of two hundred that send without a pause.

Every loop whose length a peer chooses asks `Share.over` between two pieces of at most PIECE_S, and where that says yes
either returns and is called again (`later`, for rules that never await) or awaits `pause`. A piece is bounded by counts
in model/limits.py: bytes read, rows looked at, lines written.

Invariants: a share waits once at most; who waits is called in a later pass of the loop and never from inside `later`;
as long as anybody waits the queue is drawn from in every pass, so nobody starves; where nobody waits and the turn has
time left, asking costs two readings of the clock and no trip through the loop.

A command that may have to wait is a coroutine, and `Share.run` carries it on: it begins at once and costs no trip through
the loop where it need not wait (docs/adr/0160).

Compiled because every command of every protocol asks several times: docs/adr/0100.
Deliveries are no sessions: a flush makes thousands of recipients due at once, and a destination that dies decides about
all of them, work that nobody waits for in between. `Pace` gives them DELIVERY_PASS_S of each pass beside the sessions,
and where these have less to do no more than they took in the pass before (docs/adr/0217), half of that for retries (docs/adr/0269),
and lets them decide about RESULTS_A_PASS recipients in it; what does not fit is done in the passes that follow. A pass
of theirs begins with the first thing that is done or asked for in it. Something is done in every one, so nothing starves.

Left to others: bytes ahead of a slow peer (each protocol's output), who may connect at all (limits by address).
"""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t

import asyncio
import heapq
import types

from collections import deque

from fastmta.model.limits import (
    DELIVERY_ALONE_S,
    DELIVERY_LEAST_S,
    DELIVERY_PASS_S,
    DELIVERY_TASK_S,
    FIRST_S,
    FREE_S,
    PIECE_S,
    RESULTS_A_PASS,
    SLICE_S,
    TURN_S,
    WAITED_S,
)

cdef extern from "<time.h>" nogil:
    enum:
        CLOCK_MONOTONIC
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec* out)

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(object work, object value, PyObject** result) except PYGEN_ERROR
    void Py_DECREF(PyObject*)

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE 1
    #endif
    #include <sys/resource.h>

    static long fastmta_interruptions(void)
    {
        struct rusage usage;
        return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nivcsw : 0;
    }
    """
    long fastmta_interruptions() nogil

cdef int64_t TURN_NS = int(TURN_S * 1e9)
cdef int64_t WAITED_NS = int(WAITED_S * 1e9)
cdef int64_t SLICE_NS = int(SLICE_S * 1e9)
cdef int64_t PIECE_NS = int(PIECE_S * 1e9)
cdef int64_t FIRST_NS = int(FIRST_S * 1e9)
cdef int64_t FREE_NS = int(FREE_S * 1e9)
cdef int64_t DELIVERY_NS = int(DELIVERY_PASS_S * 1e9)
cdef int64_t LEAST_NS = int(DELIVERY_LEAST_S * 1e9)
cdef int64_t ALONE_NS = int(DELIVERY_ALONE_S * 1e9)
cdef int64_t TASK_NS = int(DELIVERY_TASK_S * 1e9)
cdef Py_ssize_t RESULTS = RESULTS_A_PASS
cdef int64_t NEWCOMER = 1 << 62  # behind all others who have used as little: a crowd that connects keeps nobody waiting
cdef object heappush = heapq.heappush
cdef object heappop = heapq.heappop
cdef object CancelledError = asyncio.CancelledError
cdef object CoroutineType = types.CoroutineType


cdef int64_t monotonic_ns() noexcept:
    cdef timespec at
    clock_gettime(CLOCK_MONOTONIC, &at)
    return <int64_t>at.tv_sec * 1000000000 + at.tv_nsec


@cython.final
cdef class Turns:
    """The loop time of one worker. `now_ns`: a clock for tests; None: the monotonic one.

    `interruptions`, beside such a clock: how often the loop's thread was made to stop so that another process could run.
    """

    cdef object loop
    cdef object now_ns
    cdef object interruptions
    cdef long interrupted  # as it was when somebody last asked
    cdef int64_t ends_at   # of the turn that is under way; 0: nobody has begun to work in it
    cdef bint called       # `_pass` is scheduled
    cdef list queue        # a heap of (what the share has used, its place, the share)
    cdef int64_t serial    # equal ones in order of their coming
    cdef int64_t level     # what those who are served now have used: nobody saves up for later
    cdef int64_t highest

    def __init__(self, object loop, object now_ns=None, object interruptions=None):
        self.loop = loop
        self.now_ns = now_ns
        self.interruptions = interruptions
        self.queue = []

    def share(self) -> Share:
        """A session's part of the loop; one for each session."""
        cdef Share made = Share.__new__(Share)
        made.turns = self
        made.is_new = True
        return made

    @property
    def waiting(self):
        """Sessions that wait for their turn."""
        return len(self.queue)

    cdef int64_t now(self) except -1:
        return self.now_ns() if self.now_ns is not None else monotonic_ns()

    cdef bint may_work(self, int64_t now) except -1:
        # Whether the turn that is under way has time left; begins one where none is.
        if self.ends_at == 0:
            self.ends_at = now + TURN_NS
            self.call()
        return now < self.ends_at

    cdef int call(self) except -1:
        if not self.called:
            self.called = True
            self.loop.call_soon(self._pass)
        return 0

    cdef int charge(self, Share share, int64_t spent) except -1:
        share.used = max(share.used, self.level) + spent
        self.highest = max(self.highest, share.used)
        return 0

    cdef int64_t own(self, int64_t spent) except -1:
        # Of a long stretch, what its session is charged with: nothing that another process took meanwhile.
        cdef long interrupted
        if self.interruptions is not None:
            interrupted = self.interruptions()
        else:
            interrupted = fastmta_interruptions() if self.now_ns is None else 0
        if interrupted == self.interrupted:
            return min(spent, PIECE_NS)  # more than a piece: it waited for something in between
        self.interrupted = interrupted
        return SLICE_NS

    cdef int wait(self, Share share, object resume) except -1:
        self.serial += 1
        share.place = self.serial + NEWCOMER if share.is_new else self.serial
        share.resume = resume
        share.used = max(share.used, self.level)
        heappush(self.queue, (share.used, share.place, share))
        return self.call()

    def _pass(self):
        # Once a pass of the loop while anybody works: a new turn, and those who wait as far as it lasts.
        cdef Share share
        cdef int64_t used
        cdef int64_t place
        cdef int64_t ends_at
        self.called = False
        ends_at = self.ends_at = self.now() + WAITED_NS
        try:
            while self.queue:
                used, place, share = heappop(self.queue)
                resume = share.resume
                if share.place != place or resume is None:
                    continue  # it has left
                self.level = max(self.level, used)
                share.forget()
                share.start(self.now())
                if isinstance(resume, Wake):
                    ends_at -= SLICE_NS  # its task works in the next pass; counted now
                resume()
                if self.now() >= ends_at:
                    break
        finally:
            self.ends_at = 0
            if self.queue:
                self.call()
            else:
                self.level = self.highest  # those who worked alone took nothing from anybody


@cython.final
cdef class Share:
    """One session's part. `over` charges it with what has run since it last asked or began."""

    cdef Turns turns
    cdef readonly int64_t used  # nanoseconds, or what others had at least
    cdef bint is_new       # has not worked yet
    cdef int64_t mark
    cdef int64_t until
    cdef bint arrived      # works on what came in this pass: a slice, and the rest waits
    cdef bint fresh        # waits with input that has just come
    cdef int64_t place     # in the queue; 0: it does not wait
    cdef object resume

    @property
    def waiting(self):
        """Whether `later` or `pause` has been called and the turn has not come yet."""
        return self.place > 0

    def enter(self, resume, *, bint fresh=True):
        """Asked where input arrives: whether to work on it now. Where not, `resume` is called when the turn comes.

        Input that had come before, and waited for a command to end, is not `fresh`.
        """
        cdef Turns turns = self.turns
        cdef int64_t now = turns.now()
        if turns.may_work(now):
            self.mark = now + FREE_NS if fresh else now
            self.until = now + FIRST_NS
            self.arrived = True
            self.is_new = False
            return True
        self.fresh = fresh
        turns.wait(self, resume)
        return False

    def begin(self):
        """The session goes on after a wait; nothing before it is charged."""
        self.start(self.turns.now())

    def run(self, work, ended):
        """Carries out `work`, an awaitable, from its first step, which is done here and now. None: it has ended.

        Else `ended(failure)` is called when it has: with its exception, or None. What it raises here is raised. It is
        charged with what it works, and not while it waits. It runs in no task of asyncio's: what asks for the current
        one (asyncio.timeout) has to be awaited in a task.
        """
        cdef Course course = Course.__new__(Course)
        course.share = self
        course.work = work if isinstance(work, CoroutineType) else work.__await__()
        course.ended = ended
        return course if course.step() else None

    cpdef bint over(self) except -1:
        """Whether this session has worked enough for now; asked between two pieces of work."""
        cdef Turns turns = self.turns
        cdef int64_t now = turns.now()
        self.settle(now)
        if now < self.until:
            return False
        if self.arrived or turns.queue or not turns.may_work(now):
            return True
        self.until = now + SLICE_NS
        return False

    def later(self, resume):
        """Calls `resume` when this session's turn comes again, unless it has left by then."""
        self.turns.wait(self, resume)

    async def pause(self):
        """`over` and, where it is, the wait: what a long coroutine awaits between two pieces."""
        if not self.over():
            return
        future = self.turns.loop.create_future()
        self.turns.wait(self, Wake(future))
        try:
            await future
        finally:
            self.forget()
        self.start(self.turns.now())

    def leave(self):
        """The session has ended: `later` is forgotten. Who awaits `pause` is woken in its turn, to come to its end."""
        if not isinstance(self.resume, Wake):
            self.forget()

    cdef int settle(self, int64_t now) except -1:
        cdef int64_t spent = now - self.mark
        if spent > 0:
            self.turns.charge(self, spent if spent <= SLICE_NS else self.turns.own(spent))
            self.mark = now
        return 0

    cdef int forget(self) except -1:
        self.place = 0
        self.resume = None
        return 0

    cdef int start(self, int64_t now) except -1:
        self.arrived = self.is_new = False
        self.mark = now + FREE_NS if self.fresh else now
        self.fresh = False
        self.until = now + SLICE_NS
        return 0


@cython.final
cdef class Wake:
    # Wakes a task. It works after this pass, so its slice is counted beforehand.
    cdef object future

    def __init__(self, object future):
        self.future = future

    def __call__(self):
        if not self.future.done():
            self.future.set_result(None)


@cython.final
cdef class Course:
    """A coroutine under way, which does what a task of asyncio's would, but begins at once; see Share.run."""

    cdef Share share
    cdef object work       # None: it has ended
    cdef object ended
    cdef object awaited    # the future that it waits for
    cdef object wake
    cdef bint cancelled    # to be told of it where it next waits

    def cancel(self):
        """Has what it waits for cancelled, so that it ends there. `ended` is told of CancelledError."""
        if self.awaited is not None:
            self.awaited.cancel()
        else:
            self.cancelled = True

    cdef bint step(self) except -1:
        # Until it waits: True; or to its end.
        cdef PyObject* result = NULL
        cdef PySendResult how
        try:
            how = PyIter_Send(self.work, None, &result)
        except BaseException:
            self.work = None
            raise
        if how == PYGEN_RETURN:
            Py_DECREF(result)
            self.work = None
            return False
        future = <object>result
        Py_DECREF(result)
        if self.wake is None:
            self.wake = self.woken
        self.share.settle(self.share.turns.now())
        if future is None:  # it only lets others go on
            self.share.turns.loop.call_soon(self.wake, None)
            return True
        future._asyncio_future_blocking = False
        self.awaited = future
        future.add_done_callback(self.wake)
        if self.cancelled:
            self.cancelled = False
            future.cancel()
        return True

    def woken(self, _):
        cdef object failure = None
        if self.work is None:
            return
        self.awaited = None
        self.share.begin()
        try:
            if self.step():
                return
        except Exception as error:
            failure = error
        except CancelledError as error:
            failure = error
        ended, self.ended = self.ended, None
        self.wake = None
        ended(failure)


@cython.final
cdef class Pace:
    """The deliveries of one worker. `resume` is called in the next pass: who asked `is_over` may go on.

    `now_ns`: a clock for tests; None: the monotonic one.
    """

    cdef object loop
    cdef object resume
    cdef object now_ns
    cdef object following   # the bound method, made once
    cdef int64_t ends_at    # of the pass that is under way; 0: nobody has begun to work in it
    cdef int64_t lasts      # how long deliveries may work in it
    cdef int64_t stopped_at # when they, or retries among them, had; 0: they have not
    cdef bint ended         # all of them had
    cdef Py_ssize_t results # recipients decided about in this pass
    cdef object acts

    def __init__(self, object loop, object resume, object now_ns=None):
        self.loop = loop
        self.resume = resume
        self.now_ns = now_ns
        self.following = self._next_pass
        self.acts = deque()
        self.lasts = DELIVERY_NS

    cdef int64_t now(self) except -1:
        return self.now_ns() if self.now_ns is not None else monotonic_ns()

    cdef bint over(self, bint retries=False) except -1:
        cdef int64_t now = self.now()
        if self.ends_at == 0:
            self.ends_at = now + self.lasts
            self.results = 0
            self.loop.call_soon(self.following)
            return False
        if now < self.ends_at and self.results < RESULTS:
            if not retries or self.lasts == DELIVERY_NS or now < self.ends_at - self.lasts // 2:
                if self.stopped_at:
                    self.stopped_at = now  # retries had been stopped, and others go on
                return False
            if self.stopped_at == 0:
                self.stopped_at = now
        elif not self.ended:
            self.ended = True
            self.stopped_at = now
        return True

    @property
    def is_over(self):
        """Whether enough was done in this pass; asked between two pieces of work."""
        return self.over()

    @property
    def is_over_for_retries(self):
        """The same for what was tried before: where others are busy it has half of what deliveries have (adr/0269)."""
        return self.over(True)

    @property
    def is_waited_for(self):
        """Whether something that `later` was given has not been done yet."""
        return bool(self.acts)

    def later(self, act):
        """Does something now, or where this pass is over in one that follows, in the order in which it was given."""
        if self.acts or self.over():
            self.acts.append(act)
        else:
            act()

    def decided(self, Py_ssize_t recipients):
        """So many recipients' results are on their way into the store."""
        self.results += recipients

    def spawned(self):
        """A task was made that works before anybody can ask again: what it takes is counted now."""
        if self.ends_at:
            self.ends_at -= TASK_NS

    def _next_pass(self):
        cdef int64_t others
        self.lasts = DELIVERY_NS
        if self.stopped_at:
            others = self.now() - self.stopped_at
            if others >= ALONE_NS:
                self.lasts = min(max(others, LEAST_NS), DELIVERY_NS)
        self.stopped_at = 0
        self.ended = False
        self.ends_at = 0
        while self.acts and not self.over():
            self.acts.popleft()()
        self.resume()
