"""Clients that keep a backlog for every destination, so that only limits hold mail back."""

import asyncio
import threading

CLIENTS = 12
# Messages over one connection.
PER_CONNECTION = 200
BODY = b"\r\n".join(b"%064x" % number for number in range(16))


class Load:
    """Submits to each domain what it is short of: `short()` gives {domain: messages}."""

    def __init__(self, server, short):
        self.server, self.short = server, short
        self.submitted = {}
        self.failure = None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def stop(self):
        self.stopping.set()
        self.thread.join(60)

    def _run(self):
        try:
            asyncio.run(self._all())
        except Exception as failure:  # told by the test, which looks at it
            self.failure = failure

    async def _all(self):
        wanted = asyncio.Queue(maxsize=CLIENTS)
        clients = [asyncio.create_task(self._client(wanted)) for _ in range(CLIENTS)]
        while not self.stopping.is_set():
            short = {domain: count for domain, count in self.short(self.submitted).items() if count > 0}
            # In turns, so that none waits for another's backlog.
            for turn in range(max(short.values(), default=0)):
                for domain, count in short.items():
                    if turn < min(count, 200) and not self.stopping.is_set():
                        self.submitted[domain] = self.submitted.get(domain, 0) + 1
                        await wanted.put(domain)
            for client in clients:
                if client.done():
                    client.result()
            await asyncio.sleep(0.05)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    async def _client(self, wanted):
        while True:
            reader, writer = await asyncio.open_connection(*self.server)
            await self._answer(reader, b"220")
            writer.write(b"EHLO client.example\r\n")
            await self._answer(reader, b"250")
            for _ in range(PER_CONNECTION):
                await self._submit(reader, writer, await wanted.get())
            writer.write(b"QUIT\r\n")
            await self._answer(reader, b"221")
            writer.close()

    async def _submit(self, reader, writer, domain):
        address = f"someone@{domain}".encode()
        writer.write(b"MAIL FROM:<app@acme.example>\r\nRCPT TO:<" + address + b">\r\nDATA\r\n")
        for code in (b"250", b"250", b"354"):
            await self._answer(reader, code)
        writer.write(b"From: <app@acme.example>\r\nTo: <" + address + b">\r\nSubject: limits\r\n\r\n" + BODY + b"\r\n.\r\n")
        await self._answer(reader, b"250")

    @staticmethod
    async def _answer(reader, code):
        while (line := await reader.readline())[3:4] == b"-":
            pass
        if line[:3] != code:
            raise RuntimeError(f"{line!r} instead of {code!r}")
