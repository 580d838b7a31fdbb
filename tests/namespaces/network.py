"""Network namespaces that stand for pods, on a bridge in a namespace of its own."""

import contextlib
import ctypes
import os
import pathlib
import re

from rig.processes import Failed, run

CLONE_NEWNET = 0x40000000
NAMESPACES = pathlib.Path("/run/netns")
NETWORK = "10.83.0"


class Network:
    """A network that nothing outside of it reaches; it is removed with the rig.

    The bridge is in a namespace too, so that the machine's own network has no device of ours.
    """

    def __init__(self, rig, nameserver):
        if os.geteuid() != 0:
            raise Failed("network namespaces are made by root only")
        remove_leftovers()
        self.prefix = f"stf{os.getpid()}-"
        self.addresses = {}
        # What `/etc/resolv.conf` says in every pod.
        self.resolv = rig.directory / "resolv.conf"
        self.resolv.write_text(f"nameserver {nameserver}\noptions timeout:1 attempts:3\n")
        self.home = os.open("/proc/self/ns/net", os.O_RDONLY)
        rig.at_end.append(self.remove)
        run(["ip", "netns", "add", self.prefix + "switch"])
        run(["ip", "-n", self.prefix + "switch", "link", "add", "bridge", "type", "bridge"])
        run(["ip", "-n", self.prefix + "switch", "link", "set", "bridge", "up"])

    def add(self, name, number):
        """A pod with the address of this number; gives the address."""
        namespace, switch, port = self.prefix + name, self.prefix + "switch", f"p{number}"
        address = f"{NETWORK}.{number}"
        run(["ip", "netns", "add", namespace])
        run(["ip", "-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace])
        run(["ip", "-n", switch, "link", "set", port, "master", "bridge", "up"])
        run(["ip", "-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0"])
        run(["ip", "-n", namespace, "link", "set", "lo", "up"])
        run(["ip", "-n", namespace, "link", "set", "eth0", "up"])
        self.addresses[name] = address
        return address

    def command(self, name, argv):
        """What runs a program in the pod, with the pod's own `/etc/resolv.conf`, under the same process id."""
        script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
        return ["ip", "netns", "exec", self.prefix + name, "sh", "-c", script, self.resolv, *argv]

    def enter(self, name):
        """Brings this thread, and what it starts from now on, into the pod."""
        with open(NAMESPACES / (self.prefix + name)) as namespace:
            set_namespace(namespace.fileno())

    def cut(self, name):
        """Pulls the pod's cable: nothing goes in or out, and nobody is told."""
        run(["ip", "-n", self.prefix + "switch", "link", "set", f"p{self._number(name)}", "down"])

    def join(self, name):
        """Puts the cable back."""
        run(["ip", "-n", self.prefix + "switch", "link", "set", f"p{self._number(name)}", "up"])

    def _number(self, name):
        return self.addresses[name].rpartition(".")[2]

    def remove(self):
        """Removes all of it. Processes in it are to be ended first."""
        set_namespace(self.home)
        for namespace in [*self.addresses, "switch"]:
            with contextlib.suppress(Failed):
                run(["ip", "netns", "del", self.prefix + namespace])


def set_namespace(descriptor):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise Failed(f"setns: {os.strerror(ctypes.get_errno())}")


def remove_leftovers():
    """Removes the namespaces of runs whose process is gone."""
    if not NAMESPACES.is_dir():
        return
    for entry in list(NAMESPACES.iterdir()):
        found = re.fullmatch(r"stf(\d+)-[a-z0-9-]+", entry.name)
        if found and not pathlib.Path(f"/proc/{found[1]}").exists():
            run(["ip", "netns", "del", entry.name])
