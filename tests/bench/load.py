"""The load, the sink and the prober: Postfix's smtp-source and smtp-sink, and a small SMTP client of our own."""

import json
import os
import re
import smtplib
import subprocess
import threading
import time

from rig.processes import ROOT, Failed, free_port, listens, run

PACED_LOAD = ROOT / "target" / "release" / "paced-load"
SENDER_DOMAIN = "bench.example"
SINK_DOMAIN = "sink.example"


class Sink:
    """smtp-sink, counting. `count` is the number of messages that it has taken to their final dot."""

    def __init__(self, rig, address="127.0.0.1"):
        self.port = free_port(address)
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        read, write = os.pipe()
        self.process = rig.start(
            # By itself it takes 256 sessions at a time: a limit of the sink is none of the relay.
            "smtp-sink", ["smtp-sink", "-c", "-m", "10000", *user, f"{address}:{self.port}", "1000"],
            lambda: listens(address, self.port), stdout=write,
        )
        os.close(write)
        self.count = 0
        self.last_at = time.monotonic()
        threading.Thread(target=self._follow, args=(read,), daemon=True).start()

    def _follow(self, read):
        rest = b""
        while chunk := os.read(read, 65536):
            pieces = (rest + chunk).split(b"\r")
            rest = pieces.pop()
            for piece in reversed(pieces):
                if found := re.search(rb"mesg=(\d+)", piece):
                    if int(found[1]) != self.count:
                        self.count, self.last_at = int(found[1]), time.monotonic()
                    break
        os.close(read)

    def wait_for(self, count, stalled_seconds=30):
        """Waits until so many messages have come; fails when none has come for a while."""
        last, last_change = self.count, time.monotonic()
        while self.count < count:
            if self.count != last:
                last, last_change = self.count, time.monotonic()
            elif time.monotonic() - last_change > stalled_seconds:
                raise Failed(f"the sink has {self.count} of {count} messages and nothing more comes")
            time.sleep(0.01)


def source(port, messages, sessions, size, address="127.0.0.1", recipient=f"user@{SINK_DOMAIN}", seconds=600):
    """Sends messages of `size` bytes over so many connections, and returns when all have got their 250."""
    command = ["smtp-source", "-d", "-s", sessions, "-m", messages, "-l", size, "-f", f"load@{SENDER_DOMAIN}",
               "-t", recipient, "-M", "client.example", f"{address}:{port}"]
    done = subprocess.run([str(a) for a in command], capture_output=True, text=True, timeout=seconds)
    if done.returncode != 0:
        raise Failed(f"smtp-source: {done.stderr.strip()}")


def paced(port, messages, per_second, size, address="127.0.0.1"):
    """Sends at a steady rate; gives {"accepted", "per_second", "p50_ms", "p99_ms"} of the waits for the 250."""
    return json.loads(run([PACED_LOAD, f"{address}:{port}", messages, f"{per_second:.1f}", size,
                           f"load@{SENDER_DOMAIN}", f"user@{SINK_DOMAIN}"], timeout=600))


class Prober:
    """Sends one message after another at a gentle rate and keeps how long each final dot waited for its 250."""

    def __init__(self, port, size, per_second=20, address="127.0.0.1"):
        self.port, self.address, self.pause = port, address, 1 / per_second
        self.waits_ms = []
        self.sent = 0
        self.stopping = threading.Event()
        header = (f"From: <probe@{SENDER_DOMAIN}>\r\nTo: <user@{SINK_DOMAIN}>\r\nSubject: probe\r\n"
                  "Date: Sun, 22 Nov 2026 12:00:00 +0000\r\n").encode()
        self.content = header + b"\r\n" + b"X" * 78 + b"\r\n" + (b"Y" * 78 + b"\r\n") * (size // 80)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        client = smtplib.SMTP(self.address, self.port, local_hostname="prober.example", timeout=60)
        client.ehlo()
        while not self.stopping.wait(self.pause):
            client.mail(f"probe@{SENDER_DOMAIN}")
            client.rcpt(f"user@{SINK_DOMAIN}")
            if client.docmd("DATA")[0] != 354:
                client.rset()
                continue
            # All but the last octet first, so that the time is that of the final dot alone.
            client.send(self.content)
            time.sleep(0.002)
            start = time.perf_counter()
            client.send(b".\r\n")
            code, _ = client.getreply()
            if code == 250:
                self.waits_ms.append((time.perf_counter() - start) * 1000)
                self.sent += 1
        client.quit()

    def stop(self):
        """Ends it and gives (p50, p99) in milliseconds."""
        self.stopping.set()
        self.thread.join(60)
        return percentile(self.waits_ms, 50), percentile(self.waits_ms, 99)


def percentile(values, rank):
    """The value below which `rank` % of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * rank / 100))] if ordered else float("nan")
