# One kind of event, whoever lets it happen. Compiled, since there is one for each recipient of each attempt.

@cython.final
cdef class Event:
    """One thing that happened to one recipient. A message's acceptance is told for all its recipients at once, and what
    an administrator does to many as model.events.Moves.
    """

    def __init__(self, str happened not None, str transport not None, uint64_t queue_id, bytes recipient not None,
                 str next_hop not None, str relay not None="none", double delay_s=0.0, str dsn not None="",
                 str reply not None="", bytes original not None=b"", bytes mailbox not None=b"", *,
                 double took_s=-1.0, str tls not None=""):
        self.happened = happened
        self.transport = transport
        self.queue_id = queue_id
        self.recipient = recipient
        self.next_hop = next_hop
        self.relay = relay
        self.delay_s = delay_s
        self.dsn = dsn
        self.reply = reply
        self.original = original
        self.mailbox = mailbox
        self.took_s = took_s
        self.tls = tls
