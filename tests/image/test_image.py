"""The image of `make image`: what is in it, and that it runs as a user without rights on a file system that can't be
written. The container is one of our own making: the unpacked image in a mount namespace, so that no runtime is needed.

    python3 -m unittest discover -s tests/image
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
import unittest
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
VERSION = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
ARCHIVE = ROOT / "target" / "image" / f"staffetta-{VERSION}.tar"
FILES = {"usr/local/bin/staffetta", "etc/ssl/certs/ca-certificates.crt"}
LARGEST = 40_000_000
UID = 65532

# $0 is the image's root. /dev is there as every container runtime gives it. Read-only; a user without capabilities, and no way to any.
CONTAINER = """
mount --bind "$0" "$0" && mount -o remount,bind,ro,nosuid "$0" && mount --rbind /dev "$0/dev" || exit 125
exec setpriv --no-new-privs chroot --userspec=65532:65532 "$0" /usr/local/bin/staffetta "$@"
"""


def unpack(folder):
    """The image's configuration and file names; its files are in the folder."""
    names = set()
    with tarfile.open(ARCHIVE) as archive:
        (manifest,) = json.load(archive.extractfile("manifest.json"))
        config = json.load(archive.extractfile(manifest["Config"]))
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=archive.extractfile(layer)) as files:
                names |= {it.name.removeprefix("./") for it in files if not it.isdir()}
                files.extractall(folder)
    return manifest, config, names


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


class Image(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        assert ARCHIVE.exists(), f"{ARCHIVE} is missing: make image"
        cls.root = pathlib.Path(tempfile.mkdtemp(prefix="staffetta-image-"))
        cls.root.chmod(0o755)
        cls.manifest, cls.config, cls.names = unpack(cls.root)
        # What every container runtime adds.
        (cls.root / "dev").mkdir()
        (cls.root / "etc" / "hosts").write_text("127.0.0.1 localhost\n")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.root)

    def test_it_holds_one_program_and_the_authorities_and_is_small(self):
        self.assertEqual(FILES, self.names)
        self.assertLess(ARCHIVE.stat().st_size, LARGEST)

    def test_it_says_what_it_is_and_runs_as_a_number(self):
        config = self.config["config"]
        self.assertEqual(f"{UID}:{UID}", config["User"])
        self.assertEqual(["/usr/local/bin/staffetta"], config["Entrypoint"])
        self.assertFalse(config.get("Cmd"))
        self.assertEqual(VERSION, config["Labels"]["org.opencontainers.image.version"])
        self.assertEqual([f"docker.io/library/staffetta:{VERSION}"], self.manifest["RepoTags"])

    def test_nothing_in_it_tells_where_it_was_compiled(self):
        """Two builds of one commit in two folders are the same only without that."""
        binary = (self.root / "usr/local/bin/staffetta").read_bytes()
        cargo = os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo"))
        for folder in (str(ROOT), cargo):
            at = binary.find(f"{folder}/".encode())
            self.assertEqual(-1, at, binary[at : at + 150])

    def test_its_chart_names_it(self):
        chart = (ROOT / "charts" / "staffetta" / "Chart.yaml").read_text()
        self.assertIn(f'appVersion: "{VERSION}"', chart)

    def container(self, *arguments, **environment):
        command = ["unshare", "--mount", "sh", "-c", CONTAINER, self.root, *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=os.environ | environment, stdout=pipe, stderr=pipe, text=True)

    @unittest.skipUnless(os.geteuid() == 0, "a mount namespace needs root")
    def test_the_program_needs_nothing_else(self):
        process = self.container("--version")
        output, error = process.communicate(timeout=30)
        self.assertEqual((0, f"staffetta {VERSION}\n"), (process.returncode, output), error)

    @unittest.skipUnless(os.geteuid() == 0, "a mount namespace needs root")
    def test_a_service_lives_without_rights_waits_for_nats_and_stops_when_told(self):
        port = free_port()
        (self.root / "etc" / "staffetta.yaml").write_text(
            f'signer: {{ listen: "127.0.0.1:{free_port()}", metrics: "127.0.0.1:{port}" }}\n'
            # By name: a static program resolves too.
            f'nats: {{ url: "nats://localhost:{free_port()}" }}\n'
        )
        process = self.container("run", "signer", STAFFETTA_CONFIG="/etc/staffetta.yaml")
        try:
            self.assertEqual(200, self.answer(port, "/livez"))
            self.assertEqual(503, self.answer(port, "/readyz"))
            status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
            self.assertRegex(status, rf"Uid:\s+{UID}\s+{UID}")
            self.assertRegex(status, r"CapEff:\s+0+\n")
            self.assertRegex(status, r"CapPrm:\s+0+\n")
            self.assertRegex(status, r"NoNewPrivs:\s+1\n")
            mounts = pathlib.Path(f"/proc/{process.pid}/mountinfo").read_text()
            # The folder is named as its file system knows it, which is not the whole path where /tmp is one of its own.
            self.assertRegex(mounts, rf" \S*/{self.root.name} / ro,")
        finally:
            process.send_signal(signal.SIGTERM)
            output, error = process.communicate(timeout=30)
        self.assertEqual(0, process.returncode, error)

    def answer(self, port, path):
        until = time.monotonic() + 20
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                    return answer.status
            except urllib.error.HTTPError as error:
                return error.code
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)


if __name__ == "__main__":
    unittest.main()
