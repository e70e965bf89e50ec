"""Every bound of the server, with its unit, its reason, and the RFC's minimum where there is one.

A bound that an administrator may set lives in the configuration; these are the ones that may not be.
"""

from typing import Final

# --- the loop's time (runtime/turns.py) ---
TURN_S: Final = 0.004  # all sessions of a worker in one pass of its loop, on what has just arrived
WAITED_S: Final = 0.002  # and on what waited: a command that comes meanwhile waits for all of it
SLICE_S: Final = 0.0001  # one session at a stretch, while others wait: two hundred are through in 20 ms
FIRST_S: Final = 0.0005  # one session on what has just arrived: an ordinary client's pipeline is answered in one write
PIECE_S: Final = 0.002  # the longest piece of work that nothing interrupts; the counts below stay under it
FREE_S: Final = 0.0002  # of what arrived at once, not counted: who sends a command now and then is always first
GARBAGE_S: Final = 10.0  # between two collections of all garbage: each holds the loop for as long as there are objects
GARBAGE_MOST: Final = 200  # times 7,000 objects more than at the last one, and the next does not wait: some 100 MB

# --- every protocol ---
LINE_SKIP_BYTES: Final = 1 << 20  # dropped of a line over its limit; then the session ends: no line is read for ever

# --- SMTP ---
LOG_RECIPIENTS: Final = 50  # told by address in the line of a message that came in; the rest is counted
SMTP_COMMAND_LINE_BYTES: Final = 4096  # with CRLF; RFC 5321 §4.5.3.1.4 asks for 512, extensions add to it
SMTP_PATH_BYTES: Final = 256  # RFC 5321 §4.5.3.1.3
DIGEST_MESSAGES: Final = 200  # of one user that a digest looks at, the newest
REPORT_FLUSH_S: Final = 60.0  # between two records of what a worker has counted
REPORT_DOMAINS: Final = 5_000  # that a worker counts for in a minute, for DMARC or TLS reports
REPORT_ROWS: Final = 2_000  # of one domain and day: addresses and their results
REPORT_BATCHES: Final = 200_000  # records of counts that are read at once
REPORT_TARGETS: Final = 5  # of one domain that a report goes to
REPORT_SENT_BYTES: Final = 1 << 20  # compressed: some 2,000 rows are a tenth of it
SITE_POLICY_QUESTIONS: Final = 200  # of one worker that wait for its policy module; more are deferred
SITE_POLICY_START_S: Final = 10.0  # for the module to be loaded
SITE_POLICY_SHOWN_BYTES: Final = 65_536  # of a header, and of a body, that the module sees
BANS: Final = 10_000  # addresses and networks, some 300 bytes each in every worker
SRS_PATH_BYTES: Final = 254  # of a rewritten sender: with its angle brackets a path of SMTP
SRS_SECRETS: Final = 10  # in one file: each is tried for an address that comes back
SRS_SECRET_BYTES: Final = 1024  # of one of them
PACE_KEPT_S: Final = 3600.0  # that a destination which asked for less is remembered without another word of it
TLS_SESSIONS: Final = 500  # with next hops that a worker keeps to resume them: some 8 KB each with their certificates
OFFERS_KEPT: Final = 256  # replies to EHLO that are known taken apart; there are few kinds of server
OFFER_KEPT_BYTES: Final = 2_048  # the longest of them: those of big providers have some 300
SMTP_LOCAL_PART_BYTES: Final = 64  # RFC 5321 §4.5.3.1.1
SMTP_DOMAIN_BYTES: Final = 255  # RFC 5321 §4.5.3.1.2
SMTP_RECIPIENTS: Final = 1000  # a transaction; RFC 5321 §4.5.3.1.8 asks for 100
SMTP_REPLY_LINE_BYTES: Final = 4096  # one line of a next hop's reply; RFC 5321 §4.5.3.1.5 asks for 512
SMTP_REPLY_BYTES: Final = 65536  # a whole multiline reply of a next hop
LINE_BYTES: Final = 998  # of a message's line, without CRLF: RFC 5322 §2.1.1
SMTP_ENVID_BYTES: Final = 100  # RFC 3461 §4.4
SMTP_ORCPT_BYTES: Final = 500  # RFC 3461 §4.2
SMTP_SASL_LINE_BYTES: Final = 12_288  # RFC 4954 §4
SMTP_WAITING_BYTES: Final = 16_384  # of a client's input kept while it waits for its own commit; then reading pauses
SMTP_DISCARD_BYTES: Final = 1_048_576  # read and dropped after a last reply, so that the reply is not lost to a reset
SMTP_LINGER_S: Final = 5  # how long that may take
SMTP_RESOLUTIONS: Final = 10_000  # remembered by a worker and kind of client; a few hundred bytes each
SMTP_MIN_DATA_RATE: Final = 500  # octets a second that a message must come at, after smtpd_timeout; Postfix's default
LANE_SMALL_RECIPIENTS: Final = 5  # targets of a message up to which it goes into the small lane
LANE_SMALL_BYTES: Final = 1 << 16  # and its size
LANE_BULK_RECIPIENTS: Final = 50  # and over which it goes into the bulk lane
LANE_BULK_BYTES: Final = 10 << 20  # or over this size
SMTP_ADDED_HEADER_BYTES: Final = 1024  # of Date and Message-ID that submission adds

# --- the message trace (trace/) ---
TRACE_GATHERED_S: Final = 1.0  # before lines are written: what a kill may cost of the trace
TRACE_GATHERED_BYTES: Final = 1 << 20  # gathered, then written at once; four times as much where the disk is slow
TRACE_PART_SHARE: Final = 16  # of trace_size_limit that one file has at most, so that the oldest can make room
TRACE_UNLIMITED_BYTES: Final = 16 << 30  # what that is a share of, where trace_size_limit is 0
TRACE_PRUNE_S: Final = 600.0  # between two looks for what is too old
TRACE_GIVEN_BACK_BYTES: Final = 8 << 20  # of pruned files to the disk at a time, which it may have to be told of
TRACE_WINDOW_BYTES: Final = 4 << 20  # of a file looked through at once by a search
TRACE_LINE_BYTES: Final = 1 << 20  # of a line; a longer one is passed over
TRACE_MESSAGES: Final = 1000  # put together at a time by a search
TRACE_EVENTS: Final = 20_000  # told of one message at most, the oldest ones first

# --- checks (policy/) ---
CHECK_S: Final = 30.0  # all checks of one stage before DATA; clients wait 5 minutes (RFC 5321 §4.5.3.2)
CHECK_MESSAGE_S: Final = 240.0  # those at the end of a message, where clients wait 10 minutes
CHECK_COPIES: Final = 50  # addresses that the checks of one message send it to besides
VERIFY_AT_ONCE: Final = 50  # addresses that one worker asks next hops about at a time
VERIFY_DOMAIN_AT_ONCE: Final = 5  # of these, in one domain: whoever guesses addresses there is slowed down by it
VERIFY_LONGEST_S: Final = 20.0  # a client waits for an answer, whatever the polls' settings: within CHECK_S
VERIFY_TEXT_CHARACTERS: Final = 250  # kept of an answer, and told
VERIFIED_ADDRESSES: Final = 100_000  # answers kept in the store; about 30 MB
CLIENT_NAME_S: Final = 10.0  # of the search for a client's name, before which it is not greeted
CLIENT_NAMES: Final = 10_000  # kept; about 2 MB
CLIENT_PTR_NAMES: Final = 5  # of one address that are confirmed; more are a mistake of its owner
POLICY_KEPT: Final = 4  # idle connections to one policy service that a worker keeps
POLICY_CONNECTIONS: Final = 100  # open at a time to one policy service from one worker; further questions wait
POLICY_LONGEST_S: Final = 20.0  # of one question whatever its setting, so that its default action comes within CHECK_S
POLICY_READ_BYTES: Final = 4096
POLICY_ANSWER_BYTES: Final = 8192  # of a policy service; an action is one line
POLICY_VALUE_CHARACTERS: Final = 2048  # of one attribute in a request
MILTER_PACKET_BYTES: Final = 1 << 17  # of one answer of a milter; libmilter's own are a header field at most
MILTER_BODY_BYTES: Final = 65_535  # of one piece of a body (MILTER_CHUNK_SIZE)
MILTER_CHANGES: Final = 1000  # of one message's header by one milter
CHECK_HEAD_BYTES: Final = 2400  # put in front of one message by all checks together: with Received a MESSAGE_HEAD
REWRITTEN_HEAD_BYTES: Final = 1200  # of them, fields whose addresses are written anew; longer ones stay as they came
REWRITTEN_FIELD_BYTES: Final = 16_384  # of a field whose addresses are looked at, with turns for others

# --- messages in the store ---
MESSAGE_HEAD_BYTES: Final = 3500  # put in front of what came: with its cuts it lies in one page
MESSAGE_CUTS: Final = 64  # ranges of what came that are not shown

# --- DNS (dns/exchange.py) ---
DNS_SOCKETS: Final = 4  # UDP sockets a name server; the second is opened when the first has a burst under way
DNS_ON_WIRE: Final = 2048  # questions that are sent and not answered yet
DNS_SENT_AT_ONCE: Final = 100  # in one turn of the loop
DNS_WAITING: Final = 50_000  # questions that wait for their turn, under 1 KB each; beyond it nobody can say
DNS_PAYLOAD_BYTES: Final = 1232  # of an answer over UDP: what passes without fragments
DNS_RECORDS: Final = 1024  # of one answer that are read; 64 KB could hold 4,000
DNS_TCP: Final = 8  # connections for answers that were truncated

# --- delivery ---
REDATED_S: Final = 0.004  # a second spent on times that the clock has taken back, so that the loop is never held
REDATED_A_PAGE: Final = 100  # recipients looked at before the time is: about 1 ms
REDATED_HOPS: Final = 10_000  # of one of 256 partitions
UNINDEXED_MS: Final = 30_000  # what waits longer without having been tried is brought into the queue's indexes
INDEXED_A_SECOND: Final = 2000  # recipients of one worker; delivery comes first
REVIVAL_PAUSE_S: Final = 5.0  # between two revivals that administrators ask for: one long flush is one wish

DELIVERY_PASS_S: Final = 0.002  # of one pass of the loop for all deliveries of a worker, beside its sessions' TURN_S
DELIVERY_LEAST_S: Final = 0.0005  # of it however little the sessions have to do: they get as long as they ask for
DELIVERY_ALONE_S: Final = 0.00002  # of a pass for all but deliveries: nobody else has anything to do
DELIVERY_TASK_S: Final = 0.0004  # of it for a task that connects: a look into caches, a socket, an address
REPLIES_KEPT: Final = 500  # negative replies whose class a worker remembers, and so many pairs of their codes
REPLY_KEPT_CHARACTERS: Final = 500  # of one of them: a quarter of a megabyte together
RESULTS_A_PASS: Final = 32  # recipients whose results are recorded in one pass of the loop, their log lines included
ANSWERS_KEPT: Final = 8192  # notes of a process; a few hundred wait for their commit
ANSWERS_LOCK_S: Final = 1.0  # for another process that records what the dead left: milliseconds
ANSWERS_LOOK_S: Final = 0.005  # between two looks whether it has ended
ANSWERS_A_UNIT: Final = 200  # of them recorded in one unit
CONVERTED_PIECE_BYTES: Final = 32_768  # of an 8-bit message made 7-bit in one go: under 1 ms
CONVERTED_HEADER_BYTES: Final = 131_072  # one header that is rewritten; Postfix's header_size_limit is 102,400

# --- hops ---
RECEIVED_FIELDS: Final = 50  # Postfix's bound on hops; RFC 5321 §6.3 asks for at least 100 only of simple counters

# --- authentication ---
SASL_RESPONSE_BYTES: Final = 9216  # decoded; RFC 4954 §4 lets a base64 line be 12,288 octets
APP_PASSWORDS_OF_ACCOUNT: Final = 100
LAST_LOGINS_NOTED: Final = 10_000  # of a worker, until it has written them: 3 MB
GROUPS_OF_ACCOUNT: Final = 100  # that one account is in: each is looked for in the lists of shared mailboxes
ACL_ENTRIES: Final = 250  # of one mailbox: every command of somebody else reads them, 10 KB at most
SASL_SCRAM_ITERATIONS: Final = 600_000  # that a relay host may ask of us: 0.3 s; RFC 7677 §4 asks for 4,096
LOGINS_PAUSED: Final = 1000  # senders' logins of a hop that were refused a moment ago
MTA_STS_KEPT: Final = 10_000  # policies, a file and some hundred bytes each
MTA_STS_POLICY_BYTES: Final = 65_536  # RFC 8461 §3.3 suggests 64 kilobytes
MTA_STS_FETCH_S: Final = 60.0  # RFC 8461 §3.3 suggests a minute
OAUTH_KEPT: Final = 1000  # access tokens kept by a process, some kilobytes each
OAUTH_TOKEN_BYTES: Final = 16_384  # of a token URL's answer, or of a token command's output
OAUTH_FETCH_S: Final = 30.0  # for a token URL's answer; keys are not fetched again sooner
OAUTH_JWKS_BYTES: Final = 262_144  # of an issuer's keys
OAUTH_KEYS_S: Final = 3600.0  # for which an issuer's keys are kept
OAUTH_COMMAND_S: Final = 30.0  # for a token command
OAUTH_LIFETIME_S: Final = 300.0  # of a token that does not say how long it is good
HTTPS_HEADER_BYTES: Final = 32_768  # of an answer's header section
PASSWORD_BYTES: Final = 1024  # in UTF-8; a longer one is simply wrong
PASSWORD_CACHE_ENTRIES: Final = 10_000  # successes remembered by a process, about 120 bytes each
PASSWORD_CHECKS_OF_ADDRESS: Final = 256  # waiting in a process, one after the other: about 8 s; beyond it 454
PASSWORD_CHECKS_WAITING: Final = 4096  # of all addresses; each is served in turn, so this bounds memory, not a wait

# --- message authentication ---
AUTHENTICATED_HEADER_BYTES: Final = 1 << 20  # a longer header section is not read; RFC 5322 sets no limit
AUTHENTICATED_FIELDS: Final = 10_000  # header fields; mail has up to 200, and each costs a microsecond
AUTHENTICATION_TIME_S: Final = 30.0  # then SPF, DKIM and ARC ask the DNS nothing further; DMARC after as long again
AUTHENTICATED_BODY_PIECE: Final = 1 << 18  # a body is hashed in pieces of this size
DKIM_SIGNERS: Final = 1000  # domains whose signing keys a worker keeps loaded, some 3 KB each
DKIM_SIGNATURES: Final = 10  # of a message that are verified; each may cost a look-up and a public-key operation
DKIM_RSA_BITS: Final = (1024, 8192)  # RFC 8301 §3.2 asks for 1024 to 4096; a longer key costs too much to verify
SIGNED_LISTS: Final = 500  # lists of a header's names for which a worker keeps what is signed, some 2 KB each
SIGNED_FIELDS_KEPT: Final = 50  # longer ones are looked at anew
SIGNED_FRONTS: Final = 100  # signatures' beginnings that a worker keeps, some 1 KB each; they are of one second
DKIM_SIGNED_NAMES: Final = 1000  # in h= of one signature
DKIM_FIELD_BYTES: Final = 65_536  # a longer signature is malformed
DKIM_TAGS: Final = 100  # of one list; the RFCs know 14
DKIM_KEY_RECORDS: Final = 10  # TXT records at one selector that are tried (RFC 6376 §3.6.2.2: one)
DKIM_KEYS: Final = 500  # public keys that a worker keeps loaded, some 5 KB each
DKIM_KEPT_KEY_BYTES: Final = 1_600  # a longer record, which 8192 bits do not need, is read anew each time
DKIM_RSA_EXPONENT_BITS: Final = 64  # a longer exponent makes one verification cost as much as a signature
DKIM_CLOCK_SKEW_S: Final = 300  # how far in the future a signature may be dated
ARC_SETS: Final = 50  # RFC 8617 §4.2.1
SPF_LOOKUPS: Final = 10  # RFC 7208 §4.6.4
SPF_VOID_LOOKUPS: Final = 2  # RFC 7208 §4.6.4
SPF_RECORD_BYTES: Final = 8192  # RFC 7208 §3.4 wants a record to fit 512; the longest in use have about 4,000
SPF_CLIENTS: Final = 1000  # clients' addresses that a worker keeps read
SPF_KEPT_RECORDS: Final = 1000  # records that a worker keeps read, some 2 KB each
SPF_KEPT_BYTES: Final = 512  # a longer one is read anew each time
SPF_NAMES: Final = 10  # MX hosts or PTR names of one mechanism, RFC 7208 §4.6.4
SPF_EXPLANATION_BYTES: Final = 512  # of an explanation that we pass on
SPF_AHEAD: Final = 1000  # senders of a worker asked about at MAIL already; the others when their message ends
SPF_TIME_S: Final = 20.0  # a whole check; RFC 7208 §4.6.4 asks for at least 20
DMARC_WALK_QUERIES: Final = 8  # RFC 9989 §4.10
DMARC_RECORD_BYTES: Final = 8192  # what lies behind is not read
DMARC_KEPT_RECORDS: Final = 1000  # records that a worker keeps read, under 1 KB each
DMARC_KEPT_BYTES: Final = 512  # a longer one is read anew each time
DMARC_FROM_BYTES: Final = 32_768  # of all From fields of a message; more are too many authors
DMARC_REPORT_FILE_BYTES: Final = 32 << 20  # of a file with a report in it, packed or as a mail
DMARC_REPORT_BYTES: Final = 16 << 20  # of a report unpacked; large providers' have 2 MB
DMARC_REPORT_MEMBERS: Final = 100  # files of a zip, or parts of a mail
DMARC_REPORT_RECORDS: Final = 50_000  # of one report
DMARC_REPORT_ELEMENTS: Final = 1_500_000  # 30 a record
DMARC_REPORT_DEPTH: Final = 20  # of its elements; the form has 5
DMARC_REPORT_TEXT: Final = 4096  # characters kept of one element
TLS_REPORT_ASK_S: Final = 5.0  # between two looks whose domains want reports on the sessions that were noted
TLS_REPORT_POST_BYTES: Final = 65_536  # of what an HTTPS server answers to a report
TLS_REPORT_POST_S: Final = 60.0  # for it to take one
TLS_REPORT_BYTES: Final = 16 << 20  # of a received TLS report unpacked
TLS_REPORT_ROWS: Final = 10_000  # policies of one, and failures of a policy
DMARC_AUTHORS: Final = 5  # domains in From that are judged

# --- messages that have begun to come and not ended, over all protocols and workers ---
UPLOAD_ACCOUNT_BYTES: Final = 268_435_456  # of one account's, where they are more than one
UPLOAD_ADDRESS_BYTES: Final = 536_870_912  # of one address's, where they are more than one
SMTP_UPLOAD_FREE_BYTES: Final = 262_144  # of a message that are not counted: they are in memory, bounded otherwise
SMTP_UPLOAD_STEP_BYTES: Final = 1_048_576  # counted at a time beyond these

# --- mailboxes ---
MAILBOXES: Final = 10_000  # of an account, which no quota counts: their list is read in 12 ms
MAILBOXES_A_PIECE: Final = 500  # names of a listing looked at in one piece
MAILBOX_PAGE: Final = 4000  # rows of a mailbox read in one piece: half a millisecond

# --- IMAP ---
IMAP_LOGIN_COMMAND_BYTES: Final = 8192  # one command with its literals before login; RFC 7162 §4: at least 8192 a line
IMAP_ID_BYTES: Final = 40_960  # of an ID, before login too: 30 pairs of 30 and 1,024 octets (RFC 2971 §3.3)
IMAP_LOGIN_LITERAL_BYTES: Final = 1024  # one literal before login: a user name or a password
IMAP_LOGIN_SKIP_BYTES: Final = 4096  # a refused "{n+}" before login is dropped up to this, else BYE (RFC 7888 §5)
IMAP_COMMAND_BYTES: Final = 131_072  # one command with its literals after login, APPEND's message apart
IMAP_LITERAL_BYTES: Final = 65_536  # one literal after login, APPEND's message apart
IMAP_PAREN_DEPTH: Final = 32  # nested parentheses and search keys; clients use 2 or 3
IMAP_SEARCH_KEYS: Final = 1024  # of one SEARCH
SEARCH_BLOCK: Final = 4096  # messages that one SEARCH looks at in one go by their rows, about 1 ms
SEARCH_BLOCK_MASKS: Final = 262_144  # octets of the keys' masks for one block: fewer messages where there are many keys
SEARCH_ROWS: Final = 1024  # of these where a key takes an object for each, about 2 ms
SEARCH_LINES_BYTES: Final = 65_536  # of ENVELOPEs looked at in one go
SEARCH_PIECE_BYTES: Final = 16_384  # of a message decoded in one go; the slowest charset takes 2 ms
INDEX_BEHIND: Final = 64  # messages that a search looks through rather than have them indexed: 2 ms
INDEX_WORDS: Final = 16  # of one search that are looked up in the text index, 0.1 ms each
INDEX_WORD_CHARS: Final = 256  # of one word; what is behind them is looked for in the messages alone
IMAP_METADATA_BYTES: Final = 16_384  # of one annotation (RFC 5464)
IMAP_METADATA_ENTRIES: Final = 100  # of one mailbox, and of an account itself
IMAP_METADATA_ENTRY_BYTES: Final = 200  # of one entry's name
IMAP_METADATA_NAMED: Final = 100  # in one command
IMAP_PROGRESS_S: Final = 10.0  # between two words about a long search (RFC 9585 §4)
IMAP_BINARY_BYTES: Final = 65_536  # of a part decoded in one go: 0.3 ms
IMAP_FETCH_SECTIONS: Final = 64  # BODY[...] items of one FETCH
IMAP_BAD_COMMANDS: Final = 20  # in a row, then BYE
IMAP_LOGIN_ATTEMPTS: Final = 3  # failed ones of a connection, then BYE
IMAP_FAILED_LOGIN_DELAY_S: Final = 2.0  # before a failed login is answered; one timer, no task
ONE_TIME_CODES: Final = 10  # tried behind an account's right password, at all workers, in ONE_TIME_CODES_S
ONE_TIME_CODES_S: Final = 600  # with three right codes in a million, one is guessed in half a year on average
LOGIN_GRACE_S: Final = 5.0  # a connection without a login need not make way for a newcomer sooner
IMAP_LOGIN_TIMEOUT_S: Final = 60.0  # a connection without a login, in all; Dovecot's is 180
IMAP_IDLE_TIMEOUT_S: Final = 1800.0  # without a whole command; RFC 3501 §5.4 asks for at least 30 minutes
IMAP_TRANSFER_TIMEOUT_S: Final = 300.0  # without progress of a literal or of a response that the peer should read
IMAP_UPLOADS: Final = 16  # unfinished APPENDs of an account; clients use a few connections
IMAP_COMMAND_UPLOAD_BYTES: Final = 268_435_456  # that one APPEND announces or copies, beyond its first message
IMAP_APPEND_MESSAGES: Final = 500  # of one APPEND (RFC 3502), which one unit stores: about 50 ms of the committer
IMAP_CATENATE_PARTS: Final = 128  # of one message (RFC 4469)
IMAP_COPY_BYTES: Final = 65_536  # of a message copied into another one in one go
IMAP_URLS: Final = 100  # of one GENURLAUTH or URLFETCH (RFC 4467)
IMAP_URL_BYTES: Final = 4096  # of one IMAP URL
IMAP_UPLOAD_RATE: Final = 2048  # octets a second that an upload must come at, after IMAP_TRANSFER_TIMEOUT_S
IMAP_CHUNK_BYTES: Final = 262_144  # read ahead of the socket, before other sessions get their turn
IMAP_WINDOW: Final = 4096  # messages of a FETCH whose numbers and uids are in memory at a time
IMAP_INFLATE_BYTES: Final = 65_536  # of a compressed stream expanded at a time, before the turn is asked for
IMAP_DEFLATE_BYTES: Final = 65_536  # compressed at a time: about 1.5 ms
IMAP_SORT_MESSAGES: Final = 250_000  # of one SORT or THREAD: their keys take about 100 octets each
IMAP_SORT_KEYS: Final = 16  # of one SORT; there are nine
IMAP_SORT_TEXT: Final = 256  # characters of a key that are compared
IMAP_THREAD_DEPTH: Final = 1000  # of ancestors looked at for a loop, before a link is not made
IMAP_THREAD_PLACES: Final = 100_000  # of one THREAD, for messages that are named and not there; about 20 MB
IMAP_REFERENCES: Final = 256  # of one message, the last ones
IMAP_LIST_PATTERNS: Final = 64  # of one LIST
IMAP_CONTEXTS: Final = 10  # searches of a selected mailbox that are kept up to date (RFC 5267); Dovecot's are 10
IMAP_CONTEXT_MESSAGES: Final = 100_000  # results of one: 400 KB
# New results of a SORT that are placed by comparisons; more, and all is sorted again.
IMAP_CONTEXT_COMPARED: Final = 50
IMAP_CONTEXT_CHANGES: Final = 20_000  # changed messages that are searched alone; more, and all are searched again
IMAP_LANGUAGES: Final = 100  # ranges in one LANGUAGE (RFC 5255)
IMAP_NOTIFY_GROUPS: Final = 100  # event groups of one NOTIFY (RFC 5465)
IMAP_NOTIFY_MAILBOXES: Final = 1000  # that a session watches by NOTIFY: half a kilobyte each
IMAP_NOTIFY_WATCHES: Final = 100_000  # of mailboxes, by all sessions of a worker, that NOTIFY may bring it to
IMAP_KEYWORD_BYTES: Final = 128  # one keyword
IMAP_KEYWORDS: Final = 64  # of one message
IMAP_KEYWORDS_TOLD: Final = 1000  # of a mailbox, in FLAGS; more are not named there, nor looked for
IMAP_CHANGES_PAGE: Final = 500  # changes of other sessions told in one piece, and the rest of their unit
IMAP_MAILBOX_NAME_BYTES: Final = 440  # in UTF-8; leaves room for the account in the store's key of 511
IMAP_MAILBOX_DEPTH: Final = 20  # levels of a mailbox name
IMAP_HEADER_BYTES: Final = 4_194_304  # of one header, read whole for HEADER.FIELDS and SEARCH; the rest is not seen
IMAP_HEADER_PIECE_BYTES: Final = 65_536  # of such a header looked at in one go: 2 ms at most, mostly a tenth of it

# --- the full-text index ---
INDEX_TEXT_CHARS: Final = 1_048_576  # of one message; one with more text is looked through by each search
INDEX_PIECE_MESSAGES: Final = 64  # whose text is in memory at a time
INDEX_PIECE_CHARS: Final = 262_144  # or so many characters of it
INDEX_SEGMENT_PAIRS: Final = 524_288  # of three characters and a message: 12 MB of memory while they are sorted
INDEX_MERGED_PAIRS: Final = 4_194_304  # of a segment made of others: three times its size in memory, about 15 MB
INDEX_MERGED_DOCS: Final = 32_768  # messages of it
INDEX_DEAD_BYTES: Final = 1_048_576  # of a file that may be good for nothing before half of it is
INDEX_NAMED: Final = 1_000_000  # messages that all words of one search name: 12 MB; what is left is looked through
INDEX_OPEN: Final = 64  # files that a worker keeps open
INDEX_WAITING: Final = 10_000  # mailboxes that wait to be indexed; more are found by the next search

# --- MIME (fastmta/_mime.pyx holds the same numbers; tests/mime compares them) ---
MIME_DEPTH: Final = 100  # nesting of multipart and message/rfc822; deeper ones are opaque
MIME_PARTS: Final = 1000  # entities of a message; the last one takes all the rest
MIME_PARAMETERS: Final = 100  # of one Content-Type or Content-Disposition; the rest is left out
MIME_SECTIONS: Final = 16  # of a boundary or charset that comes in RFC 2231's sections
MIME_ADDRESSES: Final = 5000  # of one address list in an ENVELOPE
MIME_LINE_BYTES: Final = 65536  # of one header line that are looked at; RFC 5322 §2.1.1 allows 998
MIME_FIELD_BYTES: Final = 65536  # kept of one unfolded field
MIME_TEXT_BYTES: Final = 524288  # kept of all fields of a message
MIME_BOUNDARY_BYTES: Final = 200  # RFC 2046 §5.1.1 allows 70
MIME_WORD_BYTES: Final = 4096  # of an encoded word's text, else it stays as it is; RFC 2047 §2 allows 75 in all

# --- policy: restriction lists ---
SLEEP_S: Final = 20  # of "sleep" in a list: within CHECK_S
SERVER_HOSTS: Final = 20  # of one domain whose addresses check_*_mx_access and _ns_access ask the DNS for
SERVER_ADDRESSES: Final = 100  # of all of them that are looked up in the table, as in Postfix
SERVER_PARENTS: Final = 10  # domains above a name, the highest ones, that are asked for name servers
RESTRICTIONS_ASKED: Final = 1000  # of one list with all its classes: tables may name classes that ask tables

# --- policy: rules for headers and bodies ---
PATTERN_RULES: Final = 10_000  # of one table of expressions or networks, which are asked one after the other
PATTERN_RULE_OCTETS: Final = 800  # of a text, which cost as much as a rule that matches nothing: 1 us
PATTERN_WORK_OCTETS: Final = 2_000_000  # rules x octets that are looked through on the loop, under 3 ms
CONTENT_PIECE_BYTES: Final = 65_536  # of a message read at a time
CONTENT_LINE_BYTES: Final = 2048  # of a line shown at a time; Postfix's line_length_limit
CONTENT_FIELD_BYTES: Final = 102_400  # of a field that are shown; Postfix's header_size_limit
PACES_KEPT: Final = 10_000  # destinations whose pace a worker keeps over a restart
PACES_BYTES: Final = 8 << 20  # of a file of them that are read
PACES_WRITTEN_S: Final = 5.0  # between two writes of it
OUTGOING_CHANGES: Final = 20_000  # pieces of which a message consists that is changed as it leaves: 1.5 MB
OUTGOING_CHANGED_BYTES: Final = 1 << 20  # that are put into one message as it leaves
OUTGOING_TOLD: Final = 100  # lines of the log about one message that is looked through as it leaves

# --- policy: programs that are shown whole messages ---
SCANNED_PIECE_BYTES: Final = 65_536  # of a message written at a time, and of an answer read
SCANNER_REPLY_BYTES: Final = 1 * 2**20  # of one answer; rspamd's has a line for each symbol

# --- maps and aliases ---
MAP_FILE_BYTES: Final = 256 * 2**20  # a map's source or compiled form
MAP_AT_ONCE_BYTES: Final = 32_768  # what has changed is read on the loop up to this, about 1 ms; else beside it
MAP_BLOCK_BYTES: Final = 65_536  # of a source, decoded together
MAP_PIECE: Final = 250  # entries read before others may have the interpreter: half a millisecond
MAP_PAUSE_S: Final = 0.0005  # and for so long
MAP_LINE_BYTES: Final = 1 * 2**20  # one logical line, continuation lines included
INCLUDE_FILE_BYTES: Final = 4 * 2**20  # one :include: file of aliases(5)
ALIAS_DEPTH: Final = 100  # aliases inside aliases of aliases(5); Postfix's local(8) allows 100

# --- commands that take mail (pipe:) ---
PIPE_COMMANDS: Final = 50  # of one worker at one time, over all pipes
PIPE_OUTPUT_BYTES: Final = 4096  # of what a command says that are kept for the reply; the rest is read and dropped
PIPE_REQUEST_BYTES: Final = 131_072  # of the macros' values for one command: under the kernel's limit of a datagram
PIPE_START_S: Final = 10.0  # for the launcher to take a request

# --- delivery, told and controlled by command ---
SUSPENDED_HOPS: Final = 10_000  # by command, in all: each worker keeps their names, about 1 MB
COLD_ROUNDS: Final = 16  # of one read, each for what the one before could not see; then it waits for the disk
COLD_READERS: Final = 8  # threads of a worker that wait for the disk: a queue of eight keeps one busy
ACTS_AT_ONCE: Final = 16  # of administrators, and of everybody, in one worker: each may hold a page of rows
HOPS_TOLD: Final = 50  # of one worker's answer, so that it fits into a message of its channel
HOP_REASON_BYTES: Final = 200  # of a hop's last trouble in such an answer

# --- POP3 ---
POP3_COMMAND_BYTES: Final = 1024  # a command line with CRLF; RFC 2449 §4 allows 255, passwords may be longer
POP3_SASL_LINE_BYTES: Final = 12_290  # a base64 line of AUTH; RFC 4954 §4
POP3_WAITING_BYTES: Final = 16_384  # pipelined input kept while a reply is under way; then reading pauses
POP3_BAD_COMMANDS: Final = 20  # in a row, then the connection ends; Dovecot's figure
POP3_LOGIN_ATTEMPTS: Final = 3  # failed ones of a connection
POP3_LOGIN_TIMEOUT_S: Final = 60.0  # a connection without a login, in all
POP3_IDLE_TIMEOUT_S: Final = 600.0  # RFC 1939 §3: at least 10 minutes
POP3_TRANSFER_TIMEOUT_S: Final = 300.0  # without progress of a response that the peer should read
POP3_BLOCK_BYTES: Final = 65_536  # of a message or listing read at a time
POP3_LISTING_LINES: Final = 500  # of LIST or UIDL made at a time, about half a millisecond
POP3_UPDATED_MESSAGES: Final = 500  # deleted or marked at a time by QUIT
POP3_ENDS_CHECKED: Final = 200  # message ends looked at in one go at login, about a millisecond
POP3_ENDS_REMEMBERED: Final = 1000  # maildrops of which a worker knows which messages lack a final CRLF

# --- the store ---
DAMAGED_PLACES: Final = 200  # that a worker names in the log, each once; then it only counts

# --- the sendmail command ---
SENDMAIL_HEADER_BYTES: Final = 2 * 2**20  # Postfix's header_size_limit is 100 kB a field; this is of the whole header
SENDMAIL_RECIPIENTS: Final = 50_000  # of one call, command line and -t together

# --- the spool of local mail ---
POSTED_AT_ONCE: Final = (
    1000  # recipients of one unit of a message with more: a megabyte, some milliseconds of the committer
)
SPOOL_NAME_DIGITS: Final = 32  # of a file's name: 128 bits of chance, so that no other user finds it
SPOOL_LINE_BYTES: Final = 65_536  # of one line of the envelope; an address of -t may be as long as its field
SPOOL_ENTRIES_A_TURN: Final = 1000  # names of the directory looked at before others get their turn, about 1 ms
SPOOL_AT_ONCE: Final = 16  # messages picked up side by side: their commits share a transaction
SPOOL_WAKE_S: Final = 0.01  # between two looks for which local users ask; unasked once a second
SPOOL_ABANDONED_S: Final = 86_400.0  # after which an unfinished file is one that its writer will not finish
SPOOL_RETRY_S: Final = 60.0  # before a file that failed unexpectedly is tried again
SPOOL_FAILED: Final = 1000  # such files remembered
PUBLIC_CLIENTS: Final = 16  # local users who ask for the queue, or have it flushed, at one time
PUBLIC_CLIENTS_OF_USER: Final = 4  # and of one user
PUBLIC_REQUEST_BYTES: Final = 4096
PUBLIC_REQUEST_S: Final = 5.0  # to send it
QUEUE_LISTED_AT_ONCE: Final = 100  # recipients read before others get their turn, about 1 ms
