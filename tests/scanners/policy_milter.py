"""A milter over Sendmail's libmilter, which does what the field X-Policy says: policy_milter.py SOCKET

It also tells what it was told: the macros, and a hash of the body."""

import hashlib
import sys

import Milter


class Policy(Milter.Base):
    def __init__(self):
        self.wanted = ""
        self.body_hash = hashlib.sha256()
        self.told = []

    def connect(self, name, family, address):
        self.told.append(f"from={address[0] if address else 'unknown'} by={self.getsymval('j')}")
        return Milter.CONTINUE

    def hello(self, name):
        self.told.append(f"helo={name}")
        return Milter.CONTINUE

    def envfrom(self, sender, *_):
        self.told.append(f"sender={sender} user={self.getsymval('{auth_authen}') or ''}")
        return Milter.CONTINUE

    def envrcpt(self, recipient, *_):
        self.told.append(f"recipient={recipient}")
        if recipient.startswith("<refused@"):
            self.setreply("550", "5.1.1", "nobody here")
            return Milter.REJECT
        return Milter.CONTINUE

    def header(self, name, value):
        if name == "X-Policy":
            self.wanted = value
        if self.wanted == "reject":
            self.setreply("550", "5.7.26", "refused", "by policy")
            return Milter.REJECT
        return Milter.CONTINUE

    def eoh(self):
        return Milter.TEMPFAIL if self.wanted == "tempfail" else Milter.CONTINUE

    def body(self, chunk):
        self.body_hash.update(chunk)
        return Milter.ACCEPT if self.wanted == "enough" else Milter.CONTINUE

    def eom(self):
        self.progress()
        if self.wanted == "discard":
            return Milter.DISCARD
        if self.wanted == "quarantine":
            self.quarantine("as wanted")
        self.addheader("X-Policy-Told", "\n\t".join([*self.told, f"id={self.getsymval('i')}"]))
        self.addheader("X-Policy-Body", self.body_hash.hexdigest())
        return Milter.CONTINUE


def main():
    Milter.factory = Policy
    Milter.set_flags(Milter.ADDHDRS | Milter.QUARANTINE)
    Milter.runmilter("policy", sys.argv[1], 600)


main()
