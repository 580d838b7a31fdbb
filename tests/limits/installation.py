"""Three schedulers, four senders and what they need, each process at a loopback address of its own."""

import contextlib
import json
import pathlib
import sys
import urllib.request

from rig.processes import Failed, free_port_on, listens, run, wait_until
from rig.relay import BINARY
from rig.servers import Dns, Nats, Redis, rsa_key

from .book import Book

INSTANCES = ("signer-0", "scheduler-0", "scheduler-1", "scheduler-2", "sender-0", "sender-1", "sender-2", "sender-3",
             "feedback-0", "ingress-0")
MX_ADDRESS = "127.20.1.1"


class Limit:
    """A limit with the source address, the domains and the rules that belong to it.

    messages and opened: [(count, seconds)]; connections: count; `delay`: how long the host takes to accept. With several
    `sites` it is one of a provider: each domain has an MX host of its own name, and all are the same machine.
    """

    def __init__(self, name, messages=(), opened=(), connections=None, delay=0.0, backlog=60, sites=1):
        self.name, self.messages, self.opened, self.connections = name, list(messages), list(opened), connections
        self.delay, self.backlog, self.sites = delay, backlog, sites
        names = [name] if sites == 1 else [f"{name}-{number}" for number in range(sites)]
        self.domains = [f"{each}.example" for each in names]
        self.hosts = ["mx.example"] if sites == 1 else [f"mx{number}.{name}.example" for number in range(sites)]

    def mx(self):
        """{domain: [(preference, host)]}"""
        return {domain: [(10, host)] for domain, host in zip(self.domains, self.hosts)}

    def rules(self):
        """The fields of its shaping rules."""
        unit = {1: "s", 60: "m"}
        of_site = [f"match: {{ source: {self.name} }}", f"messagesPerConnection: {1 if self.opened else 1000}"]
        fields = [f"connections: {self.connections or 50}"]
        if self.messages:
            fields.append(f"rates: [{', '.join(f'{count}/{unit[seconds]}' for count, seconds in self.messages)}]")
        if self.opened:
            [(count, seconds)] = self.opened
            fields.append(f"connectionRate: {count}/{unit[seconds]}")
        if self.sites == 1:
            return [", ".join(of_site + fields)]
        of_all = [f"match: {{ source: {self.name}, provider: {self.name} }}", "scope: provider", *fields]
        return [", ".join(of_site + ["connections: 50"]), ", ".join(of_all)]


class Installation:
    """Running with its configuration applied when it is made."""

    def __init__(self, rig, limits, uneven, partitions=8):
        self.rig, self.limits, self.uneven = rig, limits, uneven
        for number, limit in enumerate(limits, 1):
            limit.source = f"127.20.0.{number}"
        self.addresses = {name: f"127.20.2.{number}" for number, name in enumerate(INSTANCES, 1)}
        everywhere = list(self.addresses.values())
        self.ports = {name: free_port_on(everywhere) for name in ("signer", "scheduler", "submission", "metrics")}
        self.mx_port = free_port_on([MX_ADDRESS])
        self.nats, self.redis = Nats(rig), Redis(rig)
        mx = {domain: hosts for limit in limits for domain, hosts in limit.mx().items()}
        self.dns = Dns(rig, mx, {host: MX_ADDRESS for limit in limits for host in limit.hosts})
        self.book = Book(rig.directory / "sink.book")
        self._start_sink()
        self.configuration = rig.directory / "staffetta.yaml"
        self.configuration.write_text(self._bootstrap(partitions))
        self.command("init")
        self.processes = {name: self._start(name) for name in INSTANCES}
        key = rig.directory / "s1.pem"
        rsa_key(key)
        resources = rig.directory / "resources.yaml"
        resources.write_text(self._documents(key))
        self.command("apply", "--wait", "60s", "-f", resources)
        for name in INSTANCES:
            wait_until(f"{name} ready", lambda: self._is_ready(name), 90)
        wait_until("all partitions owned", self._all_owned, 60, every=0.5)

    def _start_sink(self):
        table = {limit.source: {"messages": limit.messages, "opened": limit.opened, "delay": limit.delay,
                                "uneven": self.uneven,
                                **({"connections": limit.connections} if limit.connections else {})}
                 for limit in self.limits}
        path = self.rig.directory / "limits.json"
        path.write_text(json.dumps(table))
        program = pathlib.Path(__file__).with_name("sink.py")
        self.sink = self.rig.start("sink", [sys.executable, program, MX_ADDRESS, self.mx_port, path, self.book.path],
                                   lambda: listens(MX_ADDRESS, self.mx_port))

    def _start(self, name):
        argv = ["env", f"POD_IP={self.addresses[name]}", BINARY, "--config", self.configuration, "run",
                name.rpartition("-")[0]]
        return self.rig.start(name, argv)

    def start_again(self, name):
        """One that was killed."""
        self.processes[name] = self._start(name)

    def core_waits(self):
        """How often a thread of the relay got a core so far, and how long it had waited for it in all, seconds."""
        waited = runs = 0
        for process in self.processes.values():
            for path in pathlib.Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError):
                    _, nanoseconds, times = map(int, path.read_text().split())
                    waited, runs = waited + nanoseconds / 1e9, runs + times
        return waited, runs

    def command(self, *arguments):
        """Runs a command of the binary."""
        server = [] if arguments[0] == "init" else [
            "--server", f"http://{self.addresses['scheduler-0']}:{self.ports['scheduler']}"]
        address = self.addresses["scheduler-0"]
        return run(["env", f"POD_IP={address}", BINARY, "--config", self.configuration, *arguments, *server])

    def _is_ready(self, name):
        if not self.processes[name].running():
            raise Failed(f"{name} has ended:\n{self.processes[name].tail()}")
        url = f"http://{self.addresses[name]}:{self.ports['metrics']}/readyz"
        try:
            return urllib.request.urlopen(url, timeout=2).status == 200
        except OSError:
            return False

    def _all_owned(self):
        try:
            return not json.loads(self.command("queue", "--output", "json", "--limit", "10"))["partitionsWithoutOwner"]
        except Failed:
            return False

    @property
    def submission(self):
        return self.addresses["ingress-0"], self.ports["submission"]

    def _bootstrap(self, partitions):
        metrics = f'metrics: "${{POD_IP}}:{self.ports["metrics"]}"'
        return f"""hostname: relay.example.com
nats: {{ url: "{self.nats.url}", monitor: "http://127.0.0.1:{self.nats.monitor}" }}
redis: {{ url: "{self.redis.url}" }}
durability: strict
partitions: {partitions}
storage: {{ volumeBytes: 10GiB, replicas: 1 }}
resolvers: ["{self.dns.address}"]
ingress:
  {metrics}
  listeners:
    - {{ name: submission, kind: submission, address: "${{POD_IP}}:{self.ports["submission"]}", tls: none }}
signer: {{ listen: "${{POD_IP}}:{self.ports["signer"]}", {metrics} }}
scheduler:
  listen: "${{POD_IP}}:{self.ports["scheduler"]}"
  advertise: "${{POD_IP}}:{self.ports["scheduler"]}"
  {metrics}
sender: {{ signers: ["http://{self.addresses["signer-0"]}:{self.ports["signer"]}"], {metrics} }}
feedback: {{ {metrics} }}
"""

    def _documents(self, key):
        documents = [f"""kind: Tenant
metadata: {{ name: acme }}
spec: {{ defaultStream: transactional, streams: [ {{ name: transactional, inDoubt: retry }} ] }}
""", """kind: Credential
metadata: { name: acme-app }
spec: { tenant: acme, stream: transactional, networks: ["127.0.0.0/8"] }
""", f"""kind: SendingDomain
metadata: {{ name: acme.example }}
spec: {{ tenant: acme, dkim: [ {{ selector: s1, algorithm: rsa-sha256, key: "file:{key}" }} ] }}
"""]
        for limit in self.limits:
            documents.append(f"""kind: EgressPool
metadata: {{ name: {limit.name} }}
spec: {{ sources: [ {{ name: {limit.name}, address: {limit.source}, ehlo: relay.example.com }} ] }}
""")
            documents.append(f"""kind: Route
metadata: {{ name: {limit.name} }}
spec: {{ match: {{ domains: [{", ".join(limit.domains)}] }}, pool: {limit.name}, port: {self.mx_port}, allowPrivate: true }}
""")
            if limit.sites > 1:
                documents.append(f"""kind: Provider
metadata: {{ name: {limit.name} }}
spec: {{ mx: [.{limit.name}.example] }}
""")
        rules = "".join(f"    - {{ {rule} }}\n" for limit in self.limits for rule in limit.rules())
        documents.append(f"kind: Shaping\nmetadata: {{ name: default }}\nspec:\n  rules:\n{rules}")
        return "---\n".join(f"apiVersion: staffetta.dev/v1alpha1\n{document}" for document in documents)
