"""`make scanners`: real scanners look at what a real relay accepts: ClamAV, Rspamd, OpenDKIM, a milter over libmilter and one
that is none. What they refuse must be answered so and must not arrive; what they take must arrive once, with what they add.
Then scanners are killed and started again under load: nothing infected may be accepted, and nothing accepted may be lost.

The last line is `scanners: ok …`, or `scanners: FAILED …` with exit status 1.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import signal
import smtplib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from rig.processes import ROOT, Failed, Rig, family, free_port, free_port_on, listens, wait_until  # noqa: E402
from rig.relay import Relay  # noqa: E402
from rig.servers import Dns, Nats, Redis  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
MX = "127.0.0.2"
SENDER = "app@acme.example"
# Not written out: programs that look at this file should find nothing.
EICAR = "X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + "EICAR-STANDARD-" + "ANTIVIRUS-TEST-FILE!$H+H*"
PATIENCE = 90


class Clamd:
    """With a database of one signature."""

    def __init__(self, rig):
        self.rig, self.port, self.socket = rig, free_port(), rig.directory / "clamd.sock"
        database = rig.directory / "database"
        database.mkdir()
        signature = ("EICAR-STANDARD-" + "ANTIVIRUS-TEST-FILE!").encode().hex()
        (database / "own.ndb").write_text(f"Own.Eicar:0:*:{signature}\n")
        self.configuration = rig.directory / "clamd.conf"
        self.configuration.write_text(f"""Foreground yes
LogFile {rig.directory}/clamd.txt
DatabaseDirectory {database}
TCPSocket {self.port}
TCPAddr 127.0.0.1
LocalSocket {self.socket}
StreamMaxLength 8M
""")
        self.start()

    def start(self):
        self.process = self.rig.start("clamd", ["clamd", "--config-file", self.configuration],
                                      lambda: listens("127.0.0.1", self.port), 60)


class Rspamd:
    """With rules of its own (own.lua)."""

    def __init__(self, rig):
        self.rig, self.port, self.socket = rig, free_port(), rig.directory / "rspamd.sock"
        self.configuration = rig.directory / "rspamd.conf"
        self.configuration.write_text(f"""options {{ pidfile = "{rig.directory}/rspamd.pid"; dns {{ nameserver = ["127.0.0.1:1"]; timeout = 1s; }} max_message = 8M; }}
logging {{ type = "file"; filename = "{rig.directory}/rspamd.txt"; }}
worker {{ type = "normal"; bind_socket = "127.0.0.1:{self.port}"; bind_socket = "{self.socket} mode=0666"; count = 2; }}
metric "default" {{ actions {{ reject = 15; add_header = 6; }} }}
lua = "{HERE}/own.lua";
""")
        self.start()

    def start(self):
        self.process = self.rig.start("rspamd", ["rspamd", "-i", "-f", "-c", self.configuration],
                                      lambda: listens("127.0.0.1", self.port), 60)


def start_opendkim(rig, name, more):
    port = free_port()
    configuration = rig.directory / f"{name}.conf"
    configuration.write_text(f"""Mode v
Socket inet:{port}@127.0.0.1
Background no
Syslog no
PidFile {rig.directory}/{name}.pid
Nameservers 127.0.0.1
AlwaysAddARHeader yes
AuthservID verifier.example
{more}
""")
    rig.start(name, ["opendkim", "-f", "-x", configuration], lambda: listens("127.0.0.1", port))
    return port


def start_milters(rig):
    """The socket of a milter over libmilter, and the port of one that is not libmilter."""
    socket, port = rig.directory / "policy.sock", free_port()
    rig.start("policy", ["/usr/bin/python3", HERE / "policy_milter.py", f"local:{socket}"], socket.exists)
    python = ROOT / ".servers" / "scanners" / "python" / "bin" / "python"
    rig.start("pure", [python, HERE / "pure_milter.py", port], lambda: listens("127.0.0.1", port))
    return socket, port


def documents(scanners, mx_port):
    """A stream for each scanner, and one for several."""
    streams = ", ".join(f"{{ name: {name}, scanners: [ {name} ] }}" for name in scanners)
    several = "{ name: several, scanners: [ viruses, spam, verify, policy ] }"
    parts = [("Scanner", name, spec) for name, spec in scanners.items()]
    parts += [
        ("Tenant", "acme", f"defaultStream: several, streams: [ {several}, {streams} ]"),
        ("Credential", "acme-net", "tenant: acme, networks: [ 127.0.0.0/8 ]"),
        ("SendingDomain", "acme.example", "tenant: acme, unsigned: true"),
        ("EgressPool", "default", "sources: [ { name: a, address: 127.0.0.1, ehlo: relay.example.com } ]"),
        ("Route", "default", f"pool: default, port: {mx_port}, allowPrivate: true, retry: {{ initial: 1s, factor: 2, max: 4s, jitter: 10 }}"),
        ("Shaping", "default", "rules: [ { connections: 10, messagesPerConnection: 100, tls: none } ]"),
    ]
    return "---\n".join(f"apiVersion: staffetta.dev/v1alpha1\nkind: {kind}\nmetadata: {{ name: {name} }}\nspec: {{ {spec} }}\n"
                        for kind, name, spec in parts)


def submit(client, name, stream, subject, body, more="", recipients=None, sender=SENDER):
    """The reply that decides."""
    text = (f"From: {SENDER}\r\nTo: user@dest.example\r\nSubject: {subject}\r\nX-Staffetta-Stream: {stream}\r\n{more}"
            f"\r\n{body}\r\n")
    try:
        code, reply = client.mail(sender)
        if code == 250:
            for recipient in recipients or [f"{name}@dest.example"]:
                client.rcpt(recipient)
            code, reply = client.data(text)
    except smtplib.SMTPResponseException as refused:
        code, reply = refused.smtp_code, refused.smtp_error
    if code != 250:
        # Ten refusals end a connection: the last one is a reply all the same.
        with contextlib.suppress(smtplib.SMTPServerDisconnected):
            client.rset()
    return f"{code} {reply.decode()}"


def connect(relay):
    return smtplib.SMTP("127.0.0.1", relay.submission, "client.acme.example", timeout=PATIENCE)


LARGE = ("0123456789" * 7 + "\r\n") * 60_000
LATER = "451 4.7.1 The message can't be scanned now; try again later"
REFUSED = "554 5.7.1 Message refused"

# (name, stream, subject, body, further fields, reply, what the message has at the top when it arrives)
CASES = [
    (f"{stream}-{name}", stream, "hello", body, "", reply, None)
    for stream in ("viruses", "viruses-unix")
    for name, body, reply in (
        ("clean", "hello", "250 "),
        ("infected", EICAR, "554 5.7.1 Message refused: it contains Own.Eicar.UNOFFICIAL"),
        ("large", LARGE, "250 "),
        ("large-infected", LARGE + EICAR, "554 5.7.1 Message refused: it contains Own.Eicar.UNOFFICIAL"),
        ("too-large", LARGE * 3, "552 5.3.4 The message is too large to be scanned"),
    )
] + [
    (f"{stream}-{name}", stream, subject, body, "", reply, top)
    for stream in ("spam", "spam-unix")
    for name, subject, body, reply, top in (
        ("clean", "hello", "hello", "250 ", None),
        ("refused", "cheap pills", "hello", "554 5.7.1 Message refused: it looks like spam", None),
        ("marked", "an offer", "hello", "250 ", "X-Spam: Yes\r\nX-Spam-Status: Yes, score=7.00 required=15.00\r\n"),
        ("large-marked", "an offer", LARGE, "250 ", "X-Spam: Yes\r\n"),
        ("later", "later", "hello", "451 4.7.1 come back tomorrow", None),
        ("envelope", "envelope", "hello",
         "554 5.7.1 Message refused: ip=127.0.0.1 helo=client.acme.example from=app@acme.example to=1 id=yes", None),
    )
] + [
    ("verify", "verify", "hello", "hello", "", "250 ", "Authentication-Results: verifier.example; dkim=none"),
    ("verify-large", "verify", "hello", LARGE, "", "250 ", "Authentication-Results: verifier.example; dkim=none"),
    ("policy", "policy", "hello", "hello", "", "250 ", "X-Policy-Told: "),
    ("policy-large", "policy", "hello", LARGE, "", "250 ", "X-Policy-Told: "),
    ("policy-enough", "policy", "hello", LARGE, "X-Policy: enough\r\n", "250 ", "Received: "),
    ("policy-reject", "policy", "hello", "hello", "X-Policy: reject\r\n", "550 5.7.26 refused by policy", None),
    ("policy-tempfail", "policy", "hello", "hello", "X-Policy: tempfail\r\n", "451 4.7.1 Try again later", None),
    ("policy-discard", "policy", "hello", "hello", "X-Policy: discard\r\n", REFUSED, None),
    ("refused", "policy", "hello", "hello", "", "550 5.1.1 nobody here", None),
    ("greedy", "greedy", "hello", "hello", "", LATER, None),
    ("greedy-open", "greedy-open", "hello", "hello", "", "250 ", "Received: "),
    ("pure", "pure", "hello", "hello", "", "250 ", "X-Pure: "),
    ("pure-large", "pure", "hello", LARGE, "", "250 ", "X-Pure: "),
    ("several", "several", "an offer", "hello", "", "250 ", "X-Spam: Yes\r\n"),
    ("several-infected", "several", "an offer", EICAR, "X-Policy: tempfail\r\n", "554 5.7.1 Message refused: it contains Own.Eicar", None),
]


def arrivals(folder):
    """{recipient: [content]}"""
    found = {}
    for about in folder.glob("*.json"):
        content = about.with_suffix(".eml").read_bytes()
        for recipient in json.loads(about.read_text())["recipients"]:
            found.setdefault(recipient.partition("@")[0], []).append(content)
    return found


def play_cases(relay, kept):
    failures, expected = [], {}
    client = connect(relay)
    client.ehlo()
    for name, stream, subject, body, more, reply, top in CASES:
        got = submit(client, name, stream, subject, body, more)
        good = got.startswith(reply)
        print(f"  {name}: {got[:110]}{'' if good else '   EXPECTED ' + reply}", flush=True)
        if not good:
            failures.append(f"{name}: {got}")
        if got.startswith("250"):
            expected[name] = (body, top)
    held = submit(client, "held", "policy", "hello", "hello", "X-Policy: quarantine\r\n")
    refused = submit(client, "x", "pure", "hello", "hello", sender="refused@acme.example")
    if not held.startswith("250") or not refused.startswith("571 5.7.1 not you"):
        failures.append(f"held: {held}; refused by the other library: {refused}")
    client.quit()
    wait_until("everything accepted arrives", lambda: expected.keys() <= arrivals(kept).keys(), PATIENCE)
    found = arrivals(kept)
    for name, (body, top) in expected.items():
        [content] = found[name]
        header, _, arrived = content.partition(b"\r\n\r\n")
        header += b"\r\n"
        if arrived.decode() != body + "\r\n":
            failures.append(f"{name}: another body arrived")
        if top and not header.startswith(top.encode()):
            failures.append(f"{name}: arrived with {header[:200]!r}")
        if name in ("policy", "policy-large"):
            told = header.partition(b"X-Policy-Body: ")
            hashed = hashlib.sha256((body + "\r\n").encode()).hexdigest()
            if not told[2].startswith(hashed.encode()):
                failures.append(f"{name}: the milter saw another body")
            for part in ("from=127.0.0.1 by=relay.example.com", "helo=client.acme.example", f"sender=<{SENDER}>",
                         f"recipient=<{name}@dest.example>", "id=0"):
                if part not in told[0].decode():
                    failures.append(f"{name}: the milter was not told {part!r}: {told[0].decode()}")
    if extra := found.keys() - expected.keys():
        failures.append(f"arrived and should not have: {sorted(extra)}")
    relay.run("queue", "release", "--tenant", "acme", "--server", f"http://127.0.0.1:{relay.ports['scheduler']}", "--reason", "test", "--author", "test")
    wait_until("what was held arrives when it is released", lambda: "held" in arrivals(kept), PATIENCE)
    if failures:
        raise Failed("\n".join(failures))
    return len(CASES) + 2


def signal_all(process, number):
    """To a scanner and its own children."""
    for member in family(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, number)


def play_faults(relay, kept, clamd, rspamd, seconds=30):
    """Clients submit all the time while scanners are killed, stopped, and started again."""
    until, accepted, replies, lock = time.monotonic() + seconds, set(), {}, threading.Lock()

    def client_loop(number):
        client = connect(relay)
        client.ehlo()
        count = 0
        while time.monotonic() < until:
            count += 1
            infected = count % 3 == 0
            name = f"load-{number}-{count}"
            try:
                reply = submit(client, name, "several", "hello", EICAR if infected else "hello")
            except smtplib.SMTPServerDisconnected:
                # Ten refusals end a connection.
                client = connect(relay)
                client.ehlo()
                continue
            with lock:
                kind = ("infected " if infected else "clean ") + reply[:9]
                replies[kind] = replies.get(kind, 0) + 1
                if reply.startswith("250"):
                    accepted.add(name)
        with contextlib.suppress(smtplib.SMTPServerDisconnected):
            client.quit()

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        clients = [pool.submit(client_loop, number) for number in range(6)]
        for scanner in (clamd, rspamd):
            time.sleep(seconds / 10)
            signal_all(scanner.process, signal.SIGKILL)
            scanner.process.kill()
            time.sleep(seconds / 10)
            scanner.start()
            time.sleep(seconds / 10)
            signal_all(scanner.process, signal.SIGSTOP)
            time.sleep(seconds / 5)
            signal_all(scanner.process, signal.SIGCONT)
        for client in clients:
            client.result()
    print(f"  under faults: {dict(sorted(replies.items()))}", flush=True)
    unknown = [kind for kind in replies if kind not in ("clean 250 2.0.0", "clean 451 4.7.1", "infected 554 5.7.1", "infected 451 4.7.1")]
    if unknown or replies.get("clean 250 2.0.0", 0) < 20 or not replies.get("clean 451 4.7.1"):
        raise Failed(f"replies under faults: {replies}")
    wait_until("everything accepted under faults arrives", lambda: accepted <= arrivals(kept).keys(), PATIENCE)
    found = {name: contents for name, contents in arrivals(kept).items() if name.startswith("load-")}
    if found.keys() != accepted or any(len(contents) != 1 for contents in found.values()):
        raise Failed(f"{len(accepted)} accepted, {len(found)} arrived: {sorted(found.keys() ^ accepted)[:5]}")
    client = connect(relay)
    client.ehlo()
    wait_until("the scanners to be asked again",
               lambda: submit(client, "after", "several", "hello", "hello").startswith("250"), PATIENCE, 0.5)
    return sum(replies.values())


def main():
    with Rig("scanners") as rig:
        kept = rig.directory / "kept"
        kept.mkdir()
        mx_port = free_port_on([MX])
        rig.start("mx-host", [sys.executable, HERE.parent / "demo" / "mx_host.py", MX, mx_port, kept],
                  lambda: listens(MX, mx_port))
        dns = Dns(rig, {"dest.example": [(10, "mx.dest.example")]}, {"mx.dest.example": MX})
        clamd, rspamd = Clamd(rig), Rspamd(rig)
        opendkim = start_opendkim(rig, "opendkim", "KeepAuthResults yes")
        # It wants to remove fields, which is not offered.
        greedy = start_opendkim(rig, "greedy", "KeepAuthResults no")
        policy, pure = start_milters(rig)
        relay = Relay(rig, Nats(rig), Redis(rig), dns)
        patient = "deadline: 1m"
        relay.apply(documents({
            "viruses": f"clamav: {{ address: 'localhost:{clamd.port}' }}, deadline: 5s",
            "viruses-unix": f"clamav: {{ address: 'unix:{clamd.socket}' }}, {patient}",
            "spam": f"rspamd: {{ address: '127.0.0.1:{rspamd.port}' }}, deadline: 5s",
            "spam-unix": f"rspamd: {{ address: 'unix:{rspamd.socket}' }}, {patient}",
            "verify": f"milter: {{ address: '127.0.0.1:{opendkim}' }}, {patient}",
            "policy": f"milter: {{ address: 'unix:{policy}' }}, {patient}",
            "greedy": f"milter: {{ address: '127.0.0.1:{greedy}' }}, {patient}",
            "greedy-open": f"milter: {{ address: '127.0.0.1:{greedy}' }}, {patient}, whenDown: accept",
            "pure": f"milter: {{ address: '127.0.0.1:{pure}' }}, {patient}",
        }, mx_port))
        cases = play_cases(relay, kept)
        submitted = play_faults(relay, kept, clamd, rspamd)
        print(f"scanners: ok cases={cases} under-faults={submitted}")


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        print(f"scanners: FAILED {failure}")
        sys.exit(1)
