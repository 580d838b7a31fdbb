"""What goes wrong while limits must hold: processes are killed and stopped, Redis hangs, is emptied and starts anew."""

import contextlib
import signal
import time

from rig.processes import wait_until

from .book import Book

# A stopped process goes on before whoever waits for it gives it up.
STOPPED = 6
# A killed process is away for so long.
AWAY = 3
# Between two faults, so that limits are in use again.
BETWEEN = 8
# Mail moves again after each, however long a safe share or a lease of the dead takes.
MOVES = 120


class Faults:
    """All kinds in turn, until there is no time left."""

    def __init__(self, relay):
        self.relay = relay
        # The clients read the relay's.
        self.book = Book(relay.book.path)
        self.done = []

    def run(self, until):
        """Ends before a time, by the monotonic clock; at least one round is made."""
        while True:
            for what, act in self._round():
                if self.done and time.monotonic() > until:
                    return
                before = self._accepted()
                act()
                self.done.append(what)
                wait_until(f"mail that moves after {what}", lambda: self._accepted() > before + 100, MOVES, every=0.5)
                time.sleep(BETWEEN)

    def _accepted(self):
        return sum(map(len, self.book.read().dots.values()))

    def _round(self):
        for number in range(3):
            yield f"kill scheduler-{number}", lambda name=f"scheduler-{number}": self._kill(name)
        yield "stop scheduler-1", lambda: self._stop(self.relay.processes["scheduler-1"])
        yield "kill sender-1", lambda: self._kill("sender-1")
        yield "stop sender-2", lambda: self._stop(self.relay.processes["sender-2"])
        yield "stop redis", lambda: self._stop(self.relay.redis.process)
        yield "empty redis", self.relay.redis.empty
        yield "restart redis", lambda: self.relay.redis.restart(AWAY)

    def _kill(self, name):
        self.relay.processes[name].kill()
        time.sleep(AWAY)
        self.relay.start_again(name)

    @staticmethod
    def _stop(process):
        process.child.send_signal(signal.SIGSTOP)
        try:
            time.sleep(STOPPED)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.child.send_signal(signal.SIGCONT)
