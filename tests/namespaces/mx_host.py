"""An MX host that writes down everything: python mx_host.py ADDRESS PORT BOOK

Lines of BOOK, with the time in seconds of the machine's monotonic clock; each is written before the reply:

    open TIME CONNECTION PEER         a client has spoken on a connection
    close TIME CONNECTION
    mail TIME CONNECTION KIND TRY RECIPIENT STATE     KIND message or dsn; STATE ok, or what is wrong

TRY is the value of the header field X-Try, which a DSN returns. Recipients `gone…@` don't exist, `grey…@` is
put off at its first attempt.
"""

import asyncio
import hashlib
import itertools
import re
import sys
import time

numbers = itertools.count()
seen_grey = set()


def digest(body):
    """Of the lines, whatever ends them."""
    return hashlib.sha256(b"\n".join(body.split())).hexdigest()


def judge(content, is_dsn):
    """What is wrong with a message, or ok."""
    head, _, body = content.partition(b"\r\n\r\n")
    if is_dsn:
        return "ok" if b"Action: failed" in content else "not-a-failure"
    if not re.search(rb"^DKIM-Signature:", head, re.M):
        return "unsigned"
    wanted = re.search(rb"^X-Digest: (\w+)", head, re.M)
    return "ok" if wanted and digest(body) == wanted[1].decode() else "damaged"


class Session:
    def __init__(self, reader, writer, book):
        self.reader, self.writer, self.book = reader, writer, book
        self.number = next(numbers)
        self.spoken = False
        self.reset()

    def reset(self):
        self.sender, self.recipients = None, []

    def note(self, kind, *values):
        self.book.write(f"{kind} {time.monotonic():.6f} {self.number} {' '.join(values)}".rstrip() + "\n")
        self.book.flush()

    async def run(self):
        try:
            self.reply("220 mx.example ESMTP")
            while line := await self.reader.readline():
                if not self.spoken:
                    # Not when it was accepted: the end of the connection before may not have been read yet.
                    self.spoken = True
                    self.note("open", self.writer.get_extra_info("peername")[0])
                if not await self.command(line.decode("latin-1").strip()):
                    break
                await self.writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            if self.spoken:
                self.note("close")
            self.writer.close()

    def reply(self, text):
        self.writer.write(text.encode() + b"\r\n")

    async def command(self, line):
        """Answers a command; false at the end."""
        verb = line.split(":")[0].upper()
        if verb.startswith(("EHLO", "HELO")):
            self.reply("250-mx.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES")
        elif verb == "MAIL FROM":
            self.sender = re.search(r"<(.*?)>", line)[1]
            self.reply("250 2.1.0 ok")
        elif verb == "RCPT TO":
            self.reply(self.recipient(re.search(r"<(.*?)>", line)[1]))
        elif verb == "DATA" and self.recipients:
            self.reply("354 go on")
            await self.writer.drain()
            self.take(await self.content())
            self.reply("250 2.0.0 taken")
            self.reset()
        elif verb == "DATA":
            self.reply("554 5.5.1 no recipients")
        elif verb == "QUIT":
            self.reply("221 2.0.0 bye")
            await self.writer.drain()
            return False
        else:
            if verb == "RSET":
                self.reset()
            self.reply("250 2.0.0 ok")
        return True

    def recipient(self, address):
        if address.startswith("gone"):
            return "550 5.1.1 no such user"
        if address.startswith("grey") and address not in seen_grey:
            seen_grey.add(address)
            return "451 4.7.1 come back in a moment"
        self.recipients.append(address)
        return "250 2.1.5 ok"

    async def content(self):
        lines = []
        while (line := await self.reader.readline()) != b".\r\n":
            if not line:
                raise asyncio.IncompleteReadError(b"", None)
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)

    def take(self, content):
        is_dsn = self.sender == ""
        found = re.search(rb"^X-Try: (\S+)", content, re.M)
        name = found[1].decode() if found else "unnamed"
        state = judge(content, is_dsn)
        for address in self.recipients:
            self.note("mail", "dsn" if is_dsn else "message", name, address, state)


async def main(address, port, path):
    with open(path, "w") as book:
        async def serve(reader, writer):
            await Session(reader, writer, book).run()

        server = await asyncio.start_server(serve, address, int(port), limit=1 << 20)
        async with server:
            await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
