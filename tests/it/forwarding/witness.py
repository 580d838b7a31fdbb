"""What dkimpy makes of a message on standard input.

    witness.py sign KEY SELECTOR DOMAIN     the message with its signature, simple/simple
    witness.py verify HOST PORT             two lines: the chain (pass, fail, none, ended), the newest DKIM signature (pass, fail)
"""

import sys

import dkim
import dns.exception
import dns.resolver


def sign(key, selector, domain):
    message = sys.stdin.buffer.read()
    with open(key, "rb") as file:
        field = dkim.sign(
            message, selector.encode(), domain.encode(), file.read(), canonicalize=(b"simple", b"simple")
        )
    sys.stdout.buffer.write(field + message)


def verify(host, port):
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = [host], int(port)

    def text(name, timeout=5):
        try:
            answer = resolver.resolve(name.decode().rstrip("."), "TXT", lifetime=60)
        except dns.exception.DNSException:
            return None
        return b"".join(answer[0].strings)

    message = sys.stdin.buffer.read()
    status, _, _ = dkim.arc_verify(message, dnsfunc=text)
    print(status.decode() if status else "ended")
    print("pass" if dkim.verify(message, dnsfunc=text) else "fail")


{"sign": sign, "verify": verify}[sys.argv[1]](*sys.argv[2:])
