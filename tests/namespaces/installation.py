"""The installation: a pod for every process, as the chart would have them."""

import json
import pathlib
import random
import re
import signal
import subprocess
import sys
import urllib.request

from rig.processes import SERVERS, Failed, listens, run, wait_until
from rig.relay import BINARY
from rig.servers import rsa_key

from .network import Network

SUBMISSION, PROXIED, MX_PORT = 25, 3587, 25
METRICS = {"ingress": 9101, "signer": 9102, "scheduler": 9103, "sender": 9104, "feedback": 9105}
SENDERS_AT_MOST = 8
REPLICAS = {"ingress": 3, "signer": 2, "scheduler": 2, "sender": SENDERS_AT_MOST, "feedback": 1}
# Domain, the pod that takes its mail; notifications go to the client's domain.
MX_HOSTS = {"one.example": "mx-one", "slow.example": "mx-slow", "acme.example": "mx-home"}
NATS = ("nats-0", "nats-1", "nats-2")
# Limits of mx-one and mx-slow.
FAST_CONNECTIONS, SLOW_CONNECTIONS, SLOW_PER_SECOND = 16, 8, 8
IDLE_SECONDS, FINAL_REPLY_SECONDS = 2, 10
# How long an attempt stays in doubt, as docs/operations.md says.
DOUBT_SECONDS = 80 + FINAL_REPLY_SECONDS
# More than any service's own bound (sender.drainTimeout and 15 s for its reports).
STOPS_WITHIN = 80


def documents(key, client):
    return f"""apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: {{ name: acme }}
spec: {{ defaultStream: transactional, streams: [ {{ name: transactional, inDoubt: retry }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: {{ name: acme-app }}
# The client itself: the load balancer, who has another address, may send nothing.
spec: {{ tenant: acme, stream: transactional, networks: ["{client}/32"] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: {{ name: acme.example }}
spec: {{ tenant: acme, dkim: [ {{ selector: s1, algorithm: rsa-sha256, key: "file:{key}" }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: {{ name: default }}
spec: {{ sources: [ {{ name: a, ehlo: relay.example.com }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Route
metadata: {{ name: default }}
spec: {{ pool: default, port: {MX_PORT}, allowPrivate: true, retry: {{ initial: 2s, factor: 2, max: 10s, jitter: 10 }} }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Shaping
metadata: {{ name: default }}
spec:
  rules:
    - {{ connections: {FAST_CONNECTIONS}, rate: 1000/s, idleTimeout: {IDLE_SECONDS}s, connectTimeout: 10s,
        finalReplyTimeout: {FINAL_REPLY_SECONDS}s }}
    - {{ match: {{ site: mx.slow.example }}, connections: {SLOW_CONNECTIONS}, rate: {SLOW_PER_SECOND}/s }}
"""


class Installation:
    """All of it, running with four senders when it is made."""

    def __init__(self, rig):
        self.rig = rig
        self.processes = {}
        self.network = network = Network(rig, "10.83.0.2")
        numbers = iter(range(10, 250))
        network.add("dns", 2)
        for pod in ("client", "proxy", "redis", *MX_HOSTS.values(), *NATS):
            network.add(pod, next(numbers))
        for service, replicas in REPLICAS.items():
            for replica in range(replicas):
                network.add(f"{service}-{replica}", next(numbers))
        # From here on this script sees what a client in the cluster sees.
        network.enter("client")
        self._start_dns()
        self.books = {name: self._start_mx_host(name) for name in MX_HOSTS.values()}
        self.start("redis")
        for name in NATS:
            self.spawn(name)
        self.wait_nats()
        self.configuration = rig.directory / "staffetta.yaml"
        self.configuration.write_text(self._bootstrap())
        self.command("init")
        for service, replicas in REPLICAS.items():
            for replica in range(4 if service == "sender" else replicas):
                self.spawn(f"{service}-{replica}")
        key = rig.directory / "s1.pem"
        rsa_key(key)
        resources = rig.directory / "resources.yaml"
        resources.write_text(documents(key, network.addresses["client"]))
        wait_until("the configuration taken", lambda: self._applied(resources), 60, every=1)
        for name in self.running_services():
            self.wait_ready(name)
        self.start("proxy")

    def _applied(self, resources):
        try:
            return self.command("apply", "--wait", "60s", "-f", resources)
        except Failed as failure:
            self.last_failure = failure
            return None

    # What runs in the pods.

    def spawn(self, name):
        """Starts what belongs into the pod."""
        address, directory = self.network.addresses[name], self.rig.directory
        service = name.rpartition("-")[0] or name
        if service == "nats":
            configuration = directory / f"{name}.conf"
            configuration.write_text(self._nats(name))
            argv = [SERVERS / "nats-server", "-c", configuration]
        elif service == "redis":
            argv = [SERVERS / "redis-server", "--bind", address, "--port", 6379, "--protected-mode", "no", "--save", "",
                    "--appendonly", "no", "--dir", directory]
        elif service == "proxy":
            configuration = directory / "haproxy.cfg"
            configuration.write_text(self._haproxy())
            argv = ["haproxy", "-db", "-f", configuration]
        else:
            argv = ["env", f"POD_IP={address}", BINARY, "--config", self.configuration, "run", service]
        self.processes[name] = self.rig.start(name, self.network.command(name, argv))

    def start(self, name):
        """Starts it and waits until it is ready."""
        self.spawn(name)
        self.wait_ready(name)

    def wait_ready(self, name, seconds=90):
        address, process = self.network.addresses[name], self.processes[name]
        service = name.rpartition("-")[0] or name

        def ready():
            if not process.running():
                raise Failed(f"{name} has ended:\n{process.tail()}")
            if service == "redis":
                return listens(address, 6379)
            if service == "proxy":
                return listens(address, SUBMISSION)
            if service == "nats":
                return get(f"http://{address}:8222/healthz")
            return get(f"http://{address}:{METRICS[service]}/readyz")

        wait_until(f"{name} ready", ready, seconds, every=0.2)

    def wait_nats(self):
        """Until the cluster is whole: every server has what it should have."""
        for name in NATS:
            self.wait_ready(name)

    def stop(self, *names):
        """SIGTERM to all of them at once, as when a deployment is scaled down; each must end by itself, with status 0."""
        for name in names:
            self.processes[name].child.send_signal(signal.SIGTERM)
        for name in names:
            process = self.processes.pop(name)
            try:
                status = process.child.wait(STOPS_WITHIN)
            except subprocess.TimeoutExpired:
                raise Failed(f"{name} did not end within {STOPS_WITHIN} s of SIGTERM\n{process.tail()}") from None
            self.rig.processes.remove(process)
            if status != 0 and name.rpartition("-")[0] in METRICS:
                raise Failed(f"{name} ended with status {status}\n{process.tail()}")

    def kill(self, name):
        """kill -9."""
        process = self.processes.pop(name)
        process.kill()
        self.rig.processes.remove(process)

    def running_services(self, service=None):
        """Pods that run a service of ours."""
        return [name for name in self.processes if (name.rpartition("-")[0] in METRICS if service is None
                                                    else name.rpartition("-")[0] == service)]

    # Configurations.

    def _names(self):
        """DNS inside: each pod, and the services with the addresses of all their pods."""
        for name, address in self.network.addresses.items():
            yield f"{name}.test", address
            service = name.rpartition("-")[0]
            if service in ("nats", "signer"):
                yield f"{service}.test", address

    def _start_dns(self):
        address = self.network.addresses["dns"]
        lines = ["no-resolv", "no-hosts", "no-daemon", "bind-interfaces", f"listen-address={address}", "port=53",
                 "pid-file=", "cache-size=0", "local=/#/", "user=root"]
        for domain, host in MX_HOSTS.items():
            lines += [f"mx-host={domain},mx.{domain},10", f"host-record=mx.{domain},{self.network.addresses[host]}"]
        lines += [f"host-record={name},{address}" for name, address in self._names()]
        configuration = self.rig.directory / "dnsmasq.conf"
        configuration.write_text("\n".join(lines) + "\n")
        argv = [SERVERS / "dnsmasq", "--keep-in-foreground", f"--conf-file={configuration}"]
        self.rig.start("dns", self.network.command("dns", argv), lambda: listens(address, 53))

    def _start_mx_host(self, name):
        address, book = self.network.addresses[name], self.rig.directory / f"{name}.book"
        program = pathlib.Path(__file__).with_name("mx_host.py")
        argv = [sys.executable, program, address, MX_PORT, book]
        self.rig.start(name, self.network.command(name, argv), lambda: listens(address, MX_PORT))
        return book

    def _nats(self, name):
        routes = "".join(f"    nats-route://{other}.test:6222\n" for other in NATS)
        return f"""server_name: {name}
listen: "{self.network.addresses[name]}:4222"
http: "{self.network.addresses[name]}:8222"
max_payload: 8MB
max_pending: 256MB
jetstream {{ store_dir: "{self.rig.directory / name}", max_file: 6GB, max_mem: 64MB, sync_interval: always }}
cluster {{
  name: staffetta
  listen: "{self.network.addresses[name]}:6222"
  routes: [
{routes}  ]
}}
"""

    def _haproxy(self):
        servers = "".join(
            f"    server ingress-{n} {self.network.addresses[f'ingress-{n}']}:{PROXIED} send-proxy-v2 "
            f"check port {METRICS['ingress']} inter 500ms fall 1 rise 1\n"
            for n in range(REPLICAS["ingress"]))
        return f"""global
    log stdout format raw local0 notice
    maxconn 2000
defaults
    mode tcp
    log global
    timeout connect 2s
    timeout client 5m
    timeout server 5m
    timeout check 2s
    option redispatch
    retries 3
frontend smtp
    bind {self.network.addresses["proxy"]}:{SUBMISSION}
    default_backend ingress
backend ingress
    balance leastconn
    option httpchk GET /readyz
    http-check expect status 200
{servers}"""

    def _bootstrap(self):
        nats = ",".join(f"nats://{name}.test:4222" for name in NATS)
        return f"""hostname: relay.example.com
nats: {{ url: "{nats}", monitor: "http://nats.test:8222" }}
redis: {{ url: "redis://redis.test:6379" }}
durability: strict
partitions: 4
storage: {{ volumeBytes: 4GiB, replicas: 3 }}
resolvers: ["{self.network.addresses["dns"]}:53"]
ingress:
  metrics: "${{POD_IP}}:9101"
  listeners:
    - {{ name: proxied, kind: submission, address: "${{POD_IP}}:{PROXIED}", tls: none,
        proxyProtocol: {{ trusted: ["{self.network.addresses["proxy"]}/32"] }} }}
signer: {{ listen: "${{POD_IP}}:7102", metrics: "${{POD_IP}}:9102" }}
scheduler: {{ listen: "${{POD_IP}}:7103", advertise: "${{POD_IP}}:7103", metrics: "${{POD_IP}}:9103" }}
sender: {{ signers: ["http://signer.test:7102"], metrics: "${{POD_IP}}:9104", drainTimeout: 60s }}
feedback: {{ metrics: "${{POD_IP}}:9105" }}
"""

    # What the operator sees.

    def command(self, *arguments, scheduler="scheduler-0"):
        """Runs a command of the binary from the client's pod."""
        server = [] if arguments[0] == "init" else ["--server", f"http://{self.network.addresses[scheduler]}:7103"]
        address = self.network.addresses["client"]
        argv = ["env", f"POD_IP={address}", BINARY, "--config", self.configuration, *arguments, *server]
        return run(self.network.command("client", argv))

    def queue(self):
        """What waits, as `staffetta queue` tells it."""
        return json.loads(self.command("queue", "--output", "json", "--limit", "100"))

    def metric(self, name, metric):
        """The sum of a metric of a pod over all its labels."""
        service = name.rpartition("-")[0]
        text = get(f"http://{self.network.addresses[name]}:{METRICS[service]}/metrics") or ""
        return sum(float(value) for value in re.findall(rf"^{metric}(?:\{{.*\}})? (\S+)$", text, re.M))

    def nats_leader(self, dice):
        """A server that leads a stream with mail in it, if it can be told, else any."""
        for name in dice.sample(NATS, len(NATS)):
            found = json.loads(get(f"http://{self.network.addresses[name]}:8222/jsz?streams=1&accounts=1") or "{}")
            for account in found.get("account_details", []):
                for stream in account.get("stream_detail", []):
                    if stream["name"].startswith("SPOOL_"):
                        return stream.get("cluster", {}).get("leader", name)
        return random.choice(NATS)


def get(url):
    """The body of a page with status 200, or None."""
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:
            return answer.read().decode() or "ok" if answer.status == 200 else None
    except OSError:
        return None
