"""Servers with personalities: a `Place` is an ordinary one with habits, each drawn by a seed."""

import asyncio
import zlib

from fastmta.runtime.launching import Ended
from fastmta.simulation.server import Answer, Site
from tests.simulation.ledger import Taken

OK = Answer(b"250 2.0.0 Ok\r\n")


class Place(Site):
    """`habits` are names of methods' conditions below with their figures; a place without any takes everything."""

    def __init__(self, name, ledger, chance, time, habits, *, speaks_lmtp=False, **link):
        super().__init__(name, **link)
        self.speaks_lmtp = speaks_lmtp
        self.ledger = ledger
        self.chance = chance
        self.time = time
        self.habits = habits
        self.first_seen = {}
        self.minutes = {}
        self.numbered = 0
        self.dials = []
        self.domain = None

    def __contains__(self, habit):
        return habit in self.habits

    def within(self, habit):
        """Whether one of the times (from, to) of a habit is now."""
        now = self.time()
        return any(begin <= now < end for begin, end in self.habits.get(habit, ()))

    def happens(self, habit):
        return self.chance.random() < self.habits.get(habit, 0.0)

    def think(self, answer):
        slow = self.habits.get("slow", 0.0)
        return answer._replace(after_s=answer.after_s + self.chance.uniform(0, slow)) if slow else answer

    # --- connections ---

    def opened(self, session):
        super().opened(session)
        self.domain.counted()

    def admit(self, now):
        self.dials.append(now)
        if self.within("refuses"):
            raise ConnectionRefusedError(111, "Connection refused")
        if self.within("silent"):
            raise TimeoutError
        return self.latency_s

    def greeting(self, session):
        self.numbered += 1
        session.number = self.numbered
        session.begun = 0
        if len(self.open) > self.habits.get("most", 1000):
            return Answer(b"421 4.7.0 Too many concurrent connections\r\n", then="close")
        if self.within("greets with 4"):
            return Answer(b"450 4.3.2 Not now\r\n", then="close")
        if self.within("greets with 5"):
            return Answer(b"554 5.3.2 No service here\r\n", then="close")
        if self.within("mute"):
            return Answer(b"")
        if self.happens("drops at greeting"):
            return Answer(b"", then="reset")
        return self.think(super().greeting(session))

    def hello(self, session):
        words = [self.name.encode()]
        if "no pipelining" not in self:
            words.append(b"PIPELINING")
        if "chunking" in self:
            words.append(b"CHUNKING")
        if "dsn" in self:
            words.append(b"DSN")
        if self.offers_tls(session):
            words.append(b"STARTTLS")
        lines = [b"250-%b\r\n" % word for word in words[:-1]]
        return self.think(Answer(b"".join([*lines, b"250 %b\r\n" % words[-1]])))

    # --- TLS ---

    def offers_tls(self, session):
        return "starttls" in self and not session.is_secure and not self.within("stripped")

    def starttls(self, session):
        if not self.offers_tls(session) or self.happens("refuses tls"):
            return Answer(b"454 4.7.0 TLS not available\r\n")
        return self.think(Answer(b"220 2.0.0 Go ahead\r\n"))

    def shakes(self, session, ticket):
        if self.within("tls fails"):
            return "fails", False
        if self.happens("tls drops"):
            return "drops", False
        if self.within("tls stalls"):
            return "stalls", False
        return "", ticket is not None and not self.happens("forgets sessions")

    # --- transactions ---

    def mail(self, session):
        session.begun += 1
        session.asked = 0
        if session.begun > self.habits.get("messages a connection", 1000):
            return Answer(b"421 4.7.0 Enough for one connection\r\n", then="close")
        now = self.time()
        rate = self.habits.get("messages a minute")
        minute = int(now // 60)
        if rate and self.minutes.get(minute, 0) >= rate:
            return Answer(b"451 4.7.0 Too many messages from your address, slow down\r\n")
        if self.within("storm") and self.happens("storm of"):
            return Answer(b"451 4.3.0 Try again later\r\n")
        self.minutes[minute] = self.minutes.get(minute, 0) + 1
        session.transaction = [now, session.number, 0, 0]
        self.ledger.transactions[self.name].append(session.transaction)
        return self.think(OK)

    def rcpt(self, session, path):
        now = self.time()
        self.ledger.asked[path].append(now)
        session.asked += 1
        if zlib.crc32(path) % 100 < self.habits.get("dead addresses", 0):
            self.ledger.refused[path].append("5.1.1")
            return Answer(b"550 5.1.1 User unknown\r\n")
        if len(session.recipients) >= self.habits.get("recipients", 1000):
            return Answer(b"452 4.5.3 Too many recipients\r\n")
        if self.within("storm") and self.happens("storm of"):
            return Answer(b"450 4.2.0 Mailbox busy\r\n")
        wait_s, hint = self.habits.get("greylist", (0, ""))
        first = self.first_seen.setdefault((session.sender, path), now)
        if wait_s and now - first < wait_s:
            return Answer(b"451 4.7.1 Greylisted" + hint.encode() + b"\r\n")
        if self.happens("421 at rcpt"):
            return Answer(b"421 4.3.2 Shutting down\r\n", then="close")
        return self.think(OK)

    def data(self, session):
        session.transaction[2] = len(session.recipients)
        if self.happens("refuses data"):
            return Answer(b"451 4.3.0 Not now\r\n")
        return self.think(super().data(session))

    def cuts_data(self, session):
        return Answer(b"", then="reset") if self.happens("reset in data") else None

    def message(self, session):
        session.transaction[2:] = [max(session.transaction[2], len(session.recipients)), 1]
        if self.happens("defers the dot"):
            return Answer(b"451 4.3.0 Cannot queue it\r\n")
        if self.happens("refuses the dot"):
            for path in session.recipients:
                self.ledger.refused[path].append("5.7.1")
            return Answer(b"554 5.7.1 Content refused\r\n")
        if self.happens("drops after the dot"):  # having taken it
            return Answer(b"250 2.0.0 Ok\r\n", then="reset")
        if self.happens("loses at the dot"):  # having taken nothing
            return Answer(b"", then="reset")
        if self.happens("sleeps after the dot"):
            return Answer(b"250 2.0.0 Ok\r\n", 700.0)
        return self.think(Answer(b"250 2.0.0 Ok: queued\r\n"))

    def took(self, session):
        heard = []
        now = self.time()
        for path in session.recipients:
            self.ledger.taken[path].append(Taken(now, self.name, heard, session.is_secure))
        if b"report-type" in session.body:
            self.ledger.bodies.append((bytes(session.recipients[0]), bytes(session.body)))
        return heard.append


class Program:
    """A command of a pipe, as the launcher runs it. `habits`: the shares of runs that end so, and their time."""

    name = "a command"

    def __init__(self, ledger, chance, habits):
        self.ledger = ledger
        self.chance = chance
        self.habits = habits
        self.at_once = self.most_at_once = 0

    async def run(self, request, fd):
        loop = asyncio.get_running_loop()
        paths = [each["recipient"].encode() for each in request.recipients]
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.chance.uniform(0.01, self.habits.get("slow", 0.05)))
            drawn = self.chance.random()
            for habit, ended in ENDS.items():
                drawn -= self.habits.get(habit, 0.0)
                if drawn < 0:
                    if ended.status in (64, 67):
                        for path in paths:
                            self.ledger.refused[path].append("5.1.1")
                    return ended
            heard = []
            for path in paths:
                self.ledger.taken[path].append(Taken(loop.time(), self.name, heard))
            await asyncio.sleep(self.habits.get("lingers", 0.0))  # a kill or a cancellation may come now
            heard.append(True)
            return Ended(0)
        finally:
            self.at_once -= 1


class Programs:
    """The launcher: runs the program of a domain's pipe."""

    def __init__(self, domains):
        self._by_name = {domain.name: domain.program for domain in domains if domain.program is not None}

    async def run(self, request, fd):
        return await self._by_name[request.common["nexthop"]].run(request, fd)


ENDS = {
    "defers": Ended(75, output=b"try again"),
    "refuses": Ended(67, output=b"nobody here"),
    "misused": Ended(64),
    "crashes": Ended(-11),
    "cannot start": Ended(error="No such file or directory"),
}
