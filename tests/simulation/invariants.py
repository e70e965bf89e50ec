"""What must be true of a simulated world in the end, whatever its seed: `broken` names what is not."""

import itertools
import json
import math
import re
from collections import Counter, defaultdict
from datetime import datetime

from fastmta.model.envelope import NOTIFY_FAILURE, NOTIFY_NEVER, NOTIFY_SUCCESS

_ENDS = {"delivery.delivered", "delivery.bounced", "delivery.recovered"}
# What may be said of a recipient that no server has refused: our own words for it.
_OWN_REASONS = re.compile(r"does not accept mail|not found|has an address|loops back|has no mail exchanger")


class Course:
    """What the program has told of each recipient."""

    def __init__(self, world):
        self.world = world
        self.events = defaultdict(list)
        self.errors = []
        self.notified = []
        self.dropped = []
        for raw in world.lines:
            for one in raw.splitlines():
                line = json.loads(one)
                event = line["event"]
                if line["level"] == "error" and not (event == "delivery.pipe_failed" and b"No such file" in one):
                    self.errors.append(one[:500])
                elif event in _ENDS or event == "delivery.deferred":
                    line["time"] = datetime.fromisoformat(line["at"]).timestamp()
                    self.events[line["recipient"].encode()].append(line)
                elif event == "delivery.notified":
                    self.notified.append(line)
                elif event == "delivery.bounce_dropped":
                    self.dropped.append(line)

    def ends(self, path):
        return [line for line in self.events[path] if line["event"] in _ENDS]


def broken(world):
    """Every invariant that does not hold, a line each."""
    course = Course(world)
    return [
        *(f"the loop: {text[:400]}" for text in world.unhandled),
        *(f"the log: {line.decode()}" for line in course.errors),
        *nothing_lost(world, course),
        *no_bounce_without_cause(world, course),
        *nothing_twice(world, course),
        *reports(world, course),
        *never_in_plain_text(world),
        *limits(world),
        *no_starvation(world, course),
        *no_storm(world, course),
        *nothing_left_open(world),
    ]


def was(world, *whats):
    return any(what in whats for _, what, _ in world.disturbed)


def nothing_lost(world, course):
    """Each recipient ends once, as delivered or bounced, and what is called delivered a server has taken."""
    for message, row in world.left:
        yield f"left in the queue: {row.tail.forward_path} of {message.queue_id}, {row.last_reply}"
    for path in world.sent:
        ends = [line["event"] for line in course.ends(path)]
        if len(ends) != 1 and not (ends and was(world, "kill")):
            yield f"{path} ended {len(ends)} times: {ends}"
        if "delivery.delivered" in ends and not world.ledger.taken[path]:
            yield f"{path} is called delivered, and nobody has it"
        if not ends and not world.ledger.taken[path] and not was(world, "kill"):
            yield f"{path} is lost"
    if was(world, "kill"):
        for path in world.sent:
            if not course.ends(path) and not world.ledger.taken[path]:
                yield f"{path} is lost by a kill"


def no_bounce_without_cause(world, course):
    delivery = world.config.delivery
    for path, sent in world.sent.items():
        for line in course.ends(path):
            if line["event"] != "delivery.bounced" or world.ledger.refused[path]:
                continue
            reply = line["reply"]
            lifetime_s = delivery.maximal_queue_lifetime if sent[0] else delivery.bounce_queue_lifetime
            if reply.startswith("5") and _OWN_REASONS.search(reply) and _dns_of(world, path):
                continue
            if line["delay"] < lifetime_s:
                yield f"{path} bounced after {line['delay']:.0f} s: {reply}"


def _dns_of(world, path):
    name = path.rpartition(b"@")[2].decode()
    return next(domain.trouble for domain in world.domains if domain.name == name)


def nothing_twice(world, course):
    for path, taken in world.ledger.taken.items():
        if path not in world.sent:
            continue
        unheard = sum(not (each.heard and each.heard[0]) for each in taken)
        if len(taken) > 1 + unheard:
            success = world.sent[path][2] & NOTIFY_SUCCESS
            if not (success and was(world, "kill")):  # then the report is worth more than a duplicate
                yield f"{path} was delivered {len(taken)} times, with {unheard} lost answers"
        bounced = any(line["event"] == "delivery.bounced" for line in course.ends(path))
        if bounced and len(taken) > unheard:
            yield f"{path} bounced, and a server has it"


def reports(world, course):
    """Who is owed a report of failure gets one that names the recipient, or it is said why not."""
    told = Counter()
    for text in [*world.mailbox, *(body for _, body in world.ledger.bodies)]:
        if b"Action: failed" in text and b"Subject: Postmaster" not in text:
            for path in set(re.findall(rb"Final-Recipient: rfc822; ?(\S+)", text)):
                told[path] += 1
    for path, (sender, _, notify, *_) in world.sent.items():
        bounced = [line for line in course.ends(path) if line["event"] == "delivery.bounced"]
        owed = bool(sender) and not notify & NOTIFY_NEVER and (not notify or notify & NOTIFY_FAILURE)
        local = sender.endswith("@home.test")
        if bounced and owed and local and not told[path]:
            yield f"{path} bounced, and {sender} was not told"
        if bounced and not owed and told[path] and sender:
            yield f"{path} bounced, and {sender} did not want to know"
        if local and told[path] > max(1, len(bounced)) and not was(world, "kill"):
            yield f"{sender} was told {told[path]} times of {path}"


def never_in_plain_text(world):
    """Where a policy asks for TLS, no server is given a message without it, whatever it offers or says."""
    strict = {domain.name.encode() for domain in world.domains if domain.needs_tls}
    for path, taken in world.ledger.taken.items():
        if path.rpartition(b"@")[2] in strict and not all(each.secure for each in taken):
            yield f"{path} went to {taken[0].site} in plain text"


def limits(world):
    delivery = world.config.delivery
    at_once = max(delivery.smtp_destination_concurrency_limit, 20 if was(world, "reload") else 1)
    for domain in world.domains:
        most = domain.most_open
        if most > at_once:
            yield f"{domain.name}: {most} connections, {at_once} allowed"
        if domain.program is not None and domain.program.most_at_once > 3:
            yield f"{domain.name}: {domain.program.most_at_once} commands at once"
    recipients = delivery.smtp_destination_recipient_limit
    for name, transactions in world.ledger.transactions.items():
        most = max((each[2] for each in transactions), default=0)
        if most > recipients:
            yield f"{name}: {most} recipients in a transaction, {recipients} allowed"
        a_connection = Counter(each[1] for each in transactions if each[3])
        if max(a_connection.values(), default=0) > 100:
            yield f"{name}: {max(a_connection.values())} messages in a connection"
    yield from _pauses(world)
    yield from _rules(world)


def _begun(world, names):
    """When messages were begun at the hosts of some domains, in order."""
    hosts = {place.name for domain in world.domains if domain.name in names for place in domain.places}
    return sorted(each[0] for host in hosts for each in world.ledger.transactions[host])


def _latency_s(world):
    return max((place.latency_s for domain in world.domains for place in domain.places), default=0)


def _pauses(world):
    delay_s = world.config.delivery.smtp_destination_rate_delay
    if not delay_s or was(world, "kill"):
        return
    for domain in world.domains:
        if domain.addresses > 1:  # a delivery may try several
            continue
        times = _begun(world, [domain.name])
        short = [b - a for a, b in itertools.pairwise(times) if b - a < delay_s - _latency_s(world)]
        if short:
            yield f"{domain.name}: {short[0]:.3f} s between two messages, {delay_s} wanted"


def _rules(world):
    for rule in world.config.shaping:
        # What a route leads elsewhere is of no domain and no exchanger.
        routed = {domain.name for domain in world.domains if domain.transport != "smtp"}
        names = [name for name in (each.lstrip(".") for each in rule.domain + rule.mx) if name not in routed]
        groups = [names] if rule.per == "rule" else [[name] for name in names]
        for group in groups if names else ():
            times = _begun(world, group)
            # A message is counted before it connects, so servers see it later by what that takes.
            smear_s = 6 * _latency_s(world) + 3 * max(_slowness(world, name) for name in group)
            for limit, window_s, windows in ((rule.messages_per_second, 1, 100), (rule.messages_per_hour, 3600, 1)):
                most = _most_within(times, window_s * windows)
                allowed = limit * (windows + 1 + math.ceil(smear_s / window_s))
                if limit and most > allowed and not was(world, "kill"):
                    yield f"{group}: {most} messages in {windows} times {window_s} s, {limit} allowed in each"
            hosts = [place for domain in world.domains if domain.name in group for place in domain.places]
            for place in hosts:
                transactions = world.ledger.transactions[place.name]
                most = max(Counter(each[1] for each in transactions if each[3]).values(), default=0)
                if rule.messages_per_connection and most > rule.messages_per_connection:
                    yield f"{place.name}: {most} messages in a connection, {rule.messages_per_connection} allowed"
                most = max((each[2] for each in transactions), default=0)
                if rule.domain and rule.recipients_per_message and most > rule.recipients_per_message:
                    yield f"{place.name}: {most} recipients, {rule.recipients_per_message} allowed"
        if rule.concurrency and rule.domain:
            for domain in world.domains:
                if domain.name in names and domain.most_open > rule.concurrency:
                    yield f"{domain.name}: {domain.most_open} connections, {rule.concurrency} allowed by its rule"


def _slowness(world, name):
    return max(
        (place.habits.get("slow", 0) for domain in world.domains if domain.name == name for place in domain.places),
        default=0,
    )


def _most_within(times, window_s):
    most, begin = 0, 0
    for end, at in enumerate(times):
        while at - times[begin] > window_s:
            begin += 1
        most = max(most, end - begin + 1)
    return most


def no_starvation(world, course):
    """A destination that is well gets its mail at once, whatever becomes of others; no recipient is forgotten."""
    delivery = world.config.delivery
    shaped = {name.lstrip(".") for rule in world.config.shaping for name in rule.domain + rule.mx}
    quiet = not was(world, "kill", "clock", "suspend", "hold", "move")
    for domain in world.domains:
        if not domain.is_healthy or domain.name in shaped or not quiet:
            continue
        mine = [path for path in world.sent if path.endswith(b"@" + domain.name.encode())]
        bound_s = 60 + len(mine) * (15 + delivery.smtp_destination_rate_delay)
        for path in mine:
            late = [line["delay"] for line in course.ends(path) if line["delay"] > bound_s]
            if late:
                yield f"{path} waited {late[0]:.0f} s for a server that is well"
    if was(world, "kill", "clock", "suspend", "hold"):
        return
    slack_s = 3 * 7200 if world.config.shaping or delivery.smtp_destination_rate_delay else 7200
    bound_s = delivery.maximal_backoff_time * 1.1 + delivery.minimal_backoff_time + slack_s
    for path, sent in world.sent.items():
        times = [sent[1], *(line["time"] for line in course.events[path])]
        gap = max((b - a for a, b in itertools.pairwise(times)), default=0)
        if gap > bound_s:
            yield f"{path} was forgotten for {gap:.0f} s"


def no_storm(world, course):
    """A recipient that was put off is left alone for the time of the retry rule."""
    if was(world, "flush", "release", "clock", "kill"):
        return
    least_s = world.config.delivery.minimal_backoff_time
    for path in world.sent:
        tries = [
            line
            for line in course.events[path]
            if line["event"] == "delivery.deferred" and "temporarily suspended" not in line["reply"]
        ]
        for a, b in itertools.pairwise(tries):
            asked_s = 60 if "1 minute" in a["reply"] else 300 if "300" in a["reply"] else least_s
            if b["time"] - a["time"] < min(asked_s, least_s) - 0.51:  # it is told when it is committed
                yield f"{path} was tried again after {b['time'] - a['time']:.1f} s"
    for domain in world.domains:
        for place in domain.places:
            dials = place.dials
            if "refuses" not in place.habits or not dials:
                continue
            refused = [at for at in dials if any(begin <= at < end for begin, end in place.habits["refuses"])]
            most = _most_within(refused, least_s)
            bound = 2 * 2 * (world.config.delivery.smtp_destination_concurrency_limit + 5)
            if most > bound and world.config.delivery.smtp_destination_concurrency_failed_cohort_limit:
                yield f"{place.name}: {most} connections to a dead host in {least_s} s"


def nothing_left_open(world):
    status = world.parts.service.status()
    for name in ("connections", "in_flight", "unrecorded"):
        if status[name]:
            yield f"{status[name]} {name} left"
