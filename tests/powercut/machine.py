"""One virtual machine: started, asked to end in order, or killed."""

import json
import socket
import urllib.request

from rig.processes import Failed, free_port, wait_until

from . import guest

# Without no_timer_check the kernel gives up when a busy host is late with its timer interrupts.
APPEND = "console=ttyS0 quiet panic=-1 no_timer_check"


class Machine:
    """QEMU without KVM, with the disk behind the given socket. Its ports are reached on loopback only."""

    def __init__(self, rig, name, disk_address, initramfs, ports=None, seconds=90):
        self.rig = rig
        self.port, self.monitor = ports or (free_port(), free_port())
        console = rig.directory / f"{name}.console"
        forwards = ",".join(
            f"hostfwd=tcp:127.0.0.1:{outside}-:{inside}" for outside, inside in ((self.port, 4222), (self.monitor, 8222))
        )
        self.process = rig.start(name, [
            "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "1024",
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-kernel", guest.kernel(), "-initrd", initramfs, "-append", APPEND,
            # The host caches nothing of the disk: what is written goes to the server of the disk at once,
            # a flush as a flush.
            "-blockdev", f"driver=nbd,node-name=disk,server.type=unix,server.path={disk_address},cache.direct=on,cache.no-flush=off",
            "-device", "virtio-blk-pci,drive=disk,write-cache=on",
            "-netdev", f"user,id=net,restrict=on,{forwards}", "-device", "virtio-net-pci,netdev=net,romfile=",
            "-chardev", f"socket,id=console,path={console},server=on,wait=off,logfile={rig.directory / name}.log",
            "-serial", "chardev:console",
        ])
        self.console = console
        try:
            wait_until(f"nats-server in {name}", lambda: not self.process.running() or self._answers(), seconds)
            if not self.process.running():
                raise Failed(f"{name} ended:\n{self.process.tail()}")
        except Failed:
            self.cut()
            raise

    @property
    def ports(self):
        """To be given to the machine that comes after it."""
        return self.port, self.monitor

    @property
    def url(self):
        return f"nats://127.0.0.1:{self.port}"

    @property
    def monitor_url(self):
        return f"http://127.0.0.1:{self.monitor}"

    def power_off(self):
        """Ends the server, unmounts, switches off."""
        with socket.socket(socket.AF_UNIX) as console:
            console.connect(str(self.console))
            console.sendall(b"poweroff\n")
            wait_until("an orderly end", lambda: not self.process.running(), 60)
        self.rig.stop(self.process)

    def cut(self):
        """kill -9: with the process go the guest's memory, its page cache among it. May be repeated."""
        self.process.kill()
        if self.process in self.rig.processes:
            self.rig.stop(self.process)

    def _answers(self):
        # Recovered and ready, not only listening: QEMU accepts connections for the guest at any time.
        try:
            with urllib.request.urlopen(f"{self.monitor_url}/healthz", timeout=2) as answer:
                return json.load(answer).get("status") == "ok"
        except OSError:
            return False
