"""`make inbound`: a relay sends to Postfix, which accepts everything, is refused behind, and reports to the return paths that the relay
has made. Each report must become one event with the recipient, class and hardness of the refusal, and a DSN to who sent the
message unless it asked for none; nothing that Postfix delivers may become anything. The relay takes no mail for others.

The last line is `inbound: ok …`, or `inbound: FAILED …` with exit status 1.
"""

import collections
import email
import json
import pathlib
import smtplib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from bounces.mailers import Host, Postfix  # noqa: E402
from rig.processes import Failed, Rig, free_port, run, wait_until  # noqa: E402
from rig.relay import Relay  # noqa: E402
from rig.servers import Dns, Nats, Redis  # noqa: E402

SENDER = "app@acme.example"
DOMAIN = "b.acme.example"
PATIENCE = 120
# By local part: the command that is answered, the reply, and the class and hardness of the event; none for what arrives.
REPLIES = {
    "nobody": ("RCPT", "550 5.1.1 There is no such mailbox here", ("recipient", True)),
    "full": ("RCPT", "552 5.2.2 The mailbox is full", ("mailbox_full", False)),
    "listed": ("RCPT", "554 5.7.1 Your address is on our blocklist", ("policy", False)),
    "spam": ("DATA", "554 5.7.1 This looks like spam", ("policy", False)),
    "fine": ("", "", None),
}


class Receiver(Postfix):
    """Accepts everything for everybody, sends it on to a host, and reports to the relay's listener."""

    def __init__(self, rig, port, inbound):
        self.port, self.inbound = free_port(), inbound
        super().__init__(rig, port)
        main, master = (self.configuration / name for name in ("main.cf", "master.cf"))
        transport = self.configuration / "transport"
        transport.write_text(f"{DOMAIN} smtp:[127.0.0.1]:{inbound}\n")
        with main.open("a") as file:
            file.write(f"transport_maps = texthash:{transport}\nmynetworks = 127.0.0.0/8\n"
                       "smtpd_relay_restrictions = permit_mynetworks, reject\nsmtpd_peername_lookup = no\n"
                       "smtpd_tls_security_level = none\nsmtp_tls_security_level = none\n")
        with master.open("a") as file:
            file.write(f"127.0.0.1:{self.port} inet n - n - - smtpd\n")
        run(["postfix", "-c", self.configuration, "stop"])
        run(["postfix", "-c", self.configuration, "start"])


def documents(port):
    return f"""apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: {{ name: acme }}
spec: {{ defaultStream: mail, streams: [ {{ name: mail }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: {{ name: acme-app }}
spec: {{ tenant: acme, networks: [127.0.0.0/8] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: {{ name: acme.example }}
spec: {{ tenant: acme, unsigned: true, returnPath: {{ mode: ours, domain: {DOMAIN}, forwardTo: people@acme.example }} }}
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: {{ name: default }}
spec: {{ sources: [ {{ name: a, ehlo: relay.example.com }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Route
metadata: {{ name: default }}
spec: {{ pool: default, port: {port}, allowPrivate: true, retry: {{ waits: [2s], jitter: 0 }} }}
"""


def submit(relay, name, notify):
    with smtplib.SMTP("127.0.0.1", relay.submission, timeout=60) as client:
        recipient = f"{name}@d.example"
        content = f"From: {SENDER}\r\nTo: {recipient}\r\nSubject: {name}\r\n\r\nHello\r\n"
        client.sendmail(SENDER, [recipient], content, mail_options=[f"ENVID={name}"],
                        rcpt_options=[f"NOTIFY={notify}", f"ORCPT=rfc822;{recipient}"])


def events(relay):
    lines = relay.run("events").splitlines()
    found = [json.loads(line) for line in lines if "OutOfBandBounce" in line]
    return {event["recipient"]: event for event in found}, len(found)


def is_no_relay(relay):
    """Recipients that the listener must refuse."""
    with smtplib.SMTP("127.0.0.1", relay.inbound, timeout=60) as client:
        client.ehlo("x.example")
        client.mail("x@elsewhere.example")
        asked = ["a@d.example", "people@acme.example", f"a%d.example@{DOMAIN}", f"\"a@d.example\"@{DOMAIN}", f"info@{DOMAIN}"]
        return [address for address in asked if client.rcpt(address)[0] // 100 != 5]


def dsns(host):
    """ENVID of each notification that came to who sent the messages."""
    found = collections.Counter()
    for content in host.returned:
        message = email.message_from_bytes(content)
        for part in message.walk():
            if part.get_content_type() == "message/delivery-status":
                found[part.get_payload()[0]["Original-Envelope-Id"]] += 1
    return found


def main():
    with Rig("inbound") as rig:
        host = Host({name: row[:2] for name, row in REPLIES.items()})
        host.start()
        rig.at_end.append(host.stop)
        keys = rig.directory / "tokens.keys"
        keys.write_text("1 a secret of the test's own\n")
        nats, redis = Nats(rig), Redis(rig)
        hosts = [(10, "mx.d.example")]
        dns = Dns(rig, mx={"d.example": hosts, "acme.example": hosts}, a={"mx.d.example": "127.0.0.1"})
        relay = Relay(rig, nats, redis, dns, services="all", tokens=keys)
        receiver = Receiver(rig, host.port, relay.inbound)
        relay.apply(documents(receiver.port))
        open_for = is_no_relay(relay)
        if open_for:
            raise Failed(f"it would relay to {open_for}")
        for name in REPLIES:
            submit(relay, name, "NEVER" if name == "full" else "FAILURE")
        # A host is not asked for a report that the client does not want.
        bad = [name for name, row in REPLIES.items() if row[2] and name != "full"]
        wait_until("events of the reports", lambda: events(relay)[1] >= len(bad), PATIENCE)
        wait_until("notifications", lambda: sum(dsns(host).values()) >= len(bad), PATIENCE)
        found, count = events(relay)
        wrong = [f"{count} events, not {len(bad)}"] * (count != len(bad))
        for name in bad:
            event = found.get(f"{name}@d.example", {})
            got = (event.get("class"), event.get("hard", False))
            if got != REPLIES[name][2]:
                wrong.append(f"{name}: {got}, not {REPLIES[name][2]}")
        told = dsns(host)
        if told != collections.Counter(bad):
            wrong.append(f"notifications: {dict(told)}, not one each of {bad}")
        if wrong:
            raise Failed("\n".join(wrong))
    print(f"inbound: ok, {len(bad)} reports of Postfix came back: an event and a notification for each")


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        print(failure)
        print("inbound: FAILED")
        sys.exit(1)
