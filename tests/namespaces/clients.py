"""Clients as real ones: they send at a steady rate through the load balancer, and send again what got no 250."""

import collections
import contextlib
import random
import re
import smtplib
import threading
import time

from .mx_host import digest

CLIENTS = 12
SENDER = "app@acme.example"
# A new connection after so many messages, so that all ingress get their share.
PER_CONNECTION = 25
MESSAGE_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


class Clients:
    """Every submission is a try with a name of its own, `MESSAGE.NUMBER`; what becomes of each is in `outcomes`:

    accepted    250, with the relay's message id
    refused     a reply that refuses, before the final dot: it must not arrive
    deferred    a reply that refuses, to the final dot: it may have been stored
    unknown     the connection broke after the final dot: it may have been stored
    """

    def __init__(self, address, port, per_second, seed):
        self.address, self.port, self.pause = address, port, CLIENTS / per_second
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.outcomes = {}
        self.recipients = {}
        self.counts = collections.Counter()
        self.surprises = []
        self.threads = [
            threading.Thread(target=self._run, args=(number, random.Random(f"{seed} {number}")), daemon=True)
            for number in range(CLIENTS)
        ]
        for thread in self.threads:
            thread.start()

    def accepted(self):
        return self.counts["accepted"]

    def stop(self):
        """Ends it when every message that was begun has its 250."""
        self.stopping.set()
        for thread in self.threads:
            thread.join(120)
        return not any(thread.is_alive() for thread in self.threads)

    def _run(self, number, dice):
        client = Client(self.address, self.port)
        due = time.monotonic() + dice.random() * self.pause
        for turn in range(1_000_000):
            if self.stopping.wait(max(0, due - time.monotonic())):
                break
            # What was missed while nobody took mail is not made up for.
            due = max(due + self.pause, time.monotonic())
            recipient = address_of(number, turn, dice)
            size = 1_300_000 if dice.random() < 0.003 else dice.randrange(1_000, 8_000)
            body = b"".join(b"%064x\r\n" % dice.getrandbits(256) for _ in range(size // 66))
            for attempt in range(1, 1000):
                if self._try(client, f"{number}-{turn}.{attempt}", recipient, body) == "accepted":
                    break
                time.sleep(min(0.2 * attempt, 2))
        client.leave()

    def _try(self, client, name, recipient, body):
        # Noted before it is sent, since it may arrive before its reply is read.
        with self.lock:
            self.recipients[name] = recipient
        outcome, text = client.submit(recipient, message(name, recipient, body))
        found = MESSAGE_ID.search(text)
        with self.lock:
            self.outcomes[name] = (outcome, found[0].decode() if found else None)
            self.counts[outcome] += 1
            if text[:1] == b"5":
                self.surprises.append(text.decode(errors="replace"))
        return outcome


class Client:
    """One connection at a time."""

    def __init__(self, address, port):
        self.address, self.port = address, port
        self.session = None
        self.sent = 0

    def submit(self, recipient, content):
        """Gives the outcome and the reply."""
        outcome = "refused"
        try:
            if self.session is None or self.sent >= PER_CONNECTION:
                self.leave()
                self.session = smtplib.SMTP(self.address, self.port, local_hostname="client.example", timeout=60)
                self.session.ehlo()
                self.sent = 0
            for code, text in (self.session.mail(SENDER), self.session.rcpt(recipient), self.session.docmd("DATA")):
                if code >= 400:
                    self.drop()
                    return outcome, b"%d %b" % (code, text)
            # Without its last octets it is no message yet, whatever becomes of it.
            self.session.send(content + b".\r")
            outcome = "unknown"
            self.session.send(b"\n")
            code, text = self.session.getreply()
            if code == 250:
                self.sent += 1
                return "accepted", text
            self.drop()
            return "deferred" if code > 0 else "unknown", b"%d %b" % (code, text)
        except (OSError, smtplib.SMTPException) as problem:
            self.drop()
            return outcome, str(problem).encode()

    def drop(self):
        if self.session:
            self.session.close()
        self.session = None

    def leave(self):
        """Ends the connection politely."""
        if self.session:
            with contextlib.suppress(OSError, smtplib.SMTPException):
                self.session.quit()
        self.drop()


def address_of(number, turn, dice):
    """Most to a host that takes everything, more to a slow one than it may get, some nowhere."""
    chance = dice.random()
    domain = "slow.example" if chance < 0.27 else "one.example"
    local = "user"
    if domain == "one.example" and (chance := dice.random()) < 0.1:
        local = "grey" if chance < 0.05 else "gone"
    return f"{local}{number}-{turn}@{domain}"


def message(name, recipient, body):
    head = f"From: {SENDER}\r\nTo: {recipient}\r\nSubject: {name}\r\nX-Try: {name}\r\nX-Digest: {digest(body)}\r\n\r\n"
    return head.encode() + body
