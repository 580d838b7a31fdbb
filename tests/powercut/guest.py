"""The guest: a Debian kernel with an initramfs of our own: busybox, nats-server, the drivers, nothing else."""

import lzma
import pathlib

from rig.processes import ROOT, SERVERS, Failed, run

GUEST = ROOT / ".servers" / "powercut" / "guest"
DRIVERS = ["virtio_pci", "virtio_blk", "virtio_net", "ext4", "crc32c_generic"]
# The lines are those of the other tests. Paths and ports are the guest's.
CONFIGURATION = """\
port: 4222
http: "0.0.0.0:8222"
max_payload: 8MB
max_pending: 256MB
jetstream {{ store_dir: "/data/nats", max_mem: 64MB, max_file: 30GB{setting} }}
"""


def kernel():
    """The kernel's image."""
    return _one("vmlinuz-*")


def build(path, sync_interval=None, mount_options="rw"):
    """Writes an initramfs. Without `sync_interval` the server's own default holds."""
    setting = f", sync_interval: {sync_interval}" if sync_interval else ""
    drivers = _drivers()
    files = {
        "init": (pathlib.Path(__file__).with_name("guest-init").read_bytes(), 0o755),
        "bin/busybox": (_one("busybox").read_bytes(), 0o755),
        "bin/nats-server": ((SERVERS / "nats-server").read_bytes(), 0o755),
        "etc/nats.conf": (CONFIGURATION.format(setting=setting).encode(), 0o644),
        "etc/mount-options": (mount_options.encode(), 0o644),
        "modules/order": ("".join(f"{name}\n" for name in drivers).encode(), 0o644),
    }
    files |= {f"modules/{name}": (content, 0o644) for name, content in drivers.items()}
    with open(path, "wb") as archive:
        for number, folder in enumerate(["bin", "data", "dev", "etc", "modules", "proc", "sys", "tmp"]):
            archive.write(_entry(number, folder, 0o040755, b""))
        for number, (name, (content, mode)) in enumerate(files.items(), 100):
            archive.write(_entry(number, name, 0o100000 | mode, content))
        archive.write(_entry(0, "TRAILER!!!", 0, b""))


def make_disk(path, mebibytes):
    """Makes an empty file system in a sparse file."""
    with open(path, "wb") as image:
        image.truncate(mebibytes << 20)
    # Without lazy initialisation, so that the kernel does nothing behind the test's back.
    run(["mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", path])


def _one(pattern):
    found = next((path for path in sorted(GUEST.rglob(pattern)) if path.is_file()), None)
    if not found:
        raise Failed(f"no {pattern} in {GUEST}: run tests/powercut/get.sh")
    return found


def _drivers():
    """The drivers' modules in the order of their dependencies; what the kernel has built in is left out."""
    there = {path.name.split(".")[0].replace("-", "_"): path for path in GUEST.rglob("*.ko*")}
    ordered = {}

    def add(name):
        if name not in there or f"{name}.ko" in ordered:
            return
        content = there[name].read_bytes()
        if there[name].suffix == ".xz":
            content = lzma.decompress(content)
        marker = content.index(b"\0depends=") + len(b"\0depends=")
        for needed in content[marker:content.index(b"\0", marker)].decode().split(","):
            add(needed.replace("-", "_"))
        ordered[f"{name}.ko"] = content

    for name in DRIVERS:
        add(name)
    return ordered


def _entry(number, name, mode, content):
    """One file in the format "newc" (cpio(5))."""
    fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)
