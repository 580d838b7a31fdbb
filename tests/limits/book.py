"""What the sink wrote down."""

import bisect
import collections


class Book:
    """Read as far as it is written; times by source."""

    def __init__(self, path):
        self.path = path
        self.file = None
        self.rest = ""
        self.mail = collections.defaultdict(list)
        self.dots = collections.defaultdict(list)
        self.opened = collections.defaultdict(list)
        self.closed = collections.defaultdict(list)
        # (time, source, what)
        self.above = []
        # The most by which the sink read anything later than it came, of each second.
        self.late = []

    def read(self):
        """Takes in what is new."""
        if self.file is None:
            self.file = open(self.path)
        *lines, self.rest = (self.rest + self.file.read()).split("\n")
        for line in lines:
            what, time, source, *more = line.split()
            if what == "above":
                self.above.append((float(time), source, more[0]))
            elif what == "late":
                self.late.append(float(source))
            else:
                events = {"mail": self.mail, "dot": self.dots, "open": self.opened, "close": self.closed}
                # Dated when they came, written when they were read.
                bisect.insort(events[what][source], float(time))
        return self


def used(times, count, seconds, since):
    """The part of a limit that was used since a time: so many times `count` uses can't take less than so many windows."""
    times = times[bisect.bisect_left(times, since):]
    whole = (len(times) - 1) // count if times else 0
    if whole < 1:
        return None
    return whole * seconds / (times[whole * count] - times[0])


def fullest(times, seconds):
    """The most uses in any window of the length."""
    most = first = 0
    for last, time in enumerate(times):
        while time - times[first] >= seconds:
            first += 1
        most = max(most, last + 1 - first)
    return most


def open_at_once(opened, closed, since, until, read_within):
    """The most connections at a time, and their mean within a span. A close is written when it was read: before any
    connection that came that long before it is counted."""
    events = sorted([(time + read_within, 1) for time in opened] + [(time, -1) for time in closed])
    count = most = 0
    area, last = 0.0, since
    for time, change in events:
        within = min(max(time, since), until)
        area += count * (within - last)
        last = within
        count += change
        most = max(most, count)
    area += count * (until - last)
    return most, area / (until - since)
