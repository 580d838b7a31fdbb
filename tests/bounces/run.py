"""`make bounces`: reports that real servers write in the test, and the examples of flufl.bounce, are read by `staffetta bounce
check`, by flufl.bounce and by Sisimai. Of the servers' reports each must have the recipient and class that the refusal had; where
the others find another recipient or another class, `differences.tsv` must say why (docs/bounces.md shows it).

The last line is `bounces: ok …`, or `bounces: FAILED …` with exit status 1.
"""

import collections
import json
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from bounces.mailers import Exim, Host, Postfix, write  # noqa: E402
from rig.processes import ROOT, Failed, Rig, run, wait_until  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
BINARY = os.environ.get("STAFFETTA_BIN", ROOT / "target" / "release" / "staffetta")
# Debian's.
PYTHON = "/usr/bin/python3"

# By local part: the command that is answered, the reply, the class that it has, and whether the address may be given up.
REPLIES = {
    "nobody": ("RCPT", "550 5.1.1 There is no such mailbox here", "recipient", True),
    "plain": ("RCPT", "550 Unknown user", "recipient", True),
    "closed": ("RCPT", "550 5.2.1 This mailbox is disabled", "recipient", True),
    "full": ("RCPT", "552 5.2.2 The mailbox is full", "mailbox_full", False),
    "listed": ("RCPT", "554 5.7.1 Your address is on our blocklist", "policy", False),
    "disguised": ("RCPT", "550 5.1.1 Blocked because of poor reputation", "policy", False),
    "relay": ("RCPT", "554 5.7.1 Relay access denied", "policy", False),
    "dmarc": ("DATA", "550 5.7.26 The message fails DMARC", "policy", False),
    "spam": ("DATA", "554 5.7.1 This looks like spam", "policy", False),
    "large": ("DATA", "552 5.3.4 The message is too large", "content", False),
    "virus": ("DATA", "554 5.7.1 A virus was found", "content", False),
    "fast": ("RCPT", "550 Ip frequency limited", "throttled", False),
    "later": ("RCPT", "451 4.3.0 Internal trouble, come again", "infrastructure", False),
    "grey": ("RCPT", "450 4.2.0 Greylisted", "greylisted", False),
    "silent": ("RCPT", "550 No", "unspecified", False),
}

# The classes that a reason of Sisimai can be.
SISIMAI = {
    "userunknown": ["recipient"], "suspend": ["recipient"], "hasmoved": ["recipient"], "filtered": ["recipient", "policy"],
    "mailboxfull": ["mailbox_full"], "blocked": ["policy"], "rejected": ["policy"], "policyviolation": ["policy"],
    "spamdetected": ["policy"], "securityerror": ["policy"], "norelaying": ["policy"], "hostunknown": ["dns"], "notaccept": ["dns"],
    "networkerror": ["infrastructure", "dns"], "systemerror": ["infrastructure"], "expired": ["infrastructure"],
    "mailererror": ["infrastructure"], "systemfull": ["infrastructure"], "toomanyconn": ["throttled"], "speeding": ["throttled"],
    "mesgtoobig": ["content"], "exceedlimit": ["content"], "contenterror": ["content"], "virusdetected": ["content"],
    "syntaxerror": ["infrastructure"], "undefined": ["unspecified"], "onhold": ["unspecified"],
}

FLUFL = """
import email, json, sys
from flufl.bounce import all_failures
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        temporary, permanent = all_failures(email.message_from_binary_file(file))
    both = sorted(address.decode("ascii", "replace").lower() for address in temporary | permanent)
    print(json.dumps([path, both]))
"""


def ours(files):
    lines = run([BINARY, "bounce", "check", "--output", "json", *files]).splitlines()
    return dict(zip(files, map(json.loads, lines), strict=True))


def flufl(files):
    return {pathlib.Path(path): found for path, found in map(json.loads, run([PYTHON, "-c", FLUFL, *files]).splitlines())}


def sisimai(files):
    """Recipient and reason of each file."""
    found = collections.defaultdict(dict)
    done = subprocess.run(["perl", HERE / "sisimai.pl", *files], capture_output=True, text=True, timeout=300, check=False)
    for line in done.stdout.splitlines():
        path, address, reason = line.split("\t")
        found[pathlib.Path(path)][address.lower()] = reason
    if not found:
        raise Failed(f"Sisimai says nothing:\n{done.stderr}")
    return found


def of_servers(rig):
    """(file, server, local part) of the reports that servers write."""
    host = Host({name: row[:2] for name, row in REPLIES.items()})
    host.start()
    rig.at_end.append(host.stop)
    servers = {"postfix": Postfix(rig, host.port), "exim": Exim(rig, host.port)}
    for server, mailer in servers.items():
        for name in REPLIES:
            mailer.send(f"{server}-{name}", f"{name}@{server}.example")
    wait_until("reports of the servers", lambda: len(host.returned) >= len(servers) * len(REPLIES), 180)
    return write(rig.directory, host.returned)


def check_servers(files):
    """What is wrong with what we read in reports of servers."""
    seen, wrong = set(), []
    for path, read in ours(files).items():
        recipients = read.get("recipients", [])
        if len(recipients) != 1:
            wrong.append(f"{path}: {read['kind']} with {len(recipients)} recipients")
            continue
        one = recipients[0]
        name, _, domain = one["address"].partition("@")
        server = domain.partition(".")[0]
        seen.add((server, name))
        _, reply, expected, is_hard = REPLIES[name]
        found = (one["class"], one["isHard"], read["original"]["messageId"])
        if found != (expected, is_hard, f"{server}-{name}@bounces.example"):
            wrong.append(f"{server} {name} ({reply}): {found}, not {expected}")
    missing = {(server, name) for server in ("postfix", "exim") for name in REPLIES} - seen
    return wrong + [f"no report of {server} on {name}" for server, name in sorted(missing)]


def differences(files, names):
    """(name, what) wherever others find something else."""
    found, by_us, by_flufl, by_sisimai = [], ours(files), flufl(files), sisimai(files)
    counts = collections.Counter()
    for path in files:
        name = names(path)
        recipients = {one["address"].lower(): one for one in by_us[path].get("recipients", [])}
        counts["flufl recipients"] += 1
        if set(by_flufl[path]) == set(recipients) - {""}:
            counts["flufl recipients alike"] += 1
        else:
            found.append((name, "flufl.bounce recipients"))
        for address, reason in sorted(by_sisimai[path].items()):
            if reason not in SISIMAI:
                continue
            one = recipients.get(address)
            counts["sisimai classes"] += 1
            if one and one["class"] in SISIMAI[reason]:
                counts["sisimai classes alike"] += 1
            else:
                found.append((name, f"Sisimai {reason}, here {one['class'] if one else 'no such recipient'}"))
    return found, counts


def explained():
    rows = {}
    for line in (HERE / "differences.tsv").read_text().splitlines():
        if line and not line.startswith("#"):
            name, what, why = line.split("\t")
            rows[name, what] = why
    return rows


def examples():
    where = run([PYTHON, "-c", "import flufl.bounce.tests.data as data; print(list(data.__path__)[0])"]).strip()
    return sorted(pathlib.Path(where).glob("*.txt"))


def main():
    with Rig("bounces") as rig:
        written = of_servers(rig)
        problems = check_servers(written)
        by_path = {path: read["original"].get("messageId", path.name).split("@")[0] for path, read in ours(written).items()}
        found, counts = differences(written, by_path.get)
        files = examples()
        more, other_counts = differences(files, lambda path: path.name)
        found, counts = found + more, counts + other_counts
        known = explained()
        for name, what in found:
            if (name, what) not in known:
                problems.append(f"not explained: {name}\t{what}")
        # Another release of a package may agree: that is no failure.
        for name, what in sorted(set(known) - set(found)):
            print(f"bounces: explained, and no difference: {name}: {what}")
        for what, count in sorted(counts.items()):
            print(f"bounces: {what}: {count}")
        if problems:
            raise Failed("\n".join(problems))
    print(f"bounces: ok servers={len(written)} examples={len(files)} differences={len(found)}")


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(f"bounces: FAILED {failure}")
