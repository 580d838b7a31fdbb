"""Verifies the messages of a folder by dkimpy and by OpenDKIM, each of their signatures alone.

    verify.py FOLDER

`keys` has the DNS names and texts of the keys. Every signature of `*.good.eml` must hold, none of `*.broken.eml`. Prints a line
for each verifier and algorithm; what is otherwise is named, with exit status 1.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import dkim

SELECTORS = ("rsa", "ed25519")
# Debian keeps daemons where a plain user's PATH does not look.
OPENDKIM = shutil.which("opendkim", path=os.environ.get("PATH", "") + ":/usr/sbin") or "opendkim"


def split(message):
    """The signature fields by selector, and the rest of the message."""
    fields, rest = {}, message
    while True:
        at = rest.find(b"DKIM-Signature:")
        if at < 0:
            return fields, rest
        end = at
        while True:
            end = rest.index(b"\r\n", end) + 2
            if rest[end:end + 1] not in (b" ", b"\t"):
                break
        field = rest[at:end]
        selector = field.split(b"; s=")[1].split(b";")[0].decode()
        fields[selector] = field
        rest = rest[:at] + rest[end:]


def by_dkimpy(message, keys):
    def texts(name, timeout=5):
        return keys.get(name.decode().rstrip("."))

    try:
        return dkim.DKIM(message).verify(dnsfunc=texts)
    except dkim.DKIMException:
        return False


def by_opendkim(paths, folder):
    """The paths of those whose signature holds. OpenDKIM tests files of mail with the line ends of the system."""
    configuration = pathlib.Path(folder, "opendkim.conf")
    configuration.write_text(f"Mode v\nTestPublicKeys {folder}/keys\nSyslog no\n")
    held = set()
    for start in range(0, len(paths), 40):
        group = paths[start:start + 40]
        done = subprocess.run([OPENDKIM, "-x", str(configuration), "-t", ",".join(map(str, group)), "-vv"], check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace", timeout=120)
        for path in group:
            if any(str(path) in line and "succeeded" in line for line in done.stdout.splitlines()):
                held.add(path)
    return held


def main():
    folder = sys.argv[1]
    keys = {name: text.encode() for name, text in (line.split(" ", 1) for line in
                                                   pathlib.Path(folder, "keys").read_text().splitlines())}
    found, wrong = {}, []

    def note(verifier, selector, path, holds):
        expected = path.name.endswith(".good.eml")
        kind = "good" if expected else "broken"
        if holds != expected:
            wrong.append(f"{verifier} {selector}: {path.name} {'holds' if holds else 'does not hold'}")
        else:
            found[verifier, selector, kind] = found.get((verifier, selector, kind), 0) + 1

    with tempfile.TemporaryDirectory() as alone:
        paths = sorted(pathlib.Path(folder).glob("*.eml"))
        pathlib.Path(alone, "keys").write_text(pathlib.Path(folder, "keys").read_text())
        single = {}
        for path in paths:
            fields, rest = split(path.read_bytes())
            if sorted(fields) != sorted(SELECTORS):
                wrong.append(f"{path.name} has signatures of {sorted(fields)}")
                continue
            for selector, field in fields.items():
                note("dkimpy", selector, path, by_dkimpy(field + rest, keys))
                file = pathlib.Path(alone, f"{path.stem}.{selector}.eml")
                file.write_bytes(field + rest)
                single[file] = (selector, path)
        held = by_opendkim(list(single), alone)
        for file, (selector, path) in single.items():
            note("opendkim", selector, path, file in held)
    for line in wrong:
        print(line)
    for verifier in ("dkimpy", "opendkim"):
        for selector in SELECTORS:
            good, broken = (found.get((verifier, selector, kind), 0) for kind in ("good", "broken"))
            print(f"{verifier} {selector}: {good} good, {broken} broken")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
