from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from fastmta._unit cimport Blob, Unit


cdef enum:
    SECONDS_BOUNDS = 32        # buckets of a histogram at most

cdef enum:                     # what it means that a mailbox does not take its message
    QUEUE_IT = 0               # it becomes a queued recipient, in the same unit
    REPORT_IT = 1              # the answer says so, and nothing of it is queued
    REFUSE_UNIT = 2            # nothing of the unit happens


cdef struct Text:              # bytes being put together; kept and used again by its owner
    char* data
    Py_ssize_t size
    Py_ssize_t capacity


cdef class Target:             # one place that a recipient's mail goes to
    cdef readonly bytes hop
    cdef readonly bytes tail          # msgpack of RecipientTail; b"" where nothing can be queued
    cdef readonly bytes address       # the path at its hop; of a local mailbox, as Delivered-To has it
    cdef readonly bytes original      # the recipient that it stands for
    cdef readonly bytes mailbox       # whose it is, for the log
    cdef readonly uint64_t mailbox_id # 0: queued under `hop`
    cdef readonly uint64_t account_id # whose mailbox that is
    cdef readonly bint held
    cdef readonly bint reported       # its sender wants to hear of success: the hop `local:` delivers it, and says so
    cdef readonly uint32_t flags      # of the message in the mailbox
    cdef readonly bytes keywords
    cdef readonly bytes prefix        # in place of the one that comes from the envelope; None: that
    cdef bytes shown_hop              # told_hop's, once it was asked

    cdef bytes told_hop(self)
    cdef Target moved(self, bytes hop, bint held, uint64_t mailbox_id)


cdef class Recipient:          # an accepted recipient; a service shares those without parameters
    cdef readonly bytes forward_path
    cdef readonly list targets
    cdef readonly object resolution
    cdef readonly bint has_local
    cdef readonly str tenant          # whose mail it is by who gets it; "": nobody's
    cdef readonly int64_t tick        # of its making: a local one is looked up afresh in the next

    cdef Recipient with_targets(self, list targets)


cdef class Lines:              # what the log and the trace are about to write
    cdef object begun
    cdef object full
    cdef readonly Py_ssize_t size     # octets
    cdef Py_ssize_t most
    cdef list gathered

    cpdef int add(self, bytes lines) except -1
    cpdef bytes take(self)


cdef class Event:              # one thing that happened to one recipient
    cdef readonly str happened        # model.events.Happening
    cdef readonly str transport       # a label of the metrics: of model/routes.TRANSPORTS
    cdef readonly uint64_t queue_id
    cdef readonly bytes recipient
    cdef readonly str next_hop
    cdef readonly str relay           # "host[address]:port" of who answered; "local": a mailbox; "none": nobody
    cdef readonly double delay_s      # since the message came
    cdef readonly str dsn             # enhanced status code
    cdef readonly str reply
    cdef readonly bytes original      # where an alias made another of it
    cdef readonly bytes mailbox       # whose, of a local delivery
    cdef readonly double took_s       # the attempt, from looking for an address to the last answer; -1: there was none
    cdef readonly str tls             # of the attempt's session: version, cipher, and by what the server was verified


cdef class Teller:             # tells what happens to recipients: lines of the log, and counters
    cdef readonly object log
    cdef object now
    cdef Lines lines                  # of the log
    cdef Lines trace                  # takes the lines that are put together here, whatever the log's level; None: nobody
    cdef bint is_told                 # events of level info are written, as JSON
    cdef bint is_built                # lines are put together here: for the log, for the trace, or for both
    cdef uint64_t[::1] cells
    cdef Py_ssize_t c_received
    cdef Py_ssize_t c_bytes
    cdef Py_ssize_t c_local
    cdef Py_ssize_t c_seconds         # a histogram (runtime/metrics.py)
    cdef int64_t seconds_bounds[SECONDS_BOUNDS]
    cdef int seconds_count
    cdef dict deliveries
    cdef dict admin_recipients  # result -> cell
    cdef dict openings
    cdef Text scratch
    cdef int64_t date_second
    cdef char date[48]                # of that second, as RFC 5322 §3.3 writes it
    cdef Py_ssize_t date_size
    cdef int64_t stamp_minute
    cdef char stamp[40]               # how a line of the log begins in that minute
    cdef Py_ssize_t stamp_size
    cdef int minutes_east

    cdef int dates(self, int64_t second) except -1
    cdef int observe(self, double seconds) except -1
    cdef bytes opening(self, str event)
    cdef int put_opening(self, double at, bytes fields) except -1
    cdef int put_event(self, double at, str event, uint64_t queue_id, bytes recipient, bytes original, bytes mailbox,
                       bytes next_hop, bytes relay, double delay, bytes dsn, bytes reply) except -1
    cdef int put_attempt(self, Event event) except -1
    cdef int put_act(self, double at, str event, uint64_t queue_id, bytes recipient, bytes by) except -1
    cdef int say(self) except -1
    cdef int put_received(self, Posting posting, double at) except -1


cdef class Body:               # what several Postings may share
    cdef readonly uint64_t blob_id
    cdef readonly uint64_t size       # of what is shown of it
    cdef public bytes structure       # Structure.finish's, where a mailbox takes it
    cdef public object loops          # the addresses of its Delivered-To fields, lower case; None: not one
    cdef Blob blob                    # until a unit has it
    cdef uint64_t first               # the mailboxes that have it
    cdef set taken

    cdef bint take(self, uint64_t mailbox_id) except -1
    cdef int give_back(self, uint64_t mailbox_id) except -1
    cdef bint loops_at(self, Target target) except -1


cdef class Posting:            # one envelope over a body: from its recipients to what became of each
    cdef readonly Teller teller
    cdef readonly uint64_t queue_id
    cdef readonly object envelope
    cdef readonly Body body
    cdef readonly int refusal
    cdef public str event             # of the log's line of its acceptance; "": it has none, and is not counted
    cdef public uint64_t session
    cdef public bytes message_id      # for the line of its acceptance; b"": unknown
    cdef public int64_t octets        # that came, for the counter and the line
    cdef public double began_at       # Unix time that delays are counted from
    cdef public int64_t date_s        # the internal date in mailboxes, and its zone
    cdef public int tz_minutes
    cdef public int64_t due_ms        # when its queued recipients may be tried; 0: when it was received
    cdef public Py_ssize_t number     # of its first target: where it goes on with an entry that is in the queue
    cdef public Py_ssize_t in_all     # targets, with those of the message's other units
    cdef public Py_ssize_t recipients_in_all
    cdef bytes raw_envelope
    cdef readonly list recipients
    cdef Py_ssize_t first_answer
    cdef set reported                 # mailboxes that the hop `local:` delivers to
    cdef bint has_held
    cdef list filed                   # [(n, Target)]: what goes into mailboxes at once, in the order of its results
    cdef Py_ssize_t places            # targets, of all recipients
    cdef Py_ssize_t looping

    cdef bint look(self) except -1
    cdef str tenant(self)
    cpdef int write(self, Unit unit) except -1
    cdef int _file(self, Unit unit, int n, Target target) except -1
    cpdef list committed(self, Unit unit)
    cdef int _tell_rest(self) except -1
