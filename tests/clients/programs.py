"""Programs that submit a message, each in its usual way."""

import os
import smtplib
import ssl

from rig.processes import ROOT, Failed, run

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


def python_smtplib_token(mail, port, ca, mechanism, user, token):
    """smtplib with a mechanism that it does not know itself."""
    context = ssl.create_default_context(cafile=ca)
    said = f"user={user}" if mechanism == "XOAUTH2" else f"n,a={user},"
    with smtplib.SMTP("127.0.0.1", port, "client.acme.example", timeout=60) as client:
        client.starttls(context=context)
        client.ehlo()
        for kind, expected in (("x.y.z", 535), (token, 235)):
            try:
                # Asked a second time (334) it has nothing more to say.
                code, _ = client.auth(mechanism, lambda challenge=None, kind=kind: (
                    f"{said}\1auth=Bearer {kind}\1\1" if challenge is None else "\1"))
            except smtplib.SMTPAuthenticationError as refusal:
                code = refusal.smtp_code
            if code != expected:
                raise Failed(f"AUTH {mechanism}: {code} instead of {expected}")
        client.sendmail(SENDER, [mail.recipient], mail.content, mail_options=["BODY=8BITMIME"])


def aiosmtplib(mail, folder, port, ca, tls):
    run([CLIENTS / "python" / "bin" / "python", HERE / "submit_aiosmtplib.py", port, tls, USERNAME, PASSWORD, ca,
         mail.write(folder), SENDER, mail.recipient])


def nodemailer(mail, folder, port, ca, tls, user=USERNAME, token=None):
    run(["node", HERE / "submit.mjs", port, tls, user, token or PASSWORD, ca, mail.write(folder), SENDER, mail.recipient],
        env={**os.environ, "CLIENTS_NODE": str(CLIENTS / "node"), "CLIENTS_TOKEN": "yes" if token else ""})


def phpmailer(mail, folder, port, ca, secure):
    body = folder / f"{mail.name}.body"
    body.write_bytes(mail.content.partition(b"\r\n\r\n")[2])
    run(["php", HERE / "submit.php", port, secure, USERNAME, PASSWORD, ca, SENDER, mail.recipient, mail.subject,
         mail.message_id, body])


def msmtp(mail, folder, port, ca, implicit, mechanism, user=USERNAME, password=PASSWORD, certificate=None):
    configuration, secret = folder / f"{mail.name}.msmtprc", folder / f"{mail.name}.secret"
    # A line of the configuration has 500 characters at most, a token more.
    secret.write_text(password)
    configuration.write_text(
        f"account default\nhost 127.0.0.1\nport {port}\ntls on\ntls_starttls {'off' if implicit else 'on'}\n"
        f"tls_trust_file {ca}\nauth {mechanism}\nuser {user}\npasswordeval cat {secret}\nfrom {SENDER}\n"
        "domain client.acme.example\n"
        + (f"tls_cert_file {certificate[0]}\ntls_key_file {certificate[1]}\n" if certificate else ""))
    configuration.chmod(0o600)
    with open(mail.write(folder, "\n")) as content:
        run(["msmtp", "-C", configuration, mail.recipient], stdin=content)


def curl(mail, folder, port, ca, implicit, mechanism, user=f"{USERNAME}:{PASSWORD}", more=()):
    scheme = "smtps" if implicit else "smtp"
    run(["curl", "--silent", "--show-error", "--ssl-reqd", "--cacert", ca, "--url",
         f"{scheme}://127.0.0.1:{port}/client.acme.example", "--user", user, *more,
         "--login-options", f"AUTH={mechanism}", "--mail-from", SENDER, "--mail-rcpt", mail.recipient,
         "--upload-file", mail.write(folder)])
