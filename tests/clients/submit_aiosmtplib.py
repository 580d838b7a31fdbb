"""aiosmtplib: python submit_aiosmtplib.py PORT implicit|starttls USER PASSWORD CA FILE SENDER RECIPIENT"""

import asyncio
import pathlib
import sys

import aiosmtplib


async def main(port, tls, user, password, ca, file, sender, recipient):
    _, reply = await aiosmtplib.send(
        pathlib.Path(file).read_bytes(), sender=sender, recipients=[recipient], hostname="127.0.0.1", port=int(port),
        use_tls=tls == "implicit", start_tls=tls == "starttls", cert_bundle=ca, username=user, password=password,
        timeout=60)
    print(reply)


asyncio.run(main(*sys.argv[1:]))
