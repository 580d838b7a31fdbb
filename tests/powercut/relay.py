"""The whole relay outside, nats-server in the machine whose power goes: every message whose 250 was seen
arrives, and none more than once that was not in doubt."""

import collections
import hashlib
import json
import os
import random
import re
import smtplib
import threading
import time

from rig.processes import Failed, free_port, listens, wait_until
from rig.relay import Relay, bench_documents
from rig.servers import Dns, Redis, rsa_key

SINK = "127.0.0.2"
CLIENTS = 8
PAUSE = 0.05
# Longer than a lease, a reconnection and a retry.
SETTLE = 120
# Longer than the life of a permit and the time-out of the final dot.
DOUBT_SETTLES = 15 * 60


class Senders:
    """Clients that submit one message after the other and note what was answered."""

    def __init__(self, port, seed):
        self.port = port
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.outcomes = collections.defaultdict(set)
        self.threads = [threading.Thread(target=self._run, args=(n, random.Random(f"{seed} {n}"))) for n in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def count(self, outcome="accepted"):
        with self.lock:
            return len(self.outcomes[outcome])

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(90)

    def _run(self, number, dice):
        session = None
        for turn in range(1_000_000):
            if self.stopping.wait(PAUSE):
                break
            token = f"t{number}-{turn}"
            # Some are stored in chunks.
            size = 3_000_000 if number == 0 and turn % 20 == 0 else dice.randrange(1_000, 10_000)
            outcome = "refused"
            try:
                if not session:
                    session = smtplib.SMTP("127.0.0.1", self.port, timeout=60)
                    session.ehlo("client.example")
                for code, _ in (session.mail("app@acme.example"), session.rcpt(f"{token}@one.example")):
                    if code >= 400:
                        raise smtplib.SMTPResponseException(code, b"")
                outcome = "unknown"
                code, _ = session.data(message(token, size, dice))
                outcome = "accepted" if code == 250 else "refused"
            except smtplib.SMTPResponseException:
                outcome = "refused"
            except (OSError, smtplib.SMTPException):
                session = None
            with self.lock:
                self.outcomes[outcome].add(token)
            if outcome != "accepted":
                if session:
                    session.close()
                session = None
                self.stopping.wait(0.2)
        if session:
            session.close()


def message(token, size, dice):
    body = b"".join(b"%064x\r\n" % dice.getrandbits(256) for _ in range(size // 66))
    head = f"From: app@acme.example\r\nTo: {token}@one.example\r\nSubject: {token}\r\nX-Digest: {digest(body)}\r\n\r\n"
    return head.encode() + body


def digest(body):
    """Of the lines, whatever ends them."""
    return hashlib.sha256(b"\n".join(body.split())).hexdigest()


class Arrivals:
    """The files of smtp-sink, each read once."""

    def __init__(self, folder):
        self.folder, self.read, self.tokens = folder, set(), collections.Counter()

    def look(self):
        for entry in os.scandir(self.folder):
            if entry.name in self.read:
                continue
            with open(entry.path, "rb") as dump:
                content = dump.read()
            # Not complete before its last line is empty.
            if not content.endswith(b"\n\n"):
                continue
            self.read.add(entry.name)
            recipient = re.search(rb"^X-Rcpt-Args: <(t[0-9-]+)@one\.example>", content, re.M)
            wanted = re.search(rb"^X-Digest: (\w+)", content, re.M)
            if not recipient or not wanted:
                continue
            if digest(content[content.index(b"\n\n", wanted.end()):]) != wanted[1].decode():
                raise Failed(f"{recipient[1].decode()} came with another body")
            self.tokens[recipient[1].decode()] += 1
        return self.tokens


def run_rounds(rig, installation, rounds, seed, seconds_of_load, wait_for_doubt):
    """Gives (accepted, lost). Messages in doubt wait about 11 minutes; they are waited for when asked."""
    dice = random.Random(f"{seed} relay")
    dumps = rig.directory / "sink"
    dumps.mkdir()
    dumps.chmod(0o777)
    sink_port = free_port(SINK)
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    rig.start("smtp-sink", ["smtp-sink", *user, "-d", f"{dumps}/m.", f"{SINK}:{sink_port}", "200"],
              lambda: listens(SINK, sink_port))
    rsa_key(rig.directory / "s1.pem")
    dns = Dns(rig, mx={"one.example": [(10, "mx.one.example")]}, a={"mx.one.example": SINK})
    installation.boot()
    relay = Relay(rig, installation.machine, Redis(rig), dns)
    relay.apply(bench_documents(rig.directory / "s1.pem", sink_port, "acme.example"))
    arrivals = Arrivals(dumps)
    senders = Senders(relay.submission, seed)
    rig.at_end.append(senders.stop)
    # So much that something is stored in each stream before the first cut (README.md, "What it has found").
    wait_until("mail is accepted", lambda: senders.count() > 200 and sum(arrivals.look().values()) > 100, 120)
    for number in range(1, rounds + 1):
        time.sleep(dice.uniform(0.1, seconds_of_load))
        disk = installation.cut(None if dice.random() < 1 / 3 else dice)
        at_cut = senders.count()
        begun = time.monotonic()
        installation.boot()
        delivered = sum(arrivals.look().values())
        wait_until("mail is accepted and delivered again",
                   lambda: senders.count() > at_cut + 20 and sum(arrivals.look().values()) > delivered + 20, SETTLE)
        events(relay)
        print(f"powercut: relay {number}/{rounds}: accepted={at_cut} flushes={disk.flushes} dropped={disk.dropped_kib}KiB "
              f"survived={disk.survived_kib}KiB seconds_without={time.monotonic() - begun:.1f}", flush=True)
    senders.stop()
    balance = settle(relay, senders, arrivals, wait_for_doubt)
    for process in reversed(relay.processes.values()):
        rig.stop(process)
    return balance


def settle(relay, senders, arrivals, wait_for_doubt):
    """Waits until nothing is under way and compares the two ledgers."""
    def still():
        queue = relay.queue()
        under_way = queue["waiting"] + queue["inFlight"] + queue["dsnOwed"] + len(queue["partitionsWithoutOwner"])
        if wait_for_doubt:
            under_way += queue["inDoubt"]
        return queue if not under_way else None

    queue = wait_until("nothing is under way", still, DOUBT_SETTLES if wait_for_doubt else SETTLE, 0.5)
    tokens = arrivals.look()
    outcomes = senders.outcomes
    missing = [token for token in outcomes["accepted"] if not tokens[token]]
    duplicates = sum(times - 1 for times in tokens.values() if times > 1)
    in_doubt = queue["inDoubt"]
    ever_in_doubt = in_doubt + sum(event["type"].lower().replace("_", "") == "indoubt" for event in events(relay))
    accepted = len(outcomes["accepted"])
    text = (
        f"accepted={accepted} missing={len(missing)} in_doubt={ever_in_doubt} duplicates={duplicates} "
        f"quarantined={queue['quarantined']} "
        f"unknown={len(outcomes['unknown'])} (delivered {sum(1 for token in outcomes['unknown'] if tokens[token])}) "
        f"refused={len(outcomes['refused'])} (delivered {sum(1 for token in outcomes['refused'] if tokens[token])})"
    )
    print(f"powercut: relay: {text}", flush=True)
    # What is in doubt waits for its time, and is not lost.
    if len(missing) > in_doubt or duplicates > ever_in_doubt or queue["quarantined"]:
        raise Failed(f"relay: {text}; missing, for example: {sorted(missing)[:5]}")
    return accepted, max(0, len(missing) - in_doubt)


def events(relay):
    """All events so far. The journals are trimmed: what is new is read from time to time."""
    kept = relay.rig.directory / "events.jsonl"
    new = relay.run("events", "--state", relay.rig.directory / "events.state")
    with open(kept, "a") as file:
        file.write(new)
    return [json.loads(line) for line in kept.read_text().splitlines()]
