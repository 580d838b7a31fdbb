"""Programs that submit a message, each in its usual way."""

import os
import smtplib
import ssl

from rig.processes import ROOT, run

from .mail import PASSWORD, SENDER, USERNAME

CLIENTS = ROOT / ".servers" / "clients"
HERE = ROOT / "tests" / "clients"


def swaks(mail, folder, port, *more, login=True):
    """`more`: TLS and whatever else."""
    data = folder / f"{mail.name}.swaks"
    # swaks makes CRLF of every line end, and puts one more at the end of the text.
    data.write_bytes(mail.content.replace(b"\r\n", b"\n").removesuffix(b"\n"))
    auth = ["--auth-user", USERNAME, "--auth-password", PASSWORD] if login else []
    run(["swaks", "--server", "127.0.0.1", "--port", port, *auth, "--from", SENDER, "--to", mail.recipient,
         "--data", f"@{data}", "--ehlo", "client.acme.example", *more])


def python_smtplib(mail, port, ca, implicit):
    context = ssl.create_default_context(cafile=ca)
    kind = smtplib.SMTP_SSL if implicit else smtplib.SMTP
    options = {"context": context} if implicit else {}
    with kind("127.0.0.1", port, "client.acme.example", timeout=60, **options) as client:
        if not implicit:
            client.starttls(context=context)
        client.login(USERNAME, PASSWORD)
        client.sendmail(SENDER, [mail.recipient], mail.content, mail_options=["BODY=8BITMIME"])


def aiosmtplib(mail, folder, port, ca, tls):
    run([CLIENTS / "python" / "bin" / "python", HERE / "submit_aiosmtplib.py", port, tls, USERNAME, PASSWORD, ca,
         mail.write(folder), SENDER, mail.recipient])


def nodemailer(mail, folder, port, ca, tls):
    run(["node", HERE / "submit.mjs", port, tls, USERNAME, PASSWORD, ca, mail.write(folder), SENDER, mail.recipient],
        env={**os.environ, "CLIENTS_NODE": str(CLIENTS / "node")})


def phpmailer(mail, folder, port, ca, secure):
    body = folder / f"{mail.name}.body"
    body.write_bytes(mail.content.partition(b"\r\n\r\n")[2])
    run(["php", HERE / "submit.php", port, secure, USERNAME, PASSWORD, ca, SENDER, mail.recipient, mail.subject,
         mail.message_id, body])


def msmtp(mail, folder, port, ca, implicit, mechanism):
    configuration = folder / f"{mail.name}.msmtprc"
    configuration.write_text(
        f"account default\nhost 127.0.0.1\nport {port}\ntls on\ntls_starttls {'off' if implicit else 'on'}\n"
        f"tls_trust_file {ca}\nauth {mechanism}\nuser {USERNAME}\npassword {PASSWORD}\nfrom {SENDER}\n"
        "domain client.acme.example\n")
    configuration.chmod(0o600)
    with open(mail.write(folder, "\n")) as content:
        run(["msmtp", "-C", configuration, mail.recipient], stdin=content)


def curl(mail, folder, port, ca, implicit, mechanism):
    scheme = "smtps" if implicit else "smtp"
    run(["curl", "--silent", "--show-error", "--ssl-reqd", "--cacert", ca, "--url",
         f"{scheme}://127.0.0.1:{port}/client.acme.example", "--user", f"{USERNAME}:{PASSWORD}",
         "--login-options", f"AUTH={mechanism}", "--mail-from", SENDER, "--mail-rcpt", mail.recipient,
         "--upload-file", mail.write(folder)])
