"""A receiving MX host made of aiosmtpd: python mx_host.py ADDRESS PORT FOLDER

Each message goes into FOLDER as N.eml with its envelope beside it as N.json, written last. A recipient
`later@…` gets 451 at the first try, `nobody@…` is unknown.
"""

import asyncio
import json
import pathlib
import sys

from aiosmtpd.smtp import SMTP

BIGGEST = 64 << 20


class Handler:
    def __init__(self, folder):
        self.folder = folder
        self.count = 0
        self.seen_later = set()

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody@"):
            return "550 5.1.1 No such user here"
        if address.startswith("later@") and address not in self.seen_later:
            self.seen_later.add(address)
            return "451 4.7.1 Greylisted, come back in a moment"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Recipient ok"

    async def handle_DATA(self, server, session, envelope):
        self.count += 1
        (self.folder / f"{self.count}.eml").write_bytes(envelope.content)
        about = {"ehlo": session.host_name, "sender": envelope.mail_from, "recipients": envelope.rcpt_tos}
        (self.folder / f"{self.count}.json").write_text(json.dumps(about))
        return "250 2.0.0 Taken"


async def main(address, port, folder):
    handler = Handler(pathlib.Path(folder))

    def session():
        return SMTP(handler, hostname="mx.beta.example", data_size_limit=BIGGEST, decode_data=False,
                    enable_SMTPUTF8=True, loop=asyncio.get_running_loop())

    server = await asyncio.get_running_loop().create_server(session, address, int(port))
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
