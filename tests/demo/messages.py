"""The messages of the demo, made with Python's email package."""

import random
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP

SENDER = "app@acme.example"


@dataclass
class Mail:
    """One submission: to whom, with what, and what must become of it."""

    name: str
    recipients: list
    content: bytes
    client: str
    refused: list = field(default_factory=list)
    # What the relay answered to the final dot, and the message id in it.
    reply: str = ""
    message_id: str = ""

    @property
    def body(self):
        return self.content.partition(b"\r\n\r\n")[2]

    @property
    def header_id(self):
        return header(self.content, b"message-id")


def header(content, name):
    """The value of a header field that is not folded."""
    for line in content.partition(b"\r\n\r\n")[0].split(b"\r\n"):
        if line.lower().startswith(name + b":"):
            return line.partition(b":")[2].strip()
    return b""


def _message(name, recipients, subject):
    message = EmailMessage(policy=SMTP)
    message["From"] = f"Acme <{SENDER}>"
    message["To"] = ", ".join(recipients)
    message["Subject"] = subject
    message["Date"] = "Sun, 22 Nov 2026 12:00:00 +0000"
    message["Message-ID"] = f"<{name}@demo.acme.example>"
    return message


def all_messages():
    """In the order of submission."""
    mails = []

    def add(name, recipients, message, client="smtplib", **more):
        content = message if isinstance(message, bytes) else message.as_bytes()
        mails.append(Mail(name, recipients, content, client, **more))

    plain = _message("plain", ["alice@alpha.example"], "Plain text")
    plain.set_content("Good morning,\n\n.a line that begins with a dot\n..and one with two\n\nAcme\n")
    add("plain", ["alice@alpha.example"], plain, client="swaks")

    attachment = _message("attachment", ["bob@beta.example"], "With an attachment")
    attachment.set_content("The figures are attached.\n")
    attachment.add_alternative("<p>The figures are <b>attached</b>.</p>\n", subtype="html")
    attachment.add_attachment(random.Random(1).randbytes(40_000), maintype="application",
                              subtype="octet-stream", filename="figures.bin")
    add("attachment", ["bob@beta.example"], attachment)

    utf8 = _message("utf8", ["carla@alpha.example"], "Überraschung: 春の挨拶")
    utf8.replace_header("From", f"Zoë Müller <{SENDER}>")
    utf8.set_content("Grüße, καλημέρα, привет, 今日は\n", cte="8bit")
    add("utf8", ["carla@alpha.example"], utf8, client="swaks")

    both = ["dora@alpha.example", "dan@beta.example"]
    message = _message("both", both, "To both domains")
    message.set_content("One message, two destinations.\n")
    add("both", both, message)

    big = _message("big", ["emil@alpha.example"], "Twenty mebibytes")
    big.set_content("x")
    head = big.as_bytes().partition(b"\r\n\r\n")[0]
    lines = 20 * 1024 * 1024 // 78
    generator = random.Random(2)
    body = b"".join(b"%076x\r\n" % generator.getrandbits(304) for _ in range(lines + 1))
    add("big", ["emil@alpha.example"], head + b"\r\n\r\n" + body)

    later = _message("later", ["later@beta.example"], "Not at once")
    later.set_content("The first try is answered with 451.\n")
    add("later", ["later@beta.example"], later)

    unknown = _message("unknown", ["nobody@beta.example"], "To nobody")
    unknown.set_content("There is no such user.\n")
    add("unknown", ["nobody@beta.example"], unknown, client="swaks", refused=["nobody@beta.example"])
    return mails
