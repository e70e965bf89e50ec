# What accounts, and mailboxes of a name, may hold: an account's own quota, else what the quota rules say (Dovecot's).
#
# The rules lie in `meta`, so that an operation is a function of the state, and every process has the same. An account's own
# limit comes first, where it is not 0; a rule for a mailbox's name adds to it, or says that the mailbox is not counted at all.

cdef extern from *:
    """
    #define NO_QUOTA UINT64_MAX
    #define NO_QUOTA_MESSAGES UINT32_MAX
    """
    const uint64_t NO_QUOTA
    const uint32_t NO_QUOTA_MESSAGES

cdef enum QuotaKind:  # bits of QuotaRule
    QUOTA_IGNORE = 1
    QUOTA_PERCENT = 2  # `bytes` is a part of the account's limit
    QUOTA_PERCENT_MESSAGES = 4

cdef struct Limits:  # 0: none
    uint64_t bytes
    uint64_t messages
    bint ignored


cdef void k_quota_rules(Key* k) noexcept nogil:
    k_start(k, T_META)
    k_bytes(k, b"quota_rules", 11)


cdef bint name_fits(const char* mask, size_t m, const char* name, size_t n) noexcept nogil:
    """Whether a name is as a mask has it: `*` is any text, `?` any octet."""
    cdef size_t i = 0, j = 0, star = m, mark = 0
    while j < n:
        if i < m and mask[i] == c'*':
            star = i
            mark = j
            i += 1
        elif i < m and (mask[i] == c'?' or mask[i] == name[j]):
            i += 1
            j += 1
        elif star < m:
            i = star + 1
            mark += 1
            j = mark
        else:
            return False
    while i < m and mask[i] == c'*':
        i += 1
    return i == m


cdef const QuotaRule* next_rule(const Buffer* rules, size_t* at) noexcept nogil:
    """The rule that begins there, and `at` behind it; NULL where there is none."""
    cdef const QuotaRule* rule = <const QuotaRule*>(rules.data + at[0])
    if at[0] + sizeof(rule[0]) > rules.length or at[0] + sizeof(rule[0]) + rule.name_length > rules.length:
        return NULL
    at[0] += sizeof(rule[0]) + rule.name_length
    return rule


cdef const QuotaRule* rule_of(const Buffer* rules, const char* name, size_t n) noexcept nogil:
    """The first rule for a mailbox of that name, which is the one that holds; NULL where there is none."""
    cdef const QuotaRule* rule
    cdef size_t at = sizeof(QuotaRules)
    while True:
        rule = next_rule(rules, &at)
        if rule == NULL or name_fits(<const char*>rule + sizeof(rule[0]), rule.name_length, name, n):
            return rule


cdef const QuotaRule* next_uncounted(const Buffer* rules, size_t* at) noexcept nogil:
    """The next rule by which a mailbox is not counted, which has its name."""
    cdef const QuotaRule* rule
    while True:
        rule = next_rule(rules, at)
        if rule == NULL or (rule.kind & QUOTA_IGNORE
                            and rule_of(rules, <const char*>rule + sizeof(rule[0]), rule.name_length) == rule):
            return rule


cdef inline uint64_t changed_limit(uint64_t limit, int64_t by, bint percent) noexcept nogil:
    if limit == 0:
        return 0
    if percent:
        by = <int64_t>(limit // 100) * by + <int64_t>(limit % 100) * by // 100
    if by < 0:
        return limit - <uint64_t>-by if <uint64_t>-by < limit else 1  # as good as nothing: 0 would be no limit
    return limit + <uint64_t>by


cdef Limits limits_of(const UsageRecord* usage, const Buffer* rules, const char* name, size_t n) noexcept nogil:
    """What an account may hold when something comes into its mailbox of that name; n 0: into none."""
    cdef Limits limits
    cdef const QuotaRules* head = <const QuotaRules*>rules.data
    cdef const QuotaRule* rule
    cdef bint ruled = rules.length >= sizeof(QuotaRules) and head.format == FORMAT
    limits.ignored = False
    limits.bytes = usage.quota if usage.quota else head.bytes if ruled else 0
    limits.messages = usage.quota_messages if usage.quota_messages else head.messages if ruled else 0
    limits.bytes = 0 if limits.bytes == NO_QUOTA else limits.bytes
    limits.messages = 0 if limits.messages == NO_QUOTA_MESSAGES else limits.messages
    if not ruled or n == 0 or (limits.bytes == 0 and limits.messages == 0):
        return limits
    rule = rule_of(rules, name, n)
    if rule == NULL:
        return limits
    if rule.kind & QUOTA_IGNORE:
        limits.ignored = True
        limits.bytes = limits.messages = 0
    else:
        limits.bytes = changed_limit(limits.bytes, rule.bytes, rule.kind & QUOTA_PERCENT)
        limits.messages = changed_limit(limits.messages, rule.messages, rule.kind & QUOTA_PERCENT_MESSAGES)
    return limits


cdef int load_quota_rules(Txn* t) noexcept nogil:
    cdef MDB_val value
    cdef Key k
    cdef int rc
    k_quota_rules(&k)
    rc = t_get(t, &k, &value)
    if rc < 0:
        return rc
    t.s.quota_rules.length = 0
    if rc == DONE and buffer_add(&t.s.quota_rules, value.mv_data, value.mv_size) < 0:
        return poison(t, ENOMEM)
    return DONE


cdef int counted_usage(Txn* t, uint64_t account_id, UsageRecord* usage) noexcept nogil:
    """Takes from an account's usage what lies in mailboxes that are not counted."""
    cdef const QuotaRule* rule
    cdef MailboxRecord box
    cdef MDB_val value
    cdef Key k
    cdef size_t at = sizeof(QuotaRules)
    cdef uint64_t mailbox_id
    cdef int rc
    while True:
        rule = next_uncounted(&t.s.quota_rules, &at)
        if rule == NULL:
            return DONE
        k_mailbox_name(&k, account_id, <const char*>rule + sizeof(rule[0]), rule.name_length)
        rc = t_get(t, &k, &value)
        if rc == DONE:
            memcpy(&mailbox_id, value.mv_data, 8)
            rc = mailbox_get(t, mailbox_id, &box)
        if rc == DONE:
            usage.bytes -= box.size if box.size < usage.bytes else usage.bytes
            usage.messages -= box.exists if box.exists < usage.messages else usage.messages
        elif rc < 0:
            return rc


cdef int quota_allows(Txn* t, uint64_t account_id, uint64_t mailbox_id, const UsageRecord* usage, int64_t size,
                      int64_t messages) noexcept nogil:
    """DONE, or REFUSE_QUOTA where so much more in this mailbox would pass a limit."""
    cdef UsageRecord counted = usage[0]
    cdef Limits limits
    cdef MailboxRecord* box
    cdef MDB_val value
    cdef Key k
    cdef int rc
    limits = limits_of(usage, &t.s.quota_rules, NULL, 0)
    if limits.bytes == 0 and limits.messages == 0:
        return DONE
    if t.s.quota_rules.length > sizeof(QuotaRules):
        k_id(&k, T_MAILBOX, mailbox_id)
        rc = t_get(t, &k, &value)
        if rc:
            return rc
        box = <MailboxRecord*>value.mv_data
        limits = limits_of(usage, &t.s.quota_rules, <char*>box + sizeof(box[0]), box.name_length)
        rc = DONE if limits.ignored else counted_usage(t, account_id, &counted)
        if rc:
            return rc
    if ((limits.bytes and counted.bytes + size > limits.bytes)
            or (limits.messages and counted.messages + messages > limits.messages)):
        return REFUSE_QUOTA
    return DONE


def quota_fields(Store store not None, uint64_t account_id, uint64_t mailbox_id=0):
    """(octets, messages, limit of octets, limit of messages) of an account, as they are for what comes into this mailbox
    (0: into one without a rule); a limit of 0 is none. What lies in mailboxes that are not counted is not among them.
    """
    cdef Reading reading = Reading(store)
    cdef Buffer rules
    cdef UsageRecord usage
    cdef Limits limits
    cdef const QuotaRule* rule
    cdef MailboxRecord* box
    cdef MDB_val value
    cdef Key k
    cdef size_t at = sizeof(QuotaRules)
    cdef uint64_t number
    cdef bytes name = b""
    memset(&rules, 0, sizeof(rules))
    memset(&usage, 0, sizeof(usage))
    k_id(&k, T_USAGE, account_id)
    if reading.get(&k, &value):
        memcpy(&usage, value.mv_data, value.mv_size)
    k_quota_rules(&k)
    kept = value_bytes(&value) if reading.get(&k, &value) else b""
    rules.data = <char*>kept
    rules.length = len(kept)
    if mailbox_id and rules.length > sizeof(QuotaRules):
        k_id(&k, T_MAILBOX, mailbox_id)
        if reading.get(&k, &value):
            box = <MailboxRecord*>value.mv_data
            name = (<char*>box + sizeof(box[0]))[: box.name_length]
    limits = limits_of(&usage, &rules, <char*>name, len(name))
    while not limits.ignored and (limits.bytes or limits.messages):
        rule = next_uncounted(&rules, &at)
        if rule == NULL:
            break
        k_mailbox_name(&k, account_id, <const char*>rule + sizeof(rule[0]), rule.name_length)
        if reading.get(&k, &value):
            memcpy(&number, value.mv_data, 8)
            k_id(&k, T_MAILBOX, number)
            if reading.get(&k, &value):
                box = <MailboxRecord*>value.mv_data
                usage.bytes -= min(box.size, usage.bytes)
                usage.messages -= min(<uint64_t>box.exists, usage.messages)
    return usage.bytes, usage.messages, limits.bytes, limits.messages
