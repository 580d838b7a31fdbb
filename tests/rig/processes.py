"""Processes that are certain to be stopped, and what they cost."""

import contextlib
import ctypes
import itertools
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SERVERS = ROOT / ".servers" / "bin"
TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")
os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"


class Failed(Exception):
    """What was tried did not work; the text is for the person at the terminal."""


def _end_with_parent():
    """Runs in the child: SIGTERM when this script is gone, however it went."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


# Below the ports that the kernel gives to outgoing connections, so that none of those takes one of ours.
_ports = itertools.cycle(random.sample(range(10_000, 32_000), 22_000))


def free_port(address="127.0.0.1"):
    """A port that was free a moment ago on the address."""
    for port in itertools.islice(_ports, 22_000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
            return port
    raise Failed(f"no port is free on {address}")


def free_port_on(addresses):
    """One port number that was free a moment ago on each of the addresses."""
    for _ in range(100):
        port = free_port(addresses[0])
        with contextlib.ExitStack() as held:
            try:
                for address in addresses[1:]:
                    held.enter_context(socket.socket()).bind((address, port))
                return port
            except OSError:
                continue
    raise Failed(f"no port is free on all of {addresses}")


def wait_until(what, condition, seconds=30, every=0.05):
    """Waits for the condition to give something true, and gives it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(every)
    raise Failed(f"{what}: not within {seconds} s")


def listens(address, port):
    """Whether a TCP connection is accepted there."""
    try:
        socket.create_connection((address, port), timeout=1).close()
        return True
    except OSError:
        return False


def stat(pid):
    """(parent, CPU ticks of the process itself, CPU ticks of its children that have ended), or None."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])


def family(pid):
    """The process and all its living descendants."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (found := stat(entry)):
            children.setdefault(found[0], []).append(int(entry))
    members, wanted = [], [pid]
    while wanted:
        member = wanted.pop()
        members.append(member)
        wanted += children.get(member, [])
    return members


class Process:
    """A running child. Its output goes to a log file of its own."""

    def __init__(self, name, argv, log, **options):
        self.name = name
        self.log = pathlib.Path(log)
        self.argv = [str(argument) for argument in argv]
        options.setdefault("stdout", open(self.log, "ab"))
        self.child = subprocess.Popen(
            self.argv, stdin=subprocess.DEVNULL, stderr=open(self.log, "ab"), preexec_fn=_end_with_parent, **options
        )
        self.pid = self.child.pid

    def running(self):
        """Whether it has not ended."""
        return self.child.poll() is None

    def cpu_us(self):
        """CPU time in microseconds since its start, of itself and all its descendants, ended ones included."""
        total = 0
        for member in family(self.pid):
            if found := stat(member):
                total += found[1] + found[2]
        return total * TICK_US

    def peak_rss_kib(self):
        """Largest resident set of the process, or the sum of its family's, in KiB."""
        total = 0
        for member in family(self.pid):
            with contextlib.suppress(OSError):
                for line in pathlib.Path(f"/proc/{member}/status").read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        total += int(line.split()[1])
        return total

    def stop(self, seconds=20):
        """Asks it to end, and ends it when it does not within the time."""
        if self.running():
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(seconds)
            except subprocess.TimeoutExpired:
                print(f"{self.name} did not end within {seconds} s of SIGTERM: killed", file=sys.stderr)
                self.child.kill()
                self.child.wait(10)

    def kill(self):
        """kill -9."""
        if self.running():
            self.child.kill()
        self.child.wait(10)

    def tail(self, lines=15):
        """The end of its log."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""


class Rig:
    """A temporary directory and the processes started in it, all stopped and removed at the end.

    After a failure the directory with the logs is kept, and its name printed.
    """

    def __init__(self, name):
        self.name = name
        self.processes = []
        self.at_end = []

    def __enter__(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix=f"staffetta-{self.name}-"))
        # Servers that drop their privileges must reach their own folders below.
        self.directory.chmod(0o755)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        return self

    def __exit__(self, kind, *_):
        for action in reversed(self.at_end):
            with contextlib.suppress(Exception):
                action()
        for process in reversed(self.processes):
            process.stop()
        if kind is None:
            shutil.rmtree(self.directory, ignore_errors=True)
        else:
            print(f"the logs are in {self.directory}", file=sys.stderr)

    def start(self, name, argv, ready=None, seconds=30, **options):
        """Starts a process and waits until `ready()` is true."""
        process = Process(name, argv, self.directory / f"{name}.log", **options)
        self.processes.append(process)
        if ready:
            try:
                wait_until(f"{name} ready", lambda: not process.running() or ready(), seconds)
            except Failed as failure:
                raise Failed(f"{failure}\n{process.tail()}") from None
            if not process.running():
                raise Failed(f"{name} ended at once:\n{process.tail()}")
        return process

    def stop(self, process):
        """Stops one process before the end."""
        process.stop()
        self.processes.remove(process)


def run(argv, **options):
    """Runs a command to its end and gives its output; raises with it when it fails."""
    options.setdefault("timeout", 120)
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, argv))} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout
