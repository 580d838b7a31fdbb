"""A disk with a volatile write cache, served over NBD (the NetworkBlockDevice project's doc/proto.md).

A write is answered as soon as it is in this process's memory, as by a drive with its write cache on.
Only a flush brings it to the file behind. When the power goes, what was written since the last flush is
gone, or, as on real drives, a part of it had got to the platter already, in any order.
"""

import collections
import os
import socket
import struct
import threading

SECTOR = 512
# What an unflushed write may be torn into.
PIECE = 4096

NBD_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
REQUEST_MAGIC, REPLY_MAGIC = 0x25609513, 0x67446698
FIXED_NEWSTYLE, NO_ZEROES = 1, 2
HAS_FLAGS, SEND_FLUSH = 1, 4
OPT_EXPORT_NAME, OPT_ABORT, OPT_INFO, OPT_GO = 1, 2, 6, 7
REP_ACK, REP_INFO, REP_ERR_UNSUP = 1, 3, 0x80000001
INFO_EXPORT, INFO_BLOCK_SIZE = 0, 3
READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3
EINVAL = 22

Figures = collections.namedtuple("Figures", "writes flushes dropped_kib survived_kib")


class Cache:
    """What the drive holds: the platter (a file), and what was written and not flushed."""

    def __init__(self, path):
        self.platter = os.open(path, os.O_RDWR)
        self.size = os.fstat(self.platter).st_size
        self.sectors = {}
        self.pending = []
        self.writes = self.flushes = 0

    def read(self, offset, length):
        data = os.pread(self.platter, length, offset)
        if not self.sectors:
            return data
        data = bytearray(data)
        for position in range(0, length, SECTOR):
            if newer := self.sectors.get(offset + position):
                data[position:position + SECTOR] = newer
        return bytes(data)

    def write(self, offset, data):
        self.writes += 1
        self.pending.append((offset, data))
        for position in range(0, len(data), SECTOR):
            self.sectors[offset + position] = data[position:position + SECTOR]

    def flush(self):
        self.flushes += 1
        for offset, data in self.pending:
            os.pwrite(self.platter, data, offset)
        self.pending.clear()
        self.sectors.clear()

    def cut(self, dice=None):
        """The power goes. With dice (a `random.Random`), each piece of what was not flushed has by chance
        got to the platter, the share being drawn first; without, all of it is lost."""
        share = dice.random() if dice else 0.0
        dropped = survived = 0
        for offset, data in self.pending:
            for position in range(0, len(data), PIECE):
                piece = data[position:position + PIECE]
                if share and dice.random() < share:
                    os.pwrite(self.platter, piece, offset + position)
                    survived += len(piece)
                else:
                    dropped += len(piece)
        figures = Figures(self.writes, self.flushes, dropped >> 10, survived >> 10)
        self.pending.clear()
        self.sectors.clear()
        self.writes = self.flushes = 0
        return figures

    def close(self):
        os.close(self.platter)


class Disk:
    """Serves a file as a drive to one virtual machine after the other, on a Unix socket."""

    def __init__(self, path, address):
        self.cache = Cache(path)
        self.address = str(address)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.address)
        self.listener.listen(1)
        self.serving = threading.Thread(target=self._serve, daemon=True)
        self.idle = threading.Event()
        self.idle.set()
        self.serving.start()

    def cut(self, dice=None, seconds=20):
        """To be called when the machine is dead: waits until what it had sent is processed, then drops
        what is not flushed."""
        if not self.idle.wait(seconds):
            raise TimeoutError("the disk is still connected")
        return self.cache.cut(dice)

    def close(self):
        """Ends the service. The machine must be dead."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.serving.join(20)
        self.listener.close()
        os.unlink(self.address)
        self.cache.close()

    def _serve(self):
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            self.idle.clear()
            try:
                with connection, connection.makefile("rb") as requests:
                    if self._negotiate(connection, requests):
                        self._transmit(connection, requests)
            except (EOFError, ConnectionError):
                pass
            finally:
                self.idle.set()

    def _negotiate(self, connection, requests):
        """The fixed newstyle handshake. Whether transmission begins."""
        flags = HAS_FLAGS | SEND_FLUSH
        connection.sendall(struct.pack(">QQH", NBD_MAGIC, OPTION_MAGIC, FIXED_NEWSTYLE | NO_ZEROES))
        no_zeroes = struct.unpack(">I", _exactly(requests, 4))[0] & NO_ZEROES
        while True:
            magic, option, length = struct.unpack(">QII", _exactly(requests, 16))
            if magic != OPTION_MAGIC:
                raise ConnectionError("this is not NBD")
            _exactly(requests, length)

            def reply(kind, data=b""):
                connection.sendall(struct.pack(">QIII", OPTION_REPLY_MAGIC, option, kind, len(data)) + data)

            if option in (OPT_GO, OPT_INFO):
                reply(REP_INFO, struct.pack(">HQH", INFO_EXPORT, self.cache.size, flags))
                reply(REP_INFO, struct.pack(">HIII", INFO_BLOCK_SIZE, SECTOR, PIECE, 32 << 20))
                reply(REP_ACK)
                if option == OPT_GO:
                    return True
            elif option == OPT_EXPORT_NAME:
                connection.sendall(struct.pack(">QH", self.cache.size, flags) + (b"" if no_zeroes else bytes(124)))
                return True
            elif option == OPT_ABORT:
                reply(REP_ACK)
                return False
            else:
                reply(REP_ERR_UNSUP)

    def _transmit(self, connection, requests):
        """One request after the other: so a flush covers all writes that were answered before it came."""
        while True:
            magic, _, command, handle, offset, length = struct.unpack(">IHHQQI", _exactly(requests, 28))
            if magic != REQUEST_MAGIC:
                raise ConnectionError("not a request")
            data, error = b"", 0
            if command == WRITE:
                content = _exactly(requests, length)
            if command == DISCONNECT:
                return
            if command in (READ, WRITE) and (offset % SECTOR or length % SECTOR or offset + length > self.cache.size):
                error = EINVAL
            elif command == READ:
                data = self.cache.read(offset, length)
            elif command == WRITE:
                self.cache.write(offset, content)
            elif command == FLUSH:
                self.cache.flush()
            else:
                error = EINVAL
            connection.sendall(struct.pack(">IIQ", REPLY_MAGIC, error, handle) + data)


def _exactly(requests, length):
    data = requests.read(length)
    if len(data) != length:
        raise EOFError
    return data
