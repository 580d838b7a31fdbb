"""nats-server, redis-server and dnsmasq with data of their own."""

import json
import socket
import time
import urllib.request

from .processes import SERVERS, Failed, free_port, listens, run


class Nats:
    """JetStream with an fsync for every record, as the strict mode wants it."""

    def __init__(self, rig, trace_fsyncs=None, sync_interval="always"):
        self.rig = rig
        self.port, self.monitor = free_port(), free_port()
        self.data = rig.directory / "nats"
        configuration = rig.directory / "nats.conf"
        configuration.write_text(
            f'host: 127.0.0.1\nport: {self.port}\nhttp: "127.0.0.1:{self.monitor}"\n'
            "max_payload: 8MB\nmax_pending: 256MB\n"
            f'jetstream {{ store_dir: "{self.data}", max_mem: 1GB, max_file: 30GB, sync_interval: {sync_interval} }}\n'
        )
        argv = [SERVERS / "nats-server", "-c", configuration]
        if trace_fsyncs:
            argv = ["strace", "-I2", "-f", "--seccomp-bpf", "-e", "trace=fsync,fdatasync", "-o", trace_fsyncs] + argv
        self.process = rig.start("nats-server", argv, lambda: listens("127.0.0.1", self.port))

    @property
    def url(self):
        return f"nats://127.0.0.1:{self.port}"

    def _get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.monitor}/{path}", timeout=10) as answer:
            return json.load(answer)

    def operations(self):
        """Messages so far from and to clients. Every publish and request goes in and its answer out; what a
        consumer delivers only goes out. So the larger of the two counts the operations."""
        found = self._get("varz")
        return {"in_msgs": found["in_msgs"], "out_msgs": found["out_msgs"]}


class Redis:
    """A redis-server that keeps nothing on disk."""

    def __init__(self, rig):
        self.rig = rig
        self.port = free_port()
        self._start()

    def _start(self):
        self.process = self.rig.start(
            "redis-server",
            [SERVERS / "redis-server", "--bind", "127.0.0.1", "--port", self.port, "--save", "", "--appendonly", "no",
             "--dir", self.rig.directory, "--daemonize", "no"],
            lambda: listens("127.0.0.1", self.port),
        )

    def empty(self):
        """Forgets everything, and goes on."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(b"FLUSHALL\r\n")
            if (reply := connection.recv(100)) != b"+OK\r\n":
                raise Failed(f"FLUSHALL: {reply!r}")

    def restart(self, away):
        """Is killed, and comes back with nothing after so many seconds."""
        self.process.kill()
        time.sleep(away)
        self._start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"


class Dns:
    """A DNS server that knows the zones given and answers NXDOMAIN for the rest.

    mx: {domain: [(preference, host)]}, a: {host: address}, txt: {name: text}; kept by who asks for `ttl` seconds.
    """

    def __init__(self, rig, mx, a, txt=None, ttl=0):
        self.port = free_port()
        lines = ["no-resolv", "no-hosts", "no-daemon", "bind-interfaces", "listen-address=127.0.0.1",
                 f"port={self.port}", "pid-file=", "cache-size=0", f"local-ttl={ttl}", "edns-packet-max=4096",
                 # What is not named does not exist, and is asked nowhere.
                 "local=/#/"]
        lines += [f"mx-host={domain},{host},{preference}" for domain, hosts in mx.items() for preference, host in hosts]
        lines += [f"host-record={host},{address}" for host, address in a.items()]
        for name, text in (txt or {}).items():
            # A string in a TXT record has 255 octets at most.
            pieces = ",".join(f'"{text[i:i + 250]}"' for i in range(0, len(text), 250))
            lines.append(f"txt-record={name},{pieces}")
        configuration = rig.directory / "dnsmasq.conf"
        configuration.write_text("\n".join(lines) + "\n")
        self.process = rig.start(
            "dnsmasq", [SERVERS / "dnsmasq", "--keep-in-foreground", f"--conf-file={configuration}"],
            lambda: listens("127.0.0.1", self.port),
        )

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"


def rsa_key(path, bits=2048):
    """Makes an RSA key in PKCS#8 and gives its public half as DKIM wants it (base64 of the DER)."""
    run(["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{bits}", "-out", path])
    return _public(path)


def ed25519_key(path):
    """Makes an Ed25519 key in PKCS#8 and gives the raw public key in base64 (RFC 8463 section 4.2)."""
    import base64
    run(["openssl", "genpkey", "-algorithm", "ED25519", "-out", path])
    return base64.b64encode(base64.b64decode(_public(path))[-32:]).decode()


def _public(path):
    pem = run(["openssl", "pkey", "-in", path, "-pubout"])
    if "BEGIN PUBLIC KEY" not in pem:
        raise Failed(f"openssl gives no public key of {path}")
    return "".join(line for line in pem.splitlines() if not line.startswith("-----"))
