"""The steps of `helm test`: see templates/tests/delivery.yaml. Python's standard library only."""

import ipaddress
import os
import pathlib
import smtplib
import socket
import socketserver
import ssl
import sys
import threading
import time

WORK = pathlib.Path(os.environ.get("WORK", "/scratch"))
SINK_PORT = int(os.environ.get("SINK_PORT", "2500"))
DOMAIN = "helm-test.invalid"
RECIPIENT = f"somebody@sink.{DOMAIN}"
# For documentation (RFC 5737): nobody comes from there.
NOBODY = "192.0.2.1/32"

DOCUMENTS = """\
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: {{ name: helm-test }}
spec: {{ defaultStream: transactional, streams: [ {{ name: transactional }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: {{ name: helm-test }}
spec: {{ tenant: helm-test, networks: [ "{network}" ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: {{ name: {domain} }}
spec: {{ tenant: helm-test, unsigned: true }}
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: {{ name: helm-test }}
spec: {{ sources: [ {{ name: helm-test }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Route
metadata: {{ name: helm-test }}
spec:
  match: {{ tenants: [ helm-test ], domains: [ sink.{domain} ] }}
  pool: helm-test
  smartHost: {sink}
  port: {port}
  allowPrivate: true
  retry: {{ initial: 2s, max: 5s }}
  maxAge: 10m
"""


def documents(network):
    return DOCUMENTS.format(network=network, domain=DOMAIN, sink=os.environ["SINK_HOST"], port=SINK_PORT)


def prepare():
    address = ipaddress.ip_address(os.environ["POD_IP"])
    (WORK / "test.yaml").write_text(documents(f"{address}/{address.max_prefixlen}"))
    (WORK / "after.yaml").write_text(documents(NOBODY))


class Sink(socketserver.StreamRequestHandler):
    """Takes every message and keeps its text."""

    received = []
    timeout = 60

    def say(self, reply):
        self.wfile.write(reply.encode() + b"\r\n")

    def handle(self):
        self.say("220 sink.helm-test.invalid ESMTP")
        for line in self.rfile:
            verb = line.strip().upper()
            if verb == b"DATA":
                self.say("354 go on")
                self.take()
            elif verb == b"QUIT":
                self.say("221 bye")
                return
            elif verb.startswith((b"EHLO", b"HELO", b"MAIL", b"RCPT", b"RSET", b"NOOP")):
                self.say("250 ok")
            else:
                self.say("502 not here")

    def take(self):
        lines = []
        for line in self.rfile:
            if line == b".\r\n":
                Sink.received.append(b"".join(lines).decode(errors="replace"))
                self.say("250 taken")
                return
            lines.append(line)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def connect():
    host, port, tls = os.environ["SMTP_HOST"], int(os.environ["SMTP_PORT"]), os.environ["SMTP_TLS"]
    # What is tested is the way of a message; the certificate may be self-signed or for another name.
    unchecked = ssl.create_default_context()
    unchecked.check_hostname = False
    unchecked.verify_mode = ssl.CERT_NONE
    if tls == "implicit":
        return smtplib.SMTP_SSL(host, port, timeout=20, context=unchecked)
    client = smtplib.SMTP(host, port, timeout=20)
    if tls == "starttls":
        client.starttls(context=unchecked)
    return client


def submit(token):
    message = f"From: helm-test@{DOMAIN}\r\nTo: {RECIPIENT}\r\nSubject: {token}\r\n\r\nA message of helm test.\r\n"
    with connect() as client:
        client.sendmail(f"helm-test@{DOMAIN}", [RECIPIENT], message)


def wait_for_name(until):
    """Until the cluster's DNS knows this pod; a sender that asks before would be told that there is no such host."""
    wanted = ipaddress.ip_address(os.environ["POD_IP"])
    while time.monotonic() < until:
        try:
            found = socket.getaddrinfo(os.environ["SINK_HOST"], SINK_PORT, proto=socket.IPPROTO_TCP)
        except OSError:
            found = []
        if any(ipaddress.ip_address(entry[4][0]) == wanted for entry in found):
            return True
        time.sleep(1)
    return False


def deliver(until):
    """Submits until it is accepted, then waits for the message; answers with what happened."""
    if not wait_for_name(until):
        return f"{os.environ['SINK_HOST']} does not resolve to this pod"
    token = f"helm-test-{time.time_ns()}"
    problem = "nothing was tried"
    while time.monotonic() < until:
        try:
            submit(token)
            break
        except (OSError, smtplib.SMTPException) as error:
            problem = f"not accepted: {error}"
            print(problem)
            time.sleep(1)
    else:
        return problem
    print("accepted")
    while time.monotonic() < until:
        if any(token in message for message in Sink.received):
            return "delivered"
        time.sleep(0.1)
    return "accepted, and not delivered in time: see `staffetta queue` and the logs of the senders"


def send():
    with Server(("", SINK_PORT), Sink) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        result = deliver(time.monotonic() + int(os.environ["TIMEOUT_SECONDS"]))
        server.shutdown()
    print(result)
    (WORK / "result").write_text(result)


def verdict():
    result = (WORK / "result").read_text()
    print(result)
    sys.exit(0 if result == "delivered" else 1)


if __name__ == "__main__":
    {"prepare": prepare, "send": send, "verdict": verdict}[sys.argv[1]]()
