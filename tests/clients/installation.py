"""The one configuration that all clients use, unchanged: two processes of ingress, all their listeners."""

import re

from rig.processes import free_port, listens, run, wait_until
from rig.relay import BINARY, Relay

from .mail import USERNAME

PROXY = "127.0.0.3"


class Installation(Relay):
    """With listeners for HAProxy, for proxies that speak XCLIENT and for clients with certificates, and a second ingress beside the first."""

    def __init__(self, rig, nats, redis, dns, certificate, client_authority):
        self.proxied, self.xclient, self.certified = free_port(), free_port(), free_port()
        self.client_authority = client_authority
        super().__init__(rig, nats, redis, dns, certificate=certificate)
        # The same listeners on other ports.
        self.second_proxied, self.second_metrics = free_port(), free_port()
        text = self.configuration.read_text()
        for old, new in ((self.proxied, self.second_proxied), (self.metrics["ingress"], self.second_metrics),
                         (self.submission, free_port()), (self.submissions, free_port()), (self.xclient, free_port()),
                         (self.certified, free_port())):
            text = re.sub(rf":{old}\b", f":{new}", text)
        second = rig.directory / "second.yaml"
        second.write_text(text)
        rig.start("ingress-2", [BINARY, "--config", second, "run", "ingress"])

    def _bootstrap(self, nats, redis, dns, certificate, hostname):
        text = super()._bootstrap(nats, redis, dns, certificate, hostname)
        # SCRAM wherever somebody logs in.
        text = text.replace("kind: submission,", "kind: submission, scram: true,")
        tls = f"tls: starttls, certificate: {certificate[0]}, key: {certificate[1]}"
        more = (f"    - {{ name: proxied, address: '127.0.0.1:{self.proxied}', {tls}, scram: true,"
                " proxyProtocol: { trusted: ['127.0.0.0/8'] } }\n"
                f"    - {{ name: xclient, address: '127.0.0.1:{self.xclient}', {tls}, scram: true,"
                f" xclient: {{ trusted: ['{PROXY}/32'] }} }}\n"
                f"    - {{ name: certified, address: '127.0.0.1:{self.certified}', {tls}, scram: true,"
                f" clientAuthorities: {self.client_authority} }}\n")
        return text.replace("  listeners:\n", "  listeners:\n" + more)

    def wait_second(self):
        wait_until("the second ingress", lambda: listens("127.0.0.1", self.second_proxied), 60)


def documents(relay, password, mx_port):
    """The credential has a password and SCRAM keys, and a network for XCLIENT."""
    hashed = run([BINARY, "hash-password"], input=password + "\n").strip()
    scram = run([BINARY, "hash-password", "--scram"], input=password + "\n").strip()
    return f"""apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: {{ name: acme }}
spec: {{ defaultStream: transactional, streams: [ {{ name: transactional }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: {{ name: acme-app }}
spec: {{ tenant: acme, username: "{USERNAME}", passwordHash: "{hashed}", scram: "{scram}", networks: [192.0.2.0/24] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: {{ name: acme.example }}
spec: {{ tenant: acme, unsigned: true }}
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
"""
