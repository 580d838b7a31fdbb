"""What is submitted, and what must come of it."""

from dataclasses import dataclass

SENDER = "app@acme.example"
USERNAME, PASSWORD = "app@acme.example", "relay-race"

# Lines that begin with dots, 8-bit text, a long line.
BODY = ("Guten Morgen, Grüße aus Köln.\r\n.a line that begins with a dot\r\n..and one with two\r\n.\u00b7\r\n"
        + "x" * 900 + "\r\n")


@dataclass
class Mail:
    """One submission; every one has a recipient of its own, by which it is found at the other end."""

    name: str

    @property
    def recipient(self):
        return f"{self.name}@dest.example"

    @property
    def message_id(self):
        return f"<{self.name}@clients.acme.example>"

    @property
    def subject(self):
        return f"From {self.name}"

    @property
    def content(self):
        return (f"From: Acme <{SENDER}>\r\nTo: {self.recipient}\r\nSubject: {self.subject}\r\n"
                f"Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: {self.message_id}\r\nMIME-Version: 1.0\r\n"
                "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + BODY).encode()

    def write(self, folder, line_end="\r\n"):
        """The message as a file."""
        path = folder / f"{self.name}.eml"
        path.write_bytes(self.content.replace(b"\r\n", line_end.encode()))
        return path
