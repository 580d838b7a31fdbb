#!/usr/bin/env python3
"""The power-cut test: nats-server in a virtual machine that is killed under load, with a disk that drops
what was not flushed. README.md says why that is a power cut.

    tests/powercut/run.py [--rounds N] [--seed S] [--mode MODE] [--seconds-of-load 3]

The last line is `powercut: ok rounds=… strict_lost=0 relaxed_lost=K acknowledged=N`, N being the messages
acknowledged in the rounds of the first mode, or `powercut: FAILED …` with exit status 1.
"""

import argparse
import contextlib
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from powercut import guest, relay  # noqa: E402
from powercut.disk import Disk  # noqa: E402
from powercut.machine import Machine  # noqa: E402
from rig.processes import ROOT, Failed, Rig, run, wait_until  # noqa: E402

CLIENT = ROOT / "target" / "debug" / "examples" / "powercut-load"
DISK_MIB = 4096
# Cuts that one file system lives through, each ledger being checked again after all later ones.
CUTS_PER_DISK = 4
# sync_interval, options of ext4, what the client asks for. In "unflushed" the server does its fsyncs and
# the guest's kernel writes, but sends the disk no flush: it shows that the disk drops what is not flushed.
MODES = {
    "strict": ("always", "rw", "strict"),
    "relaxed": (None, "rw", "relaxed"),
    "unflushed": ("always", "rw,nobarrier", "strict"),
    # As strict, with the whole relay as the client.
    "relay": ("always", "rw", "strict"),
}


class Client:
    """The load outside of the machine. It lives through the cut."""

    def __init__(self, rig, installation, seed):
        self.rig, self.ledger = rig, installation.ledger
        self.position = self.ledger.stat().st_size if self.ledger.exists() else 0
        self.count = 0
        self.output = rig.directory / "load.out"
        self.errors = rig.directory / "load.log"
        self.child = subprocess.Popen(
            [*map(str, client_command("load", installation)), "--seed", str(seed)],
            stdin=subprocess.PIPE, stdout=open(self.output, "wb"), stderr=open(self.errors, "ab"),
        )
        rig.at_end.append(self.kill)

    def acknowledged(self):
        """Acknowledged messages in the ledger, of this client."""
        if self.ledger.exists():
            with open(self.ledger, "rb") as lines:
                lines.seek(self.position)
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    self.position += len(line)
                    self.count += line.startswith(b"acknowledged ")
        return self.count

    def wait_for_more(self, than):
        """Waits until more are acknowledged."""
        def more():
            if self.child.poll() is not None:
                raise Failed(f"the client ended: {self.errors.read_text()[-2000:]}")
            return self.acknowledged() > than
        wait_until("the client's messages are acknowledged", more, 90, 0.02)

    def finish(self):
        """Lets it end when all is answered, and gives its figures."""
        self.child.stdin.close()
        if self.child.wait(90) != 0:
            raise Failed(f"the client failed: {self.errors.read_text()[-2000:]}")
        return figures(self.output.read_text())

    def kill(self):
        """To be called any time."""
        with contextlib.suppress(OSError):
            self.child.stdin.close()
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait(10)


class Installation:
    """A disk with initialised stores, the machine that has it, and the ledger of both."""

    def __init__(self, rig, name, base, mode, initramfs):
        self.rig, self.name, self.initramfs = rig, name, initramfs
        self.durability = MODES[mode][2]
        self.image = rig.directory / f"{name}.img"
        self.socket = rig.directory / f"{name}.sock"
        self.ledger = rig.directory / f"{name}.ledger"
        run(["cp", "--sparse=always", base, self.image])
        self.disk = Disk(self.image, self.socket)
        self.machine = None
        self.cuts = 0

    def boot(self):
        """Starts the machine, where the one before was."""
        ports = self.machine and self.machine.ports
        self.machine = Machine(self.rig, f"{self.name}-boot-{self.cuts}", self.socket, self.initramfs, ports)

    def cut(self, dice):
        """The power goes."""
        self.machine.cut()
        self.cuts += 1
        return self.disk.cut(dice)

    def discard(self):
        """Ends all of it."""
        if self.machine:
            self.machine.cut()
        self.disk.close()
        self.image.unlink()
        self.ledger.unlink(missing_ok=True)


def client_command(command, installation, durability=None):
    machine = installation.machine
    return [CLIENT, command, "--url", machine.url, "--monitor", machine.monitor_url,
            "--durability", durability or installation.durability, "--ledger", installation.ledger]


def figures(text):
    """`name=number` of a line."""
    return {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", text)}


def empty_disk(rig):
    """A disk with a file system."""
    path = rig.directory / "empty.img"
    guest.make_disk(path, DISK_MIB)
    return path


def relay_rounds(rig, rounds, arguments):
    """Gives (accepted, lost) of a relay that lives through all rounds."""
    initramfs = rig.directory / "relay.cpio"
    guest.build(initramfs, "always")
    installation = Installation(rig, "relay", empty_disk(rig), "relay", initramfs)
    rig.at_end.append(installation.disk.close)
    # Before the disk is closed, and after the relay's clients have stopped.
    rig.at_end.append(lambda: installation.machine.cut())
    return relay.run_rounds(
        rig, installation, rounds, arguments.seed, arguments.seconds_of_load, arguments.wait_for_doubt)


def prepare(rig, initramfs):
    """A disk with initialised stores, from a machine that was switched off in order."""
    empty = empty_disk(rig)
    installation = Installation(rig, "base", empty, "strict", initramfs)
    installation.boot()
    run(client_command("prepare", installation))
    installation.machine.power_off()
    if (dropped := installation.disk.cut().dropped_kib):
        raise Failed(f"an orderly end left {dropped} KiB unflushed")
    base = rig.directory / "prepared.img"
    run(["cp", "--sparse=always", installation.image, base])
    installation.machine = None
    installation.discard()
    empty.unlink()
    return base


def one_round(rig, installation, mode, dice, seconds_of_load):
    """Load, cut, restart, more load, check. Gives (acknowledged, lost, text)."""
    begun = time.monotonic()
    client = Client(rig, installation, dice.getrandbits(32))
    try:
        client.wait_for_more(0)
        time.sleep(dice.uniform(0.1, seconds_of_load))
        # In one round of three the disk loses all, in the others by chance.
        disk = installation.cut(None if dice.random() < 1 / 3 else dice)
        # What the server had answered before may still be on its way.
        time.sleep(0.2)
        at_cut = client.acknowledged()
        before = f"at_cut={at_cut} flushes={disk.flushes} dropped={disk.dropped_kib}KiB survived={disk.survived_kib}KiB"
        try:
            installation.boot()
            client.wait_for_more(at_cut)
            time.sleep(dice.uniform(0.1, 0.5))
            ended = client.finish()
            found = verify(installation)
        except (Failed, subprocess.TimeoutExpired) as failure:
            if mode == "strict":
                raise
            # The file system or a store did not come back: that is a loss, too.
            return at_cut, at_cut, f"{before} all lost: {str(failure).splitlines()[0]}"
    finally:
        client.kill()
        rig.at_end.remove(client.kill)
    wrong = [name for name in ("damaged_blocks", "stored_twice", "stored_refused") if found[name]]
    text = (
        f"{before} acknowledged={ended['acknowledged']} appended={ended['appended']} lost={found['lost']} "
        f"journal_lost={found['journal_lost']} unknown={ended['unknown']} refused={ended['refused']} "
        f"stored_unacknowledged={found['stored_unacknowledged']} checked={found['acknowledged']} "
        f"{''.join(f'{name}={found[name]} ' for name in wrong)}seconds={time.monotonic() - begun:.1f}"
    )
    lost = found["lost"] + found["journal_lost"]
    # In the other modes the rest can't be expected to hold.
    if mode == "strict" and (lost or wrong):
        raise Failed(f"strict: {text}")
    return ended["acknowledged"], lost, text


def verify(installation):
    """Compares the stores with the ledger; what is lost is in the log beside it."""
    checked = subprocess.run([*map(str, client_command("verify", installation))], capture_output=True, text=True, timeout=180)
    with open(installation.rig.directory / f"{installation.name}.verify.log", "a") as log:
        log.write(checked.stdout + checked.stderr)
    if checked.returncode != 0:
        raise Failed(f"the stores can't be checked: {checked.stderr}")
    return figures(checked.stdout)


def rounds_of(rig, base, mode, rounds, seed, seconds_of_load):
    """Gives (acknowledged, lost) of all rounds of a mode."""
    sync_interval, mount_options, _ = MODES[mode]
    initramfs = rig.directory / f"{mode}.cpio"
    guest.build(initramfs, sync_interval, mount_options)
    acknowledged = lost = 0
    installation = None
    for number in range(1, rounds + 1):
        dice = random.Random(f"{seed} {mode} {number}")
        if not installation:
            installation = Installation(rig, f"{mode}-{number}", base, mode, initramfs)
            rig.at_end.append(installation.disk.close)
            installation.boot()
        more, gone, text = one_round(rig, installation, mode, dice, seconds_of_load)
        print(f"powercut: {mode} {number}/{rounds}: {text}", flush=True)
        acknowledged += more
        lost += gone
        if gone or installation.cuts == CUTS_PER_DISK or number == rounds:
            rig.at_end.remove(installation.disk.close)
            installation.discard()
            installation = None
    return acknowledged, lost


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4, help="of the first mode; the others get a quarter of them")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(31))
    parser.add_argument("--mode", choices=[*MODES, "both", "all"], default="both", help="both: strict and relaxed; all: also unflushed and relay")
    parser.add_argument("--seconds-of-load", type=float, default=3.0)
    parser.add_argument("--wait-for-doubt", action="store_true", help="relay: wait until what is in doubt is settled")
    arguments = parser.parse_args()
    modes = {"both": ["strict", "relaxed"], "all": list(MODES)}.get(arguments.mode, [arguments.mode])
    print(f"powercut: seed {arguments.seed}", flush=True)
    acknowledged, lost = {}, {}
    try:
        if not shutil.which("qemu-system-x86_64") or not guest.GUEST.exists():
            raise Failed("run tests/powercut/get.sh first")
        with Rig("powercut") as rig:
            base_initramfs = rig.directory / "prepare.cpio"
            guest.build(base_initramfs, "always")
            base = prepare(rig, base_initramfs) if modes != ["relay"] else None
            for mode in modes:
                rounds = arguments.rounds if mode == modes[0] else max(1, arguments.rounds // 4)
                if mode == "relay":
                    acknowledged[mode], lost[mode] = relay_rounds(rig, rounds, arguments)
                else:
                    acknowledged[mode], lost[mode] = rounds_of(
                        rig, base, mode, rounds, arguments.seed, arguments.seconds_of_load)
            for mode in ("relaxed", "unflushed"):
                if lost.get(mode) == 0:
                    raise Failed(f"{mode} has lost nothing, so that the test proves nothing")
    except (Failed, subprocess.SubprocessError, OSError) as failure:
        print(f"powercut: FAILED seed={arguments.seed} {failure}")
        return 1
    counts = [f"{mode}_lost={lost[mode]}" for mode in modes]
    counts.insert(2, f"acknowledged={acknowledged[modes[0]]}")
    print(f"powercut: ok rounds={arguments.rounds} {' '.join(counts)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
