"""Clients that are not ours: swaks and Python's smtplib."""

import re
import smtplib
import ssl

from rig.processes import Failed, run

from .messages import SENDER

USERNAME, PASSWORD = "app@acme.example", "relay-race"
# argon2id of the password, as any argon2 tool prints it.
PASSWORD_HASH = "$argon2id$v=19$m=19456,t=2,p=1$xR+9GOSnIcUhVVJSl38AOQ$ma2ApiclhRHj+5/WOt8nUDS0BUce3d0C9mbnX+sedtU"


def submit(mail, relay, certificate, folder):
    """Submits a message over TLS with AUTH and keeps what was answered to its final dot."""
    if mail.client == "swaks":
        mail.reply = by_swaks(mail, relay, folder)
    else:
        mail.reply = by_smtplib(mail, relay, certificate)
    found = re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", mail.reply)
    if not found:
        raise Failed(f"{mail.name}: the reply names no message id: {mail.reply!r}")
    mail.message_id = found[0]


def by_swaks(mail, relay, folder):
    """STARTTLS on the submission port, AUTH LOGIN."""
    data = folder / f"{mail.name}.eml"
    # swaks makes CRLF of every line end, and puts one more at the end of the text.
    data.write_bytes(mail.content.replace(b"\r\n", b"\n").removesuffix(b"\n"))
    printed = run(["swaks", "--server", "127.0.0.1", "--port", relay.submission, "--tls", "--auth", "LOGIN",
                   "--auth-user", USERNAME, "--auth-password", PASSWORD, "--from", SENDER,
                   "--to", ",".join(mail.recipients), "--data", f"@{data}", "--ehlo", "client.acme.example"])
    replies = [line for line in printed.splitlines() if line.startswith("<~  250")]
    return replies[-1] if replies else ""


def by_smtplib(mail, relay, certificate):
    """Implicit TLS, AUTH PLAIN."""
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    with smtplib.SMTP_SSL("127.0.0.1", relay.submissions, "client.acme.example", timeout=120, context=context) as client:
        client.login(USERNAME, PASSWORD)
        client.mail(SENDER, [f"size={len(mail.content)}"])
        for recipient in mail.recipients:
            code, text = client.rcpt(recipient)
            if code != 250:
                raise Failed(f"{mail.name}: {recipient} is refused: {code} {text}")
        code, text = client.data(mail.content)
        if code != 250:
            raise Failed(f"{mail.name}: {code} {text}")
        return text.decode()
