"""What has come to the two MX hosts, and whether it is right."""

import json
import re
from dataclasses import dataclass

import dkim
import dns.resolver

from rig.processes import Failed

from .messages import header


@dataclass
class Arrival:
    host: str
    sender: str
    recipients: list
    content: bytes

    @property
    def header_id(self):
        return header(self.content, b"message-id")

    @property
    def body(self):
        return self.content.partition(b"\r\n\r\n")[2]


def read_dumps(folder):
    """The messages of smtp-sink: envelope in fields of its own, LF at line ends, one more LF at the end."""
    for path in folder.iterdir():
        head, _, rest = path.read_bytes().partition(b"Received: from ")
        # Its own Received field has three lines.
        content = rest.split(b"\n", 3)[-1]
        if not content.endswith(b"\n\n"):
            continue
        field = lambda name: [v.decode() for v in re.findall(rb"^X-%s-Args: <(.*?)>" % name, head, re.M)]
        yield Arrival("smtp-sink", (field(b"Mail") or [""])[0], field(b"Rcpt"), content[:-1].replace(b"\n", b"\r\n"))


def read_mx_host(folder):
    """The messages of the aiosmtpd host."""
    for path in folder.glob("*.json"):
        about = json.loads(path.read_text())
        # aiosmtpd gives the null sender as it was written.
        yield Arrival("aiosmtpd", about["sender"].strip("<>"), about["recipients"], path.with_suffix(".eml").read_bytes())


class Verifier:
    """dkimpy with keys from our DNS server."""

    def __init__(self, dns_port):
        self.resolver = dns.resolver.Resolver(configure=False)
        self.resolver.nameservers, self.resolver.port = ["127.0.0.1"], dns_port

    def _text(self, name, timeout=5):
        name = name.decode() if isinstance(name, bytes) else name
        answer = self.resolver.resolve(name, "TXT", lifetime=timeout)
        return b"".join(answer[0].strings)

    def verify(self, arrival):
        """Every signature of the message must be good, one RSA and one Ed25519."""
        fields = re.findall(rb"^DKIM-Signature:((?:.*\r\n(?:[ \t].*\r\n)*))", arrival.content.partition(b"\r\n\r\n")[0] + b"\r\n", re.M | re.I)
        algorithms = sorted(re.search(rb"\ba=([a-z0-9-]+)", field)[1].decode() for field in fields)
        if algorithms != ["ed25519-sha256", "rsa-sha256"]:
            raise Failed(f"{arrival.header_id.decode()}: signatures {algorithms}, wanted one of each")
        for index in range(len(fields)):
            try:
                good = dkim.DKIM(arrival.content).verify(idx=index, dnsfunc=self._text)
            except dkim.DKIMException as problem:
                raise Failed(f"{arrival.header_id.decode()}: signature {index}: {problem}") from None
            if not good:
                raise Failed(f"{arrival.header_id.decode()}: signature {index} is not good")
