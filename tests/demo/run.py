"""`make demo`: starts the relay and two receiving MX hosts that are not ours, submits mail with clients
that are not ours, checks from outside what came, and stops everything.

The last line is `demo: ok accepted=N delivered=N bounced=N dkim_pass=N lost=0`, counted per recipient and
DSNs apart, or `demo: FAILED …` with exit status 1.
"""

import email
import email.policy
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from demo.arrivals import Verifier, read_dumps, read_mx_host  # noqa: E402
from demo.clients import PASSWORD_HASH, USERNAME, submit  # noqa: E402
from demo.messages import SENDER, all_messages  # noqa: E402
from rig.processes import Failed, Rig, free_port_on, listens, run, wait_until  # noqa: E402
from rig.relay import Relay  # noqa: E402
from rig.servers import Dns, Nats, Redis, ed25519_key, rsa_key  # noqa: E402

ALPHA, BETA = "127.0.0.2", "127.0.0.3"
PATIENCE = 90


def documents(folder, mx_port):
    return f"""apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: {{ name: acme }}
spec: {{ defaultStream: transactional, streams: [ {{ name: transactional, inDoubt: retry }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: {{ name: acme-app }}
spec: {{ tenant: acme, stream: transactional, username: "{USERNAME}", passwordHash: "{PASSWORD_HASH}" }}
---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: {{ name: acme.example }}
spec:
  tenant: acme
  dkim:
    - {{ selector: s1, algorithm: rsa-sha256, key: "file:{folder}/s1.pem" }}
    - {{ selector: e1, algorithm: ed25519-sha256, key: "file:{folder}/e1.pem" }}
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: {{ name: default }}
spec: {{ sources: [ {{ name: a, address: 127.0.0.1, ehlo: relay.example.com, weight: 1 }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Route
metadata: {{ name: default }}
spec: {{ pool: default, port: {mx_port}, allowPrivate: true, retry: {{ initial: 2s, factor: 2, max: 10s, jitter: 10 }} }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Shaping
metadata: {{ name: default }}
spec: {{ rules: [ {{ connections: 10, messagesPerConnection: 100, rate: "100/s" }} ] }}
"""


class Hosts:
    """The two MX hosts: smtp-sink dumping to files, and a Python aiosmtpd."""

    def __init__(self, rig):
        self.port = free_port_on([ALPHA, BETA])
        self.dumps, self.kept = rig.directory / "alpha", rig.directory / "beta"
        for folder in (self.dumps, self.kept):
            folder.mkdir()
            folder.chmod(0o777)
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        rig.start("smtp-sink", ["smtp-sink", *user, "-d", f"{self.dumps}/m.", f"{ALPHA}:{self.port}", "100"],
                  lambda: listens(ALPHA, self.port))
        rig.start("aiosmtpd", [sys.executable, pathlib.Path(__file__).with_name("mx_host.py"), BETA, self.port, self.kept],
                  lambda: listens(BETA, self.port))

    def arrivals(self):
        return [*read_dumps(self.dumps), *read_mx_host(self.kept)]


def start(rig):
    """Servers, DNS, MX hosts and the relay."""
    hosts = Hosts(rig)
    keys = {"s1": f"v=DKIM1; k=rsa; p={rsa_key(rig.directory / 's1.pem')}",
            "e1": f"v=DKIM1; k=ed25519; p={ed25519_key(rig.directory / 'e1.pem')}"}
    dns = Dns(
        rig,
        mx={"alpha.example": [(10, "mx.alpha.example")], "beta.example": [(10, "mx.beta.example")],
            "acme.example": [(10, "mx.beta.example")]},
        a={"mx.alpha.example": ALPHA, "mx.beta.example": BETA},
        txt={f"{selector}._domainkey.acme.example": text for selector, text in keys.items()},
    )
    certificate = rig.directory / "relay.pem", rig.directory / "relay.key"
    run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=relay.example.com",
         "-addext", "subjectAltName=DNS:relay.example.com", "-out", certificate[0], "-keyout", certificate[1]])
    relay = Relay(rig, Nats(rig), Redis(rig), dns, certificate=certificate)
    relay.apply(documents(rig.directory, hosts.port))
    return relay, hosts, Verifier(dns.port), certificate[0]


def wait_for(what, hosts, wanted):
    """Waits until `wanted(arrivals)` gives something."""
    return wait_until(what, lambda: wanted(hosts.arrivals()), PATIENCE, every=0.25)


def copy_for(arrivals, mail, recipient):
    """What came of the message for the recipient; more than one is a duplicate."""
    copies = [a for a in arrivals if a.header_id == mail.header_id and recipient in a.recipients]
    if len(copies) > 1:
        raise Failed(f"{mail.name}: {recipient} got it {len(copies)} times")
    return copies[0] if copies else None


def check_delivery(mail, recipient, hosts, verifier):
    """The message came, whole and signed."""
    arrival = wait_for(f"{mail.name} for {recipient}", hosts, lambda arrivals: copy_for(arrivals, mail, recipient))
    if arrival.body != mail.body:
        raise Failed(f"{mail.name}: the body for {recipient} differs ({len(arrival.body)} bytes of {len(mail.body)})")
    if arrival.sender != SENDER:
        raise Failed(f"{mail.name}: came with the return path <{arrival.sender}>")
    verifier.verify(arrival)
    print(f"  {mail.name}: {recipient} has it by {arrival.host}, body identical ({len(mail.body)} bytes), DKIM good", flush=True)


def check_bounce(mail, recipient, hosts):
    """A DSN came to the sender, and Python's email package reads it (RFC 3464)."""
    def dsn(arrivals):
        for arrival in arrivals:
            if arrival.sender == "" and SENDER in arrival.recipients:
                report = email.message_from_bytes(arrival.content, policy=email.policy.default)
                if report.get_content_type() == "multipart/report" and recipient in str(report):
                    return report
        return None

    report = wait_for(f"the DSN for {recipient}", hosts, dsn)
    parts = {part.get_content_type(): part for part in report.walk()}
    status = parts.get("message/delivery-status")
    if status is None:
        raise Failed(f"the DSN has no delivery status, only {sorted(parts)}")
    groups = status.get_payload()
    found = {name.lower(): value for group in groups for name, value in group.items()}
    wanted = {"final-recipient": recipient, "action": "failed", "status": "5.1.1", "diagnostic-code": "550"}
    for name, value in wanted.items():
        if value not in found.get(name, ""):
            raise Failed(f"the DSN says {name}: {found.get(name)!r}, wanted {value!r}")
    returned = parts.get("message/rfc822") or parts.get("text/rfc822-headers")
    if returned is None or mail.header_id.decode() not in returned.as_string():
        raise Failed("the DSN does not carry the header of the message")
    print(f"  {mail.name}: {recipient} is refused, its sender has a DSN ({found['action']}, {found['status']})", flush=True)


def demo(rig):
    print("starting nats-server, redis-server, dnsmasq, smtp-sink, aiosmtpd and the relay", flush=True)
    relay, hosts, verifier, certificate = start(rig)
    mails = all_messages()
    accepted = 0
    for mail in mails:
        submit(mail, relay, certificate, rig.directory)
        accepted += len(mail.recipients)
        print(f"  {mail.name}: {len(mail.content)} bytes by {mail.client}, accepted as {mail.message_id}", flush=True)

    delivered = bounced = 0
    for mail in mails:
        for recipient in mail.recipients:
            if recipient in mail.refused:
                check_bounce(mail, recipient, hosts)
                bounced += 1
            else:
                check_delivery(mail, recipient, hosts, verifier)
                delivered += 1

    # Nothing else may have come, and nothing may still come.
    time.sleep(1)
    arrivals = hosts.arrivals()
    extra = len(arrivals) - (delivered + bounced)
    if extra:
        raise Failed(f"{extra} messages more at the MX hosts than were sent")
    later = next(mail for mail in mails if mail.name == "later")
    timeline = relay.run("trace", later.message_id)
    print(f"\nThe way of {later.message_id} (451 at first):\n{timeline}", flush=True)
    return f"accepted={accepted} delivered={delivered} bounced={bounced} dkim_pass={delivered} lost={accepted - delivered - bounced}"


def main():
    try:
        with Rig("demo") as rig:
            result = demo(rig)
    except Failed as failure:
        print(f"demo: FAILED {failure}")
        sys.exit(1)
    except Exception as surprise:
        print(f"demo: FAILED {type(surprise).__name__}: {surprise}")
        sys.exit(1)
    print(f"demo: ok {result}")


if __name__ == "__main__":
    main()
