"""`make egress`: a real relay sends by what others wrote: from three addresses of its own, by Dante (SOCKS), by HAProxy (PROXY
protocol), and by Postfix as a smart host with a login. The MX host must see each message once, from the right address. Then
proxies are killed and passwords are wrong: nothing may be lost or bounced, nothing may leave by another way than its pool's.

Runs in namespaces of its own. The last line is `egress: ok …`, or `egress: FAILED …` with exit status 1.
"""

import json
import os
import pathlib
import smtplib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from egress import parties  # noqa: E402
from egress.parties import HAPROXY, HAPROXY_OUT, MX, OWN, PASSWORD, SMART, SOCKS, SOCKS_OUT, USER  # noqa: E402
from rig.processes import Failed, Rig, run, wait_until  # noqa: E402
from rig.relay import Relay  # noqa: E402
from rig.servers import Dns, Nats, Redis  # noqa: E402

SENDER = "app@acme.example"
PATIENCE = 200
DOMAINS = ["own", "socks", "haproxy", "plain", "login", "failover", "wrong"]


class Installation(Relay):
    """One that trusts the authority of the smart host."""

    def __init__(self, rig, nats, redis, dns, authorities):
        self.authorities = authorities
        super().__init__(rig, nats, redis, dns)

    def _bootstrap(self, nats, redis, dns, certificate, hostname):
        text = super()._bootstrap(nats, redis, dns, certificate, hostname)
        return text.replace("sender:\n", f"sender:\n  authorities: {self.authorities}\n")


def documents(folder):
    """A route and a pool for each domain."""
    def smart(name, mechanism, file, port=587, weight=1):
        return (f"{{ name: {name}, weight: {weight}, smartHost: {{ host: smart.example, port: {port}, allowPrivate: true,"
                f" auth: {{ mechanism: {mechanism}, username: {USER}@smart.example, password: 'file:{folder}/{file}' }} }} }}")

    own = [f"{{ name: own{number}, address: {address}, ehlo: own{number}.example.com }}"
           for number, address in enumerate(OWN)]
    pools = {
        "own": own,
        "socks": [f"{{ name: socks, family: ipv4, proxy: {{ protocol: socks5, address: '{SOCKS}:1080', username: {USER},"
                  f" password: 'file:{folder}/password' }} }}"],
        "haproxy": [f"{{ name: haproxy, address: {HAPROXY_OUT}, proxy: {{ protocol: haproxy, address: '{HAPROXY}:8026' }} }}"],
        "plain": [smart("plain", "plain", "password")],
        "login": [smart("login", "login", "password", port=465)],
        "failover": [smart("refused", "plain", "wrong", weight=9), own[0]],
        "wrong": [smart("wrong", "login", "corrected")],
    }
    text = f"""apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: {{ name: acme }}
spec: {{ defaultStream: transactional, streams: [ {{ name: transactional }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: {{ name: acme-app }}
spec: {{ tenant: acme, networks: [127.0.0.0/8] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: {{ name: acme.example }}
spec: {{ tenant: acme, unsigned: true }}
"""
    for name, sources in pools.items():
        text += f"""---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: {{ name: {name} }}
spec: {{ sources: [ {", ".join(sources)} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Route
metadata: {{ name: {name} }}
spec: {{ match: {{ domains: [ {name}.example ] }}, pool: {name}, allowPrivate: true, retry: {{ waits: [2s], jitter: 0 }} }}
"""
    return text


def submit(relay, domain, names):
    with smtplib.SMTP("127.0.0.1", relay.submission, timeout=60) as client:
        for name in names:
            content = f"From: {SENDER}\r\nTo: {name}@{domain}.example\r\nSubject: {name}\r\n\r\nHello\r\n"
            client.sendmail(SENDER, [f"{name}@{domain}.example"], content)


def why(relay, domain):
    """What keeps the first message to a domain."""
    server = f"http://127.0.0.1:{relay.ports['scheduler']}"
    told = json.loads(relay.run("why", f"{domain}.example", "--output", "json", "--server", server))
    return "; ".join(one["constraint"].get("text", "") for one in told["deliveries"][:1])


def keeps(relay, domain, text):
    """Waits until mail to the domain is kept for this reason."""
    try:
        wait_until(f"{domain} to wait", lambda: text in why(relay, domain), 90)
    except Failed as failure:
        raise Failed(f"{failure}: {why(relay, domain)!r}") from None


def arrive(relay, mx, domain, names, what):
    """Waits for the messages, and gives the addresses from which and the names with which they came."""
    recipients = [f"{name}@{domain}.example" for name in names]
    try:
        wait_until(what, lambda: all(recipient in mx.came for recipient in recipients), PATIENCE)
    except Failed as failure:
        missing = [recipient for recipient in recipients if recipient not in mx.came]
        raise Failed(f"{failure}: {len(missing)} of {len(recipients)}: {why(relay, domain)}") from None
    came = [mx.came[recipient] for recipient in recipients]
    if twice := [recipient for recipient in recipients if len(mx.came[recipient]) > 1]:
        raise Failed(f"{what}: more than once: {twice}")
    return {one[0] for one in came}


def expect(what, found, expected):
    if found != expected:
        raise Failed(f"{what}: {found!r} instead of {expected!r}")
    print(f"egress: {what}", flush=True)


def metric(relay, name):
    lines = relay.metric_lines("sender")
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name)}


def test(rig):
    parties.make_addresses()
    folder = rig.directory
    certificate, key = folder / "smart.pem", folder / "smart.key"
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
         "-subj", "/CN=smart.example", "-addext", "subjectAltName=DNS:smart.example",
         # A host that shows the certificate of an authority is not taken.
         "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", certificate])
    (folder / "password").write_text(PASSWORD + "\n")
    (folder / "wrong").write_text("sesame\n")
    (folder / "corrected").write_text("sesame\n")
    mx = parties.Mx()
    dante, haproxy = parties.Dante(rig), parties.Haproxy(rig)
    parties.start_postfix(rig, certificate, key)
    dns = Dns(rig, mx={f"{domain}.example": [(10, "mx.dest.example")] for domain in DOMAINS},
              a={"mx.dest.example": MX, "smart.example": SMART})
    relay = Installation(rig, Nats(rig), Redis(rig), dns, certificate)
    relay.apply(documents(folder))

    names = [f"m{number}" for number in range(30)]
    for domain in DOMAINS:
        submit(relay, domain, names)
    came = arrive(relay, mx, "own", names, "mail from own addresses")
    expect("own addresses, each with its name", came,
           {(address, f"own{number}.example.com") for number, address in enumerate(OWN)})
    came = arrive(relay, mx, "socks", names, "mail by Dante")
    expect("the address of the SOCKS proxy", came, {(SOCKS_OUT, "relay.example.com")})
    came = arrive(relay, mx, "haproxy", names, "mail by HAProxy")
    expect("the address that HAProxy was told", came, {(HAPROXY_OUT, "relay.example.com")})
    for domain in ("plain", "login"):
        came = arrive(relay, mx, domain, names, f"mail by the smart host ({domain})")
        expect(f"a smart host with AUTH {domain.upper()}", came, {(SMART, "smart.example")})
    came = arrive(relay, mx, "failover", names, "mail whose smart host refuses us")
    expect("the others of the pool where credentials are wrong", came, {(OWN[0], "own0.example.com")})
    keeps(relay, "wrong", "535 5.7.8")
    refused = metric(relay, 'staffetta_sender_auth_total{result="refused"')
    expect("refused logins by source", {line.split('source="')[1].split('"')[0] for line in refused}, {"refused", "wrong"})

    # Proxies die, and a password is put right.
    dante.kill()
    haproxy.process.kill()
    later = [f"later{number}" for number in range(10)]
    for domain in ("socks", "haproxy"):
        submit(relay, domain, later)
        keeps(relay, domain, "the proxy")
    if any(f"{name}@{domain}.example" in mx.came for name in later for domain in ("socks", "haproxy")):
        raise Failed("mail left by another way than its pool's")
    (folder / "corrected").write_text(PASSWORD + "\n")
    dante.start()
    haproxy.start()
    came = arrive(relay, mx, "socks", later, "mail by Dante when it is back")
    expect("Dante, killed and started", came, {(SOCKS_OUT, "relay.example.com")})
    came = arrive(relay, mx, "haproxy", later, "mail by HAProxy when it is back")
    expect("HAProxy, killed and started", came, {(HAPROXY_OUT, "relay.example.com")})
    came = arrive(relay, mx, "wrong", names, "mail with the right password")
    expect("mail that waited for the right password", came, {(SMART, "smart.example")})
    wait_until("nothing to wait", lambda: relay.owned_waiting() == 0, 60)
    wanted = {f"{name}@{domain}.example" for domain in DOMAINS for name in names}
    wanted |= {f"{name}@{domain}.example" for domain in ("socks", "haproxy") for name in later}
    expect("nothing else, such as a bounce", set(mx.came), wanted)
    return len(wanted)


def main():
    if not parties.is_root():
        raise Failed("namespaces need root")
    if "--inside" not in sys.argv:
        os.execvp("unshare", ["unshare", "--net", "--mount", sys.executable, __file__, "--inside"])
    with Rig("egress") as rig:
        delivered = test(rig)
    print(f"egress: ok delivered={delivered}")


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        print(f"egress: FAILED {failure}")
        sys.exit(1)
