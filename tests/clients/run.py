"""`make clients`: programs that nobody here wrote submit a message each, all to one unchanged configuration, and every
message must arrive once and whole at an MX host that is not ours either.

The last line is `clients: ok submitted=N delivered=N`, or `clients: FAILED …` with exit status 1.
"""

import email
import email.policy
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from clients import issuer, programs, smart_hosts  # noqa: E402
from clients.installation import PROXY, Installation, documents  # noqa: E402
from clients.mail import BODY, PASSWORD, SENDER, Mail  # noqa: E402
from rig.processes import Failed, Rig, free_port, free_port_on, listens, run, wait_until  # noqa: E402
from rig.servers import Dns, Nats, Redis  # noqa: E402

MX = "127.0.0.2"
# The name in the certificate of a client.
CERTIFIED = "client.acme.example"
PATIENCE = 90


def make_certificate(folder):
    certificate, key = folder / "relay.pem", folder / "relay.key"
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
         "-subj", "/CN=relay.example.com", "-addext", "subjectAltName=DNS:relay.example.com,IP:127.0.0.1",
         "-keyout", key, "-out", certificate])
    return certificate, key


def start_haproxy(rig, relay):
    port = free_port()
    configuration = rig.directory / "haproxy.cfg"
    configuration.write_text(f"""defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen smtp
  bind 127.0.0.1:{port}
  balance roundrobin
  server first 127.0.0.1:{relay.proxied} send-proxy-v2 check
  server second 127.0.0.1:{relay.second_proxied} send-proxy-v2 check
""")
    rig.start("haproxy", ["haproxy", "-db", "-f", configuration], lambda: listens("127.0.0.1", port))
    return port


def submissions(rig, relay, ca, haproxy):
    """(name, what submits the message of this name)"""
    folder = rig.directory
    starttls, implicit = relay.submission, relay.submissions

    def by_swaks(port, *more, **options):
        return lambda mail: programs.swaks(mail, folder, port, *more, **options)

    verified = ("--tls-verify", "--tls-ca-path", ca)
    for mechanism in ("PLAIN", "LOGIN"):
        yield f"swaks-starttls-{mechanism.lower()}", by_swaks(starttls, "--tls", *verified, "--auth", mechanism)
    yield "swaks-tls-at-once", by_swaks(implicit, "--tls-on-connect", *verified, "--auth", "PLAIN")
    yield "swaks-tls-optional", by_swaks(starttls, "--tls-optional", "--auth", "LOGIN")
    yield "swaks-without-tls", by_swaks(starttls, "--auth", "PLAIN")
    yield "swaks-pipelining", by_swaks(implicit, "--tls-on-connect", "--pipeline", "--auth", "PLAIN")
    for version in (1, 2):
        yield f"swaks-proxy-{version}", by_swaks(
            relay.proxied, "--proxy-version", version, "--proxy-family", "TCP4" if version == 1 else "AF_INET",
            *(() if version == 1 else ("--proxy-command", "PROXY", "--proxy-protocol", "STREAM")),
            "--proxy-source", "192.0.2.7", "--proxy-source-port", "4000", "--proxy-dest", "127.0.0.1",
            "--proxy-dest-port", "25", "--tls", login=False)
    # The client that the proxy names is one of the credential's networks.
    yield "swaks-xclient", by_swaks(relay.xclient, "--local-interface", PROXY, "--xclient-addr", "192.0.2.7",
                                    "--xclient-name", "client.acme.example", login=False)
    for number in range(4):
        yield f"swaks-haproxy-{number}", by_swaks(haproxy, "--tls", *verified, "--auth", "PLAIN")

    for tls, port in (("starttls", starttls), ("implicit", implicit)):
        at_once = tls == "implicit"
        yield f"smtplib-{tls}", lambda mail, port=port, at_once=at_once: programs.python_smtplib(mail, port, ca, at_once)
        yield f"aiosmtplib-{tls}", lambda mail, port=port, tls=tls: programs.aiosmtplib(mail, folder, port, ca, tls)
        yield f"nodemailer-{tls}", lambda mail, port=port, tls=tls: programs.nodemailer(mail, folder, port, ca, tls)
        secure = "ssl" if at_once else "tls"
        yield f"phpmailer-{tls}", lambda mail, port=port, secure=secure: programs.phpmailer(mail, folder, port, ca, secure)
        for mechanism in ("plain", "login", "scram-sha-256"):
            yield f"msmtp-{tls}-{mechanism}", lambda mail, port=port, at_once=at_once, mechanism=mechanism: programs.msmtp(
                mail, folder, port, ca, at_once, mechanism)
        for mechanism in ("PLAIN", "LOGIN"):
            yield f"curl-{tls}-{mechanism.lower()}", lambda mail, port=port, at_once=at_once, mechanism=mechanism: (
                programs.curl(mail, folder, port, ca, at_once, mechanism))
            yield f"exim-{tls}-{mechanism.lower()}", lambda mail, port=port, at_once=at_once, mechanism=mechanism: (
                smart_hosts.exim(rig, mail, port, ca, at_once, mechanism))
        mechanism = "scram-sha-256" if at_once else "plain"
        yield f"postfix-{tls}-{mechanism}", lambda mail, port=port, at_once=at_once, mechanism=mechanism: (
            smart_hosts.postfix(rig, mail, port, ca, at_once, mechanism))


def by_token_and_certificate(rig, relay, ca, tokens, certificate):
    """The same for clients that have an access token, or a certificate."""
    folder, user, token = rig.directory, issuer.SUBJECT, tokens.token()
    for mechanism in ("OAUTHBEARER", "XOAUTH2"):
        name = mechanism.lower()
        yield f"smtplib-{name}", lambda mail, mechanism=mechanism: programs.python_smtplib_token(
            mail, relay.submission, ca, mechanism, user, token)
        for tls, port in (("starttls", relay.submission), ("implicit", relay.submissions)):
            at_once = tls == "implicit"
            yield f"curl-{tls}-{name}", lambda mail, port=port, at_once=at_once, mechanism=mechanism: programs.curl(
                mail, folder, port, ca, at_once, mechanism, f"{user}:", ("--oauth2-bearer", token))
            yield f"msmtp-{tls}-{name}", lambda mail, port=port, at_once=at_once, name=name: programs.msmtp(
                mail, folder, port, ca, at_once, name, user, token)
    yield "nodemailer-xoauth2", lambda mail: programs.nodemailer(
        mail, folder, relay.submission, ca, "starttls", user, token)
    shown = ("--cert", certificate[0], "--key", certificate[1])
    yield "curl-external", lambda mail: programs.curl(
        mail, folder, relay.certified, ca, False, "EXTERNAL", f"{CERTIFIED}:", shown)
    yield "msmtp-external", lambda mail: programs.msmtp(
        mail, folder, relay.certified, ca, False, "external", CERTIFIED, certificate=certificate)


def arrivals(folder):
    """{recipient: [(envelope, content)]}"""
    found = {}
    for about in folder.glob("*.json"):
        envelope = json.loads(about.read_text())
        for recipient in envelope["recipients"]:
            found.setdefault(recipient, []).append((envelope, about.with_suffix(".eml").read_bytes()))
    return found


def check(mail, arrived):
    if len(arrived) != 1:
        raise Failed(f"{mail.name}: arrived {len(arrived)} times")
    [(envelope, content)] = arrived
    if envelope["sender"] != SENDER:
        raise Failed(f"{mail.name}: came from {envelope['sender']}")
    message = email.message_from_bytes(content, policy=email.policy.SMTP)
    if message["Subject"] != mail.subject or message["Message-ID"] != mail.message_id:
        raise Failed(f"{mail.name}: subject {message['Subject']!r}, Message-ID {message['Message-ID']!r}")
    body = content.partition(b"\r\n\r\n")[2]
    # PHPMailer writes the message itself, and ends it with an empty line.
    if mail.name.startswith("phpmailer"):
        body = body.removesuffix(b"\r\n")
    if body != BODY.encode():
        raise Failed(f"{mail.name}: the body is another: {body[:300]!r}")


def connections(port, listener):
    """Connections that a process of ingress has had on a listener."""
    import urllib.request
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("staffetta_ingress_connections_total{") and f'listener="{listener}"' in line:
                return float(line.rpartition(" ")[2])
    return 0


def main():
    with Rig("clients") as rig:
        kept = rig.directory / "kept"
        kept.mkdir()
        kept.chmod(0o777)
        mx_port = free_port_on([MX])
        rig.start("mx-host", [sys.executable, pathlib.Path(__file__).parents[1] / "demo" / "mx_host.py", MX, mx_port, kept],
                  lambda: listens(MX, mx_port))
        dns = Dns(rig, {"dest.example": [(10, "mx.dest.example")]}, {"mx.dest.example": MX})
        certificate = make_certificate(rig.directory)
        authority = issuer.Authority(rig.directory)
        tokens = issuer.Issuer(rig.directory, authority)
        relay = Installation(rig, Nats(rig), Redis(rig), dns, certificate, authority.certificate)
        relay.apply(documents(relay, PASSWORD, mx_port) + issuer.documents(tokens, authority, "acme", CERTIFIED))
        relay.wait_second()
        haproxy = start_haproxy(rig, relay)

        failures, mails = [], []
        of_client = authority.certify("client", f"DNS:{CERTIFIED}")
        by_password = submissions(rig, relay, certificate[0], haproxy)
        for name, submit in (*by_password, *by_token_and_certificate(rig, relay, certificate[0], tokens, of_client)):
            mail = Mail(name)
            try:
                submit(mail)
                mails.append(mail)
                print(f"  {name}: submitted", flush=True)
            except Exception as failure:  # every client gets its turn
                failures.append(f"{name}: {failure}")
                print(f"  {name}: FAILED {failure}", flush=True)
        wanted = {mail.recipient for mail in mails}
        try:
            wait_until("all messages delivered", lambda: wanted <= arrivals(kept).keys(), PATIENCE)
        except Failed as failure:
            missing = sorted(wanted - arrivals(kept).keys())
            failures.append(f"{failure}: {', '.join(missing)} did not arrive")
        found = arrivals(kept)
        for mail in mails:
            if mail.recipient in found:
                try:
                    check(mail, found[mail.recipient])
                except Failed as failure:
                    failures.append(str(failure))
        for which, port in (("first", relay.metrics["ingress"]), ("second", relay.second_metrics)):
            if connections(port, "proxied") == 0:
                failures.append(f"HAProxy handed nothing to the {which} ingress")
        if failures:
            raise Failed("\n".join(failures))
        print(f"clients: ok submitted={len(mails)} delivered={len(found)}")


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        print(f"clients: FAILED {failure}")
        sys.exit(1)
