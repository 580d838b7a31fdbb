"""An MX host that enforces limits per source address: python sink.py ADDRESS PORT LIMITS BOOK

LIMITS is a JSON file: {source address: {"messages": [[count, seconds], …], "opened": [[count, seconds], …],
"connections": count, "delay": seconds, "uneven": seconds}}. A connection above a limit gets 421 for its banner, a message above one
gets 421 for its MAIL; `delay` is how long the reply to the content takes. The windows slide, shorter by `uneven`:
so unevenly may this program itself get to read what came, on a machine that has other things to do.

Lines of BOOK, with the time in seconds of the machine's monotonic clock:

    open TIME SOURCE
    close TIME SOURCE
    mail TIME SOURCE            accepted
    above TIME SOURCE WHAT      refused: messages, opened or connections
"""

import asyncio
import collections
import json
import signal
import sys
import time

# Before a connection is judged, what has happened to others must have been read.
LOOK_AROUND = 0.01


class Window:
    """Uses within a time that slides."""

    def __init__(self, count, seconds, uneven):
        self.count, self.seconds = count, seconds - uneven
        self.times = collections.deque()

    def is_full(self, now):
        while self.times and self.times[0] <= now - self.seconds:
            self.times.popleft()
        return len(self.times) >= self.count

    def use(self, now):
        self.times.append(now)


class Source:
    """What came from one address."""

    def __init__(self, limits):
        uneven = limits.get("uneven", 0)
        self.messages = [Window(*window, uneven) for window in limits.get("messages", [])]
        self.opened = [Window(*window, uneven) for window in limits.get("opened", [])]
        self.most, self.delay = limits.get("connections", 1_000_000), limits.get("delay", 0)
        self.connections = 0


class Session(asyncio.Protocol):
    """One connection."""

    def __init__(self, host):
        self.host, self.buffer, self.in_content, self.counted = host, b"", False, False

    def connection_made(self, transport):
        self.transport = transport
        self.address = transport.get_extra_info("peername")[0]
        self.source = self.host.source(self.address)
        # It counts from now on.
        self.source.connections += 1
        self.counted = True
        self.host.note("open", self.address)
        asyncio.get_running_loop().call_later(LOOK_AROUND, self.greet)

    def greet(self):
        now = time.monotonic()
        if self.source.connections > self.source.most:
            return self.refuse("connections")
        if any(window.is_full(now) for window in self.source.opened):
            return self.refuse("opened")
        for window in self.source.opened:
            window.use(now)
        self.reply("220 mx.example ESMTP")

    def refuse(self, what):
        self.host.note("above", self.address, what)
        self.reply(f"421 4.7.0 too many {what}")
        self.end()

    def reply(self, text):
        self.transport.write(text.encode() + b"\r\n")

    def data_received(self, data):
        self.buffer += data
        while not self.transport.is_closing():
            end = b"\r\n.\r\n" if self.in_content else b"\r\n"
            line, found, rest = self.buffer.partition(end)
            if not found:
                return
            self.buffer = rest
            if self.in_content:
                self.in_content = False
                asyncio.get_running_loop().call_later(self.source.delay, self.take)
            else:
                self.command(line.upper())

    def command(self, line):
        if line.startswith((b"EHLO", b"HELO")):
            self.reply("250-mx.example\r\n250 PIPELINING")
        elif line.startswith(b"MAIL"):
            now = time.monotonic()
            if any(window.is_full(now) for window in self.source.messages):
                return self.refuse("messages")
            for window in self.source.messages:
                window.use(now)
            self.host.note("mail", self.address)
            self.reply("250 2.1.0 ok")
        elif line == b"DATA":
            self.in_content = True
            self.reply("354 go on")
        elif line == b"QUIT":
            self.reply("221 2.0.0 bye")
            self.end()
        else:
            self.reply("250 2.0.0 ok")

    def take(self):
        if not self.transport.is_closing():
            self.reply("250 2.0.0 taken")

    def end(self):
        self.gone()
        self.transport.close()

    def gone(self):
        if self.counted:
            self.counted = False
            self.source.connections -= 1
            self.host.note("close", self.address)

    def connection_lost(self, _error):
        self.gone()


class Host:
    """All sources, and the book."""

    def __init__(self, limits, book):
        self.limits, self.book, self.sources = limits, book, {}

    def source(self, address):
        if address not in self.sources:
            self.sources[address] = Source(self.limits.get(address, {}))
        return self.sources[address]

    def note(self, what, *values):
        self.book.write(f"{what} {time.monotonic():.6f} {' '.join(values)}\n")


async def main(address, port, limits, path):
    with open(limits) as file, open(path, "w") as book:
        host = Host(json.load(file), book)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Session(host), address, int(port), backlog=1000)
        ended = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, ended.set)
        async with server:
            while not ended.is_set():
                book.flush()
                await asyncio.sleep(0.1)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
