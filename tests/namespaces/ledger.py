"""The two sides of the story, clients' and MX hosts', and whether they agree; whether limits held."""

import bisect
import collections
from dataclasses import dataclass, field

# Windows in which the rate is judged, seconds.
WINDOWS = (1, 5, 20, 60)


@dataclass
class Book:
    """What an MX host wrote down."""

    # (time, try, kind, state)
    arrivals: list = field(default_factory=list)
    # (time, +1 or -1, peer), of connections.
    changes: list = field(default_factory=list)

    @classmethod
    def read(cls, path):
        book, peers = cls(), {}
        for line in path.read_text().splitlines(keepends=True):
            if not line.endswith("\n"):
                break
            kind, time, connection, *rest = line.split()
            if kind == "open":
                peers[connection] = rest[0]
                book.changes.append((float(time), 1, rest[0]))
            elif kind == "close":
                book.changes.append((float(time), -1, peers[connection]))
            else:
                book.arrivals.append((float(time), rest[1], rest[0], rest[3]))
        return book

    def most_connections(self, excused):
        """(most open at once outside of the times excused, most at any time). `excused`: [(from, to)]."""
        open_now = strict = peak = 0
        since = None
        for time, change, _ in [*self.changes, (float("inf"), 0, "")]:
            # What was open from `since` to now counts outside if any of that time is outside.
            if since is not None and not covered(excused, since, time):
                strict = max(strict, open_now)
            open_now += change
            peak = max(peak, open_now)
            since = time
        return strict, peak

    def fullest_windows(self):
        """{seconds: the largest number of messages that came within so long}."""
        times = sorted(time for time, _, kind, _ in self.arrivals if kind == "message")
        return {
            seconds: max((bisect.bisect_left(times, time + seconds) - at for at, time in enumerate(times)), default=0)
            for seconds in WINDOWS
        }

    def busiest_rate(self, seconds):
        """Messages a second in the fullest window of that length: whether a limit was ever felt."""
        times = sorted(time for time, _, kind, _ in self.arrivals if kind == "message")
        fullest = max((bisect.bisect_left(times, t + seconds) - at for at, t in enumerate(times)), default=0)
        return fullest / seconds


def covered(excused, since, until):
    return any(start <= since and until <= end for start, end in excused)


class Balance:
    """What became of every try. Counted per message, each of which has one recipient."""

    def __init__(self, outcomes, recipients, books):
        self.deliveries, self.dsns, self.wrong = collections.Counter(), collections.Counter(), collections.Counter()
        for book in books:
            for _, name, kind, state in book.arrivals:
                (self.dsns if kind == "dsn" else self.deliveries)[name] += 1
                if state != "ok":
                    self.wrong[state] += 1
        by_outcome = collections.defaultdict(list)
        for name, (outcome, _) in outcomes.items():
            by_outcome[outcome].append(name)
        here = lambda name: self.deliveries[name] + self.dsns[name] > 0
        self.accepted = by_outcome["accepted"]
        self.delivered = sum(1 for name in self.accepted if self.deliveries[name])
        self.bounced = sum(1 for name in self.accepted if self.dsns[name] and not self.deliveries[name])
        self.missing = [name for name in self.accepted if not here(name)]
        # Both a delivery and a notification that there was none.
        self.contradicted = [name for name in outcomes if self.deliveries[name] and self.dsns[name]]
        self.unknown = by_outcome["unknown"] + by_outcome["deferred"]
        self.unknown_arrived = sum(1 for name in self.unknown if here(name))
        self.refused = len(by_outcome["refused"])
        self.refused_arrived = [name for name in by_outcome["refused"] if here(name)]
        # Of one try: what the clients sent twice is not in here.
        self.repeated = [name for name, times in self.deliveries.items() if times > 1]
        self.duplicates = sum(self.deliveries[name] - 1 for name in self.repeated)
        self.duplicate_dsns = sum(times - 1 for times in self.dsns.values() if times > 1)
        self.strangers = [name for name in (*self.deliveries, *self.dsns) if name not in recipients]
        self.message_ids = {name: found for name, (_, found) in outcomes.items() if found}

    def not_in_doubt(self, in_doubt):
        """Messages that came twice although no attempt of theirs was in doubt, as far as their id is known."""
        return [name for name in self.repeated
                if name in self.message_ids and self.message_ids[name] not in in_doubt]
