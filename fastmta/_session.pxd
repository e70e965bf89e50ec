from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from fastmta._intake cimport Posting, Recipient, Teller, Text
from fastmta._mime cimport Structure
from fastmta._parser cimport DataState, HeaderScan
from fastmta._unit cimport Blob, Engine, Unit, Waiter


cdef enum:
    HELD_BYTES = 64            # of a header line whose name may yet be Bcc, with the white space behind it


cdef class Service:
    cdef readonly str name
    cdef public object host
    cdef public object rules
    cdef readonly object settings
    cdef readonly set sessions
    cdef readonly int64_t tick        # seconds, moved by sweep()
    cdef int64_t last_sweep
    cdef readonly Engine engine
    cdef object directory
    cdef object version
    cdef object monotonic
    cdef double version_until         # by that clock: `version` is the directory's, and it need not be asked
    cdef dict relay_memo
    cdef dict tenants                 # of those who may relay, by login or reverse path
    cdef dict local_memo
    cdef object now
    cdef object storage_ok
    cdef readonly Teller teller
    cdef object crash
    cdef bytes table
    cdef bytes greeting
    cdef bytes received_by
    cdef bint lmtp
    cdef bint adjusts                 # an accepted envelope may get copies, or other routes
    cdef str through           # where its mail goes first; "": nowhere
    cdef bint submission
    cdef int bare_newline
    cdef int64_t size_limit
    cdef int64_t timeout
    cdef Py_ssize_t recipient_limit
    cdef Py_ssize_t overshoot_limit
    cdef Py_ssize_t hop_limit
    cdef int soft_errors
    cdef int hard_errors
    cdef int64_t error_sleep          # seconds that each reply is delayed beyond soft_errors; 0: none
    cdef int junk_limit
    cdef uint64_t[::1] cells
    cdef object counters
    cdef Py_ssize_t c_connections
    cdef Py_ssize_t c_open
    cdef uint64_t last_session
    cdef bytes farewell               # said to sessions without a transaction, once it is set
    cdef Text out                     # replies of the event being handled
    cdef Text scratch

    cdef object _resolve(self, bytes path, bint may_relay)
    cdef str tenant_of(self, str login, bytes sender)
    cdef int check_version(self) except -1


cdef class Connection(Waiter):
    cdef readonly Service service
    cdef readonly object transport
    cdef public object told_peer      # (IP, port) of the client that a proxy speaks for; None: whoever connected
    cdef public int state
    cdef public bytes helo
    cdef public bint esmtp
    cdef readonly bint pipelined      # it has sent on where it had to wait for a reply
    cdef public bint tls
    cdef public bint trusted
    cdef public bint loopback
    cdef public bint speaks_for       # XCLIENT was allowed once; it stays so, whoever the client is now
    cdef public Py_ssize_t place      # among the connections of its address; 0: none
    cdef public int relays            # model.stages: what a list has said of the recipient that is named
    cdef public int stages            # model.stages: where somebody is asked before the session goes on
    cdef public object denied         # the greeting was a refusal: the reply to every command; None: it was none
    cdef public object screening      # what has been asked about this session (smtp/screening.py); None: nothing
    cdef readonly uint64_t generation # of the present wait; an answer to another one is too late
    cdef int wait_verb                # what the wait answers in the end,
    cdef int wait_state               # and where a positive answer leads to
    cdef bint wait_more               # the client had sent more behind it
    cdef bint ungreeted               # the greeting is withheld
    cdef bint data_asked              # the checks of DATA have seen this message's first chunk
    cdef bint keeps_bare              # smtpd_forbid_bare_newline_exclusions
    cdef public object certificate    # model.certificate.PeerCertificate that the client has shown; None: none
    cdef public str login
    cdef public uint64_t account_id   # whose login that is
    cdef public object exchange
    cdef public int auth_failures
    cdef public bint smtputf8
    cdef readonly uint64_t number
    cdef readonly str peer_ip
    cdef readonly str client
    cdef bytes client_field
    cdef bytes tls_field
    cdef int waiting
    cdef int errors
    cdef bint forgiven                # the next refusal is no error of the client's
    cdef int junk
    cdef bint closing
    cdef bint lingering
    cdef Py_ssize_t skipped           # of a line that is too long, up to its end; 0: no such line
    cdef object share                 # runtime.turns.Share: made when a client sends more than a few lines at once
    cdef bint in_turn                 # the share was asked for what is being worked on
    cdef bint eof
    cdef bytes delayed                # replies to a client of many errors, until its delay is over
    cdef bint want_tls
    cdef bytes residual
    cdef int64_t last_tick
    cdef int64_t first_tick
    cdef Py_ssize_t lingered

    # the transaction
    cdef readonly bytes argument      # of the last command that the rules, or a refusal, were given
    cdef readonly bytes reverse_path
    cdef bytes envid
    cdef str ret
    cdef object terms                 # model.envelope.Terms, where its MAIL demanded anything
    cdef int64_t room_tick            # the second in which its MAIL found room in the store
    cdef readonly list recipients
    cdef Py_ssize_t overshoot         # recipients beyond the limit, of this transaction
    cdef bint has_local
    cdef public int bare              # BARE_SENDER, BARE_RECIPIENT: given without a domain

    # the message
    cdef readonly uint64_t queue_id
    cdef Blob blob
    cdef Structure structure
    cdef HeaderScan scan
    cdef DataState data
    cdef int failure
    cdef bint blinds                  # the message is submitted: Bcc is not passed on
    cdef int field                    # what becomes of the present header field
    cdef bint line_begins
    cdef char held[HELD_BYTES]
    cdef Py_ssize_t held_size
    cdef readonly int64_t size
    cdef int64_t counted              # octets up to which it is counted as an unfinished message
    cdef object upload                # policy.uploads.Upload, where it is
    cdef int64_t chunk_left
    cdef bint chunk_last
    cdef bint bdat
    cdef double accepted_at
    cdef bytes added                  # fields of ours below Received, once they are made
    cdef Posting posting              # whose unit is on its way
    cdef dict refusals                # LMTP: number of a target -> why its mailbox refused
    cdef object outcome               # model.verdict.Outcome of the message; None: nobody was asked

    cdef int unit_done(self, Unit unit) except -1
    cdef bint _spoke_early(self, int fd) except -1
    cdef int _pause(self, int reason) except -1
    cdef int _resume(self, int reason) except -1
    cdef int _go_on(self) except -1
    cdef int _flush(self) except -1
    cdef int _finish_event(self) except -1
    cdef int _end(self) except -1
    cdef int _await(self, int verb, int next_state, bint more) except -1
    cdef bint _forget_wait(self) except -1
    cpdef reset(self)
    cpdef begin(self, bytes reverse_path, int64_t size_bytes, bint smtputf8, bytes envid, str ret)
