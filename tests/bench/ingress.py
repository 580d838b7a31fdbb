"""Benchmark `ingress`: what accepting a message costs the service, and what a connection costs.

Messages of 10 KiB with one recipient come over 20 connections; `cpu_us_per_message` is CPU time of the ingress process
alone, what it does for the storage included: `plain` without TLS, `tls` with it (handshakes are made before), `quotas`
without TLS and with three windows for the credential and one for its tenant. `storage` is what storing the same messages
costs a process that does nothing else; `accept` is `plain` without it. `scram` is a login with its connection.

`bytes_per_connection` is the growth of its memory by connections: `idle` and `idle-tls` have said EHLO and then nothing;
`active` are in the middle of a message, of which an octet comes each second. Beside all of these and as many that say
nothing at all, `connect` is the time from a client's SYN to its 220. Clients that vanish in a message leave no memory of
contents in use. `large-500m` is what one message of 500 MB takes of memory at most, in ingress and in the sender.
"""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import resource
import socket
import ssl
import struct
import subprocess
import threading
import time

from rig.processes import ROOT, Failed, Rig, run, wait_until
from rig.relay import Relay, bench_documents
from rig.servers import Dns, Nats, Redis, rsa_key

from .figures import Figures
from .load import SENDER_DOMAIN, SINK_DOMAIN, Sink

STORE = ROOT / "target" / "release" / "examples" / "bench-store"
MESSAGES = 20_000
CLIENTS = 20
IDLE = 2_000
ACTIVE = 500
LOGINS = 300
CONNECTS = 500
LARGE = 500_000_000
LINE = b"0123456789" * 7 + b"\r\n"
CONTENT = (f"From: load@{SENDER_DOMAIN}\r\nTo: user@{SINK_DOMAIN}\r\nSubject: bench\r\n\r\n".encode()
           + LINE * (10 * 1024 // len(LINE)) + b".\r\n")
# Clients from here have quotas, too wide to be used up.
LIMITED = """---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: limited }
spec:
  tenant: bench
  networks: ["127.9.0.0/16"]
  limits: { quotas: [1000000/m, 10000000/h, 100000000/12h], monthly: 1000000000, overQuota: defer }
"""
PASSWORD, SALT, ITERATIONS = b"correct horse", b"0123456789abcdef", 4_096


def keyed(key, text):
    return hmac.digest(key, text, "sha256")


SALTED = hashlib.pbkdf2_hmac("sha256", PASSWORD, SALT, ITERATIONS)
CLIENT_KEY = keyed(SALTED, b"Client Key")


def base64_text(octets):
    return base64.b64encode(octets).decode()


STORED_KEY = hashlib.sha256(CLIENT_KEY).digest()
KEYS = f"SCRAM-SHA-256${ITERATIONS}:{base64_text(SALT)}${base64_text(STORED_KEY)}:{base64_text(keyed(SALTED, b'Server Key'))}"
SCRAM = f"""---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: {{ name: scram }}
spec:
  tenant: bench
  username: scram@{SENDER_DOMAIN}
  passwordHash: "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$aGFzaA"
  scram: "{KEYS}"
"""


class Client:
    """A connection that submits."""

    def __init__(self, port, source="127.0.0.1", tls=None):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60, source_address=(source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname="relay.example.com")
        self.stream = self.socket.makefile("rb")
        self.expect(b"220")
        self.say(b"EHLO client.example\r\n", b"250")

    def expect(self, code):
        line = self.stream.readline()
        while line[3:4] == b"-":
            line = self.stream.readline()
        if not line.startswith(code):
            raise Failed(f"ingress says {line!r}")

    def say(self, octets, code):
        self.socket.sendall(octets)
        self.expect(code)

    def log_in(self):
        """SCRAM-SHA-256 (RFC 7677), with keys that are computed once."""
        first = f"n=scram@{SENDER_DOMAIN},r={base64_text(os.urandom(18))}"
        self.socket.sendall(f"AUTH SCRAM-SHA-256 {base64_text(b'n,,' + first.encode())}\r\n".encode())
        server = base64.b64decode(self.stream.readline().removeprefix(b"334 "))
        without = b"c=biws," + server.split(b",")[0]
        signature = keyed(STORED_KEY, b",".join([first.encode(), server, without]))
        proof = bytes(left ^ right for left, right in zip(CLIENT_KEY, signature))
        final = without + b",p=" + base64.b64encode(proof)
        self.say(base64.b64encode(final) + b"\r\n", b"334")
        self.say(b"\r\n", b"235")

    def begin(self):
        """Begins a message, and leaves it in its middle."""
        self.socket.sendall(f"MAIL FROM:<load@{SENDER_DOMAIN}>\r\nRCPT TO:<user@{SINK_DOMAIN}>\r\nDATA\r\n".encode())
        for code in (b"250", b"250", b"354"):
            self.expect(code)
        self.socket.sendall(CONTENT[:4_000])

    def vanish(self):
        """Is gone without a word: RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.close()
        self.socket.close()

    def submit(self):
        self.socket.sendall(f"MAIL FROM:<load@{SENDER_DOMAIN}>\r\nRCPT TO:<user@{SINK_DOMAIN}>\r\nDATA\r\n".encode())
        for code in (b"250", b"250", b"354"):
            self.expect(code)
        self.say(CONTENT, b"250")


def submit(clients, messages):
    """Submits over all of them at once."""
    problems = []

    def one(client):
        try:
            for _ in range(messages // len(clients)):
                client.submit()
        except (OSError, Failed) as problem:
            problems.append(problem)

    threads = [threading.Thread(target=one, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise Failed(f"submission: {problems[0]}")


def storage(nats, messages):
    """CPU time of storing a message, in microseconds."""
    command = [STORE, nats.url, f"http://127.0.0.1:{nats.monitor}", messages, f"load@{SENDER_DOMAIN}", f"user@{SINK_DOMAIN}"]
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise Failed(f"bench-store ended with {done.returncode}")
    return json.loads(done.stdout)["value"]


def rss_bytes(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise Failed("ingress is gone")


def free_for_contents(relay):
    """Memory for contents that nobody uses."""
    lines = relay.metric_lines("ingress")
    return next(int(float(line.split()[1])) for line in lines if line.startswith("staffetta_ingress_body_pool_free_bytes "))


def memory_of_connections(figures, relay, tls):
    """Memory by connections, and how fast another one is greeted meanwhile."""
    pid = relay.processes["ingress"].pid

    def grown(case, connections):
        before = rss_bytes(pid)
        made = connections()
        time.sleep(2)
        figures.add(case, "bytes_per_connection", (rss_bytes(pid) - before) / len(made), "B")
        return made

    kept = [grown("idle", lambda: [Client(relay.submission) for _ in range(IDLE)])]
    kept.append(grown("idle-tls", lambda: [Client(relay.submissions, tls=tls) for _ in range(IDLE // 4)]))
    free = free_for_contents(relay)

    def active():
        clients = [Client(relay.submission) for _ in range(ACTIVE)]
        for client in clients:
            client.begin()
        for _ in range(3):
            time.sleep(1)
            for client in clients:
                client.socket.sendall(b"x")
        return clients

    writers = grown("active", active)
    kept.append([socket.create_connection(("127.0.0.1", relay.submission)) for _ in range(ACTIVE)])
    times = []
    for _ in range(CONNECTS):
        began = time.perf_counter()
        with socket.create_connection(("127.0.0.1", relay.submission)) as client:
            if not client.recv(3) == b"220":
                raise Failed("a further client is not greeted")
            times.append(time.perf_counter() - began)
    times.sort()
    figures.add("connect", "p50_ms", times[len(times) // 2] * 1_000, "ms")
    figures.add("connect", "p99_ms", times[len(times) * 99 // 100] * 1_000, "ms")
    for client in writers:
        client.vanish()
    wait_until("what clients left that vanished is free again", lambda: free_for_contents(relay) == free)


def large_message(figures, relay, sink):
    """The largest message, from client to MX host."""
    client = Client(relay.submission)
    client.submit()
    sink.wait_for(sink.count + 1)
    processes = {name: relay.processes[name] for name in ("ingress", "sender")}
    before = {name: rss_bytes(process.pid) for name, process in processes.items()}
    most = dict(before)
    done = threading.Event()

    def watch():
        while not done.wait(0.02):
            for name, process in processes.items():
                most[name] = max(most[name], rss_bytes(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        expected, began = sink.count + 1, time.monotonic()
        client.socket.settimeout(600)
        client.say(f"MAIL FROM:<load@{SENDER_DOMAIN}> SIZE={LARGE}\r\n".encode(), b"250")
        client.say(f"RCPT TO:<user@{SINK_DOMAIN}>\r\n".encode(), b"250")
        client.say(b"DATA\r\n", b"354")
        block = LINE * 10_000
        client.socket.sendall(CONTENT.removesuffix(b".\r\n"))
        for _ in range((LARGE - len(CONTENT)) // len(block)):
            client.socket.sendall(block)
        client.say(b".\r\n", b"250")
        figures.add("large-500m", "accept_seconds", time.monotonic() - began, "s")
        sink.wait_for(expected, stalled_seconds=300)
        figures.add("large-500m", "delivered_seconds", time.monotonic() - began, "s")
    finally:
        done.set()
        watcher.join()
    extra = {name: (most[name] - before[name]) / 2**20 for name in processes}
    figures.add("large-500m", "extra_rss_mib", extra["ingress"], "MiB")
    if extra["ingress"] > 64:
        raise Failed(f"ingress took {extra['ingress']:.0f} MiB more for one large message")
    figures.add("large-500m", "sender_extra_rss_mib", extra["sender"], "MiB")


def run_bench(messages=MESSAGES):
    """Runs it and prints the figures."""
    figures = Figures("ingress")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * IDLE)), hard))
    with Rig("bench") as rig:
        sink = Sink(rig)
        key, certificate = rig.directory / "s1.pem", (rig.directory / "cert.pem", rig.directory / "key.pem")
        rsa_key(key)
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=relay.example.com", "-keyout", certificate[1], "-out", certificate[0]])
        nats, redis = Nats(rig), Redis(rig)
        dns = Dns(rig, mx={SINK_DOMAIN: [(10, f"mx.{SINK_DOMAIN}")]}, a={f"mx.{SINK_DOMAIN}": "127.0.0.1"})
        relay = Relay(rig, nats, redis, dns, certificate=certificate, listener="scram: true, maxMessageSize: 512MiB")
        relay.apply(bench_documents(key, sink.port, SENDER_DOMAIN) + LIMITED + SCRAM)
        ingress = relay.processes["ingress"]

        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        # First: what a process has freed would serve connections without growth.
        memory_of_connections(figures, relay, tls)
        cases = {
            "plain": [Client(relay.submission) for _ in range(CLIENTS)],
            "tls": [Client(relay.submissions, tls=tls) for _ in range(CLIENTS)],
            "quotas": [Client(relay.submission, source="127.9.0.1") for _ in range(CLIENTS)],
        }
        for case, clients in cases.items():
            submit(clients, messages // 10)
            before = ingress.cpu_us()
            submit(clients, messages)
            figures.add(case, "cpu_us_per_message", (ingress.cpu_us() - before) / messages)
        figures.add("storage", "cpu_us_per_message", storage(nats, messages))
        accept = figures.values["plain", "cpu_us_per_message"] - figures.values["storage", "cpu_us_per_message"]
        figures.add("accept", "cpu_us_per_message", accept)
        before = ingress.cpu_us()
        for _ in range(LOGINS):
            client = Client(relay.submission)
            client.log_in()
            client.say(b"QUIT\r\n", b"221")
        figures.add("scram", "cpu_us_per_login", (ingress.cpu_us() - before) / LOGINS, "us")

        sink.wait_for(4 * (messages + messages // 10))
        large_message(figures, relay, sink)
    for (case, metric), value in figures.values.items():
        print(f"{case:<12}{metric:<26}{value:>12,.1f}", flush=True)
    print(f"written to {figures.path}")
