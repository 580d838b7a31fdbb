"""An MX host that enforces limits per source address: python sink.py ADDRESS PORT LIMITS BOOK

LIMITS is a JSON file: {source address: {"messages": [[count, seconds], …], "opened": [[count, seconds], …],
"connections": count, "delay": seconds, "uneven": seconds}}. A connection above a limit gets 421 for its banner, a message
above one gets 421 for its MAIL, or for its final dot: windows count both, each by itself. `delay` is how long the reply
to the content takes. The windows slide, shorter by `uneven`.

What comes is dated when it came to this machine's socket, not when this program got to read it, which on a busy machine
is later, and later by different times: octets by the kernel's time stamp of their arrival, connections by how long ago
their handshake was (in steps of 4 ms).

Lines of BOOK, with the time in seconds of the machine's monotonic clock:

    open TIME SOURCE
    close TIME SOURCE
    mail TIME SOURCE            MAIL accepted
    dot TIME SOURCE             message accepted
    above TIME SOURCE WHAT      refused: messages, dots, opened or connections
    late TIME SECONDS           the most by which anything was read later than it came, within a second
"""

import bisect
import heapq
import json
import selectors
import signal
import socket
import struct
import sys
import time

SO_TIMESTAMPNS = 35
LAST_ACK_RECEIVED = 56  # in struct tcp_info: when the handshake ended, as long as nothing else came; milliseconds ago
# Before a connection is judged, what has happened to others must have been read.
LOOK_AROUND = 0.01


class Window:
    """Uses within a time that slides."""

    def __init__(self, count, seconds, uneven):
        self.count, self.seconds = count, seconds - uneven
        self.times = []

    def takes(self, came):
        """Whether no window has more than it may with one more use, which may have come before others that were read."""
        place = bisect.bisect_right(self.times, came)
        times = self.times[max(0, place - self.count):place] + [came] + self.times[place:place + self.count]
        return all(last - first >= self.seconds for first, last in zip(times, times[self.count:]))

    def use(self, came):
        bisect.insort(self.times, came)
        if len(self.times) > 4 * self.count + 100:
            del self.times[:len(self.times) - 2 * self.count - 50]


class Source:
    """What came from one address."""

    def __init__(self, limits):
        uneven = limits.get("uneven", 0)

        def windows(name):
            return [Window(*window, uneven) for window in limits.get(name, [])]

        self.messages, self.dots, self.opened = windows("messages"), windows("messages"), windows("opened")
        self.most, self.delay = limits.get("connections", 1_000_000), limits.get("delay", 0)
        self.connections = 0


class Session:
    """One connection."""

    def __init__(self, host, connection, address, came):
        self.host, self.connection, self.address, self.came = host, connection, address, came
        self.buffer, self.in_content, self.is_open = b"", False, True
        self.source = host.source(address)
        # It counts from now on.
        self.source.connections += 1
        host.note("open", came, address)
        host.later(LOOK_AROUND, self.greet)

    def greet(self):
        if self.source.connections > self.source.most:
            return self.refuse("connections", self.came)
        if not self.use(self.source.opened, self.came):
            return self.refuse("opened", self.came)
        self.reply("220 mx.example ESMTP")

    @staticmethod
    def use(windows, came):
        if not all(window.takes(came) for window in windows):
            return False
        for window in windows:
            window.use(came)
        return True

    def refuse(self, what, came):
        self.host.note("above", came, self.address, what)
        self.reply(f"421 4.7.0 too many {what}")
        self.end()

    def reply(self, text):
        if not self.is_open:
            return
        try:
            # Replies are short and awaited: there is always room for one.
            self.connection.sendall(text.encode() + b"\r\n")
        except OSError:
            self.end()

    def read(self):
        try:
            data, ancillary, _, _ = self.connection.recvmsg(65536, 64)
        except BlockingIOError:
            return
        except OSError:
            return self.end()
        if not data:
            return self.end()
        came = self.host.arrival(ancillary)
        self.buffer += data
        while self.is_open:
            end = b"\r\n.\r\n" if self.in_content else b"\r\n"
            line, found, rest = self.buffer.partition(end)
            if not found:
                return
            self.buffer = rest
            if self.in_content:
                self.in_content = False
                self.dot(came)
            else:
                self.command(line.upper(), came)

    def command(self, line, came):
        if line.startswith((b"EHLO", b"HELO")):
            self.reply("250-mx.example\r\n250 PIPELINING")
        elif line.startswith(b"MAIL"):
            if not self.use(self.source.messages, came):
                return self.refuse("messages", came)
            self.host.note("mail", came, self.address)
            self.reply("250 2.1.0 ok")
        elif line == b"DATA":
            self.in_content = True
            self.reply("354 go on")
        elif line == b"QUIT":
            self.reply("221 2.0.0 bye")
            self.end()
        else:
            self.reply("250 2.0.0 ok")

    def dot(self, came):
        if not self.use(self.source.dots, came):
            return self.refuse("dots", came)
        self.host.note("dot", came, self.address)
        if self.source.delay:
            self.host.later(self.source.delay, lambda: self.reply("250 2.0.0 taken"))
        else:
            self.reply("250 2.0.0 taken")

    def end(self):
        if self.is_open:
            self.is_open = False
            self.source.connections -= 1
            self.host.note("close", time.monotonic(), self.address)
            self.host.forget(self.connection)


class Host:
    """All sources, and the book."""

    def __init__(self, listener, limits, book):
        self.limits, self.book, self.sources = limits, book, {}
        self.listener, self.selector = listener, selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ, None)
        self.timers, self.turn = [], 0
        self.late, self.late_since = 0.0, time.monotonic()

    def source(self, address):
        if address not in self.sources:
            self.sources[address] = Source(self.limits.get(address, {}))
        return self.sources[address]

    def note(self, what, when, *values):
        self.book.write(f"{what} {when:.6f} {' '.join(map(str, values))}\n")

    def later(self, seconds, act):
        self.turn += 1
        heapq.heappush(self.timers, (time.monotonic() + seconds, self.turn, act))

    def was_late(self, seconds):
        self.late = max(self.late, seconds)

    def arrival(self, ancillary):
        """When octets came, by the monotonic clock."""
        ago = 0.0
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                seconds, nanoseconds = struct.unpack("qq", data[:16])
                ago = max(0.0, time.time() - seconds - nanoseconds / 1e9)
        self.was_late(ago)
        return time.monotonic() - ago

    def accept(self):
        while True:
            try:
                connection, (address, _) = self.listener.accept()
            except BlockingIOError:
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            ago = struct.unpack_from("I", told, LAST_ACK_RECEIVED)[0] / 1000
            self.was_late(ago)
            session = Session(self, connection, address, time.monotonic() - ago)
            self.selector.register(connection, selectors.EVENT_READ, session)

    def forget(self, connection):
        self.selector.unregister(connection)
        connection.close()

    def turn_once(self):
        wait = min(0.1, self.timers[0][0] - time.monotonic()) if self.timers else 0.1
        for key, _ in self.selector.select(max(0, wait)):
            if key.data is None:
                self.accept()
            elif key.data.is_open:
                key.data.read()
        # After all that has come is read: what is judged now must not count a connection that was closed before.
        now = time.monotonic()
        while self.timers and self.timers[0][0] <= now:
            heapq.heappop(self.timers)[2]()
        if now - self.late_since >= 1:
            self.note("late", now, f"{self.late:.4f}")
            self.late, self.late_since = 0.0, now
            self.book.flush()


def main(address, port, limits, path):
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    listener.bind((address, int(port)))
    listener.listen(1000)
    listener.setblocking(False)
    with open(limits) as file, open(path, "w") as book:
        host = Host(listener, json.load(file), book)
        while not ended:
            host.turn_once()


if __name__ == "__main__":
    main(*sys.argv[1:])
