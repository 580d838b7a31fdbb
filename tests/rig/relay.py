"""Staffetta as separate processes, or as one."""

import json
import os
import re
import urllib.request

from .processes import ROOT, Failed, free_port, run, wait_until

SERVICES = ("signer", "scheduler", "sender", "feedback", "ingress")
BINARY = os.environ.get("STAFFETTA_BIN", ROOT / "target" / "release" / "staffetta")


class Relay:
    """An installation: created, then run. `services` is "separate" or "all"; `listener` is added to that for submission. With
    `tokens`, a file of keys, there is a listener for what comes back."""

    def __init__(self, rig, nats, redis, dns, services="separate", certificate=None, hostname="relay.example.com",
                 listener="", tokens=None):
        self.rig, self.listener, self.tokens = rig, listener, tokens
        self.inbound = free_port()
        self.submission, self.submissions = free_port(), free_port()
        self.ports = {name: free_port() for name in ("signer", "scheduler")}
        self.metrics = {name: free_port() for name in (*SERVICES, "all")}
        self.configuration = rig.directory / "staffetta.yaml"
        self.configuration.write_text(self._bootstrap(nats, redis, dns, certificate, hostname))
        self.run("init")
        self.processes = {}
        # Further processes of a service, by name: configuration and service.
        self.others = {}
        for name in ("all",) if services == "all" else SERVICES:
            self.start(name)

    def _bootstrap(self, nats, redis, dns, certificate, hostname):
        tls = f"certificate: {certificate[0]}, key: {certificate[1]}" if certificate else ""
        starttls = f"tls: starttls, {tls}" if certificate else "tls: none"
        listeners = [f"{{ name: submission, kind: submission, address: '127.0.0.1:{self.submission}', {starttls},"
                     f" allowPlaintextAuthFrom: ['127.0.0.0/8'], {self.listener} }}"]
        if certificate:
            listeners.append(f"{{ name: submissions, kind: submission, address: '127.0.0.1:{self.submissions}',"
                             f" tls: implicit, {tls} }}")
        if self.tokens:
            listeners.append(f"{{ name: inbound, kind: inbound, address: '127.0.0.1:{self.inbound}', {starttls} }}")
        newline = "\n    - "
        tokens = f'tokens: {{ keys: "{self.tokens}" }}\n' if self.tokens else ""
        return f"""hostname: {hostname}
{tokens}nats: {{ url: "{nats.url}", monitor: "http://127.0.0.1:{nats.monitor}" }}
redis: {{ url: "{redis.url}" }}
durability: strict
partitions: 4
storage: {{ volumeBytes: 20GiB, replicas: 1 }}
resolvers: ["{dns.address}"]
ingress:
  metrics: 127.0.0.1:{self.metrics["ingress"]}
  listeners:
    - {newline.join(listeners)}
signer: {{ listen: "127.0.0.1:{self.ports["signer"]}", metrics: "127.0.0.1:{self.metrics["signer"]}" }}
scheduler:
  listen: 127.0.0.1:{self.ports["scheduler"]}
  advertise: 127.0.0.1:{self.ports["scheduler"]}
  metrics: 127.0.0.1:{self.metrics["scheduler"]}
sender:
  signers: ["http://127.0.0.1:{self.ports["signer"]}"]
  metrics: 127.0.0.1:{self.metrics["sender"]}
feedback: {{ metrics: "127.0.0.1:{self.metrics["feedback"]}" }}
all: {{ metrics: "127.0.0.1:{self.metrics["all"]}" }}
"""

    def run(self, *arguments):
        """Runs a command of the binary on this installation and gives its output."""
        return run([BINARY, "--config", self.configuration, *arguments])

    def start(self, service):
        """Starts one service, or `all`."""
        configuration, kind = self.others.get(service, (self.configuration, service))
        self.processes[service] = self.rig.start(service, [BINARY, "--config", configuration, "run", kind])

    def add_scheduler(self, name):
        """Starts one more scheduler, at ports of its own."""
        text = self.configuration.read_text()
        for ports, of in ((self.ports, "scheduler"), (self.metrics, "scheduler")):
            ports[name] = free_port()
            text = text.replace(f"127.0.0.1:{ports[of]}", f"127.0.0.1:{ports[name]}")
        path = self.rig.directory / f"{name}.yaml"
        path.write_text(text)
        self.others[name] = (path, "scheduler")
        self.start(name)

    def ready(self, service):
        """Whether the service says that it is ready."""
        if not self.processes[service].running():
            raise Failed(f"{service} has ended:\n{self.processes[service].tail()}")
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.metrics[service]}/readyz", timeout=2).status == 200
        except OSError:
            return False

    def wait_ready(self, seconds=60):
        for service in self.processes:
            try:
                wait_until(f"{service} ready", lambda: self.ready(service), seconds)
            except Failed as failure:
                raise Failed(f"{failure}\n{self.processes[service].tail()}") from None

    def apply(self, documents):
        """Applies resource documents, and waits until all services are ready with them."""
        path = self.rig.directory / "resources.yaml"
        path.write_text(documents)
        printed = self.run("apply", "--wait", "60s", "-f", path)
        self.wait_ready()
        return printed

    def queue(self, scheduler="scheduler"):
        """What waits, as `staffetta queue` tells it; this scheduler is asked who has which partition."""
        server = f"http://127.0.0.1:{self.ports[scheduler]}"
        return json.loads(self.run("queue", "--output", "json", "--limit", "10000", "--server", server))

    def owned_waiting(self):
        """Recipients that wait in partitions that have an owner; 0 while the scheduler does not answer."""
        try:
            return self.queue()["waiting"]
        except Failed:
            return 0

    def metric_lines(self, service):
        """The metrics of a service in Prometheus' text form, or those of the one process that runs all."""
        port = self.metrics[service if service in self.processes else "all"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return answer.read().decode().splitlines()

    def blocks(self):
        """How many blocks ingress stored with at most so many messages: {bound: blocks}, and `count`, `sum`."""
        found = {}
        for line in self.metric_lines("ingress"):
            if match := re.match(r'staffetta_ingress_block_messages_(bucket\{.*le="([^"]+)".*\}|count|sum)\S* (\S+)', line):
                found[match[2] or match[1]] = float(match[3])
        return found

    def waits(self):
        """Sums (seconds) and counts of what a final dot waited for at ingress: `accept_…`, of it `storage_…`."""
        found = {}
        for line in self.metric_lines("ingress"):
            if match := re.match(r"staffetta_ingress_(accept|storage)_seconds_(sum|count)\S* (\S+)", line):
                key = f"{match[1]}_{match[2]}"
                found[key] = found.get(key, 0) + float(match[3])
        return found


def bench_documents(key, mx_port, sender_domain):
    """Resources for the benchmarks: one tenant, trusted by network, with wide limits."""
    return f"""apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: {{ name: bench }}
spec: {{ defaultStream: transactional, streams: [ {{ name: transactional, inDoubt: retry }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: {{ name: bench }}
spec: {{ tenant: bench, stream: transactional, networks: ["127.0.0.0/8"] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: {{ name: {sender_domain} }}
spec: {{ tenant: bench, dkim: [ {{ selector: s1, algorithm: rsa-sha256, key: "file:{key}" }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: {{ name: default }}
spec: {{ sources: [ {{ name: a, ehlo: relay.example.com, weight: 1 }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Route
metadata: {{ name: default }}
spec: {{ pool: default, port: {mx_port}, allowPrivate: true, retry: {{ initial: 1s, factor: 2, max: 60s, jitter: 10 }} }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Shaping
metadata: {{ name: default }}
spec: {{ rules: [ {{ connections: 200, messagesPerConnection: 10000, rate: "100000/s", idleTimeout: 5s }} ] }}
"""
