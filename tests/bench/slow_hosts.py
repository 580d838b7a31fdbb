"""Mail hosts that take their time: each reply comes a while after its command."""

import asyncio
import resource
import threading

from rig.processes import Failed


class SlowHosts:
    """One port that takes all connections, in a thread of its own."""

    def __init__(self, seconds, address="127.0.0.1"):
        self.seconds, self.address = seconds, address
        self.open = self.most_open = self.messages = 0
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        threading.Thread(target=self._run, args=(started,), daemon=True).start()
        if not started.wait(10):
            raise Failed("the slow hosts do not listen")

    def _run(self, started):
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(
            asyncio.start_server(self._serve, self.address, 0, backlog=16_384, limit=1 << 16))
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        self.loop.run_forever()

    async def _serve(self, reader, writer):
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await self._talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _talk(self, reader, writer):
        await self._say(writer, "220 slow.sink.example")
        while line := await reader.readline():
            word = line[:4].upper()
            if word in (b"EHLO", b"HELO"):
                # Without PIPELINING each command waits for the reply to the one before.
                await self._say(writer, "250 slow.sink.example")
            elif word == b"DATA":
                await self._say(writer, "354 go on")
                while (piece := await reader.readline()) not in (b".\r\n", b""):
                    pass
                self.messages += piece != b""
                await self._say(writer, "250 2.0.0 kept")
            elif word == b"QUIT":
                await self._say(writer, "221 bye")
                return
            else:
                await self._say(writer, "250 ok")

    async def _say(self, writer, line):
        await asyncio.sleep(self.seconds)
        writer.write(line.encode() + b"\r\n")
        await writer.drain()
