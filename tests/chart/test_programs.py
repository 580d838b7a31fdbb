"""What the chart configures, run for real on this machine: its NATS servers, its services, its Job, its `helm test`.

Names of Services become 127.0.0.1, ports become free ones, paths become those of a folder; nothing else is changed.
"""

import base64
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

import rendering

BINARY = rendering.ROOT / "target" / "debug" / "staffetta"
SERVERS = rendering.ROOT / ".servers" / "bin"
SERVICES = {"signer": 9102, "scheduler": 9103, "sender": 9104, "feedback": 9105, "ingress": 9101}
PATIENCE = 60


def free_port(address="127.0.0.1"):
    with socket.socket() as it:
        it.bind((address, 0))
        return it.getsockname()[1]


class Here:
    """A release in a folder of this machine."""

    def __init__(self, values):
        self.objects = rendering.objects(values)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="staffetta-chart-"))
        self.ports = {}
        self.processes = []

    def port(self, number):
        """Stands for a port of the chart."""
        if number not in self.ports:
            self.ports[number] = free_port()
        return self.ports[number]

    def localized(self, text):
        text = re.sub(r"staffetta-[-a-z0-9.]*\.svc\.cluster\.local", "127.0.0.1", text)
        text = text.replace("0.0.0.0:", "127.0.0.1:")
        text = re.sub(r"(127\.0\.0\.1|\$\{POD_IP\}):(\d{4})", lambda it: f"{it[1]}:{self.port(int(it[2]))}", text)
        text = re.sub(r"(?m)^( *(?:http_)?port:) (\d+)$", lambda it: f"{it[1]} {self.port(int(it[2]))}", text)
        for path in ("/etc/staffetta", "/data", "/run/nats", "/scratch"):
            text = re.sub(rf"(?<![\w.]){path}\b", f"{self.folder}{path}", text)
        return text

    def write(self, path, text):
        path = pathlib.Path(f"{self.folder}{path}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def write_mounted(self):
        """What the pods find in their volumes."""
        config = rendering.one(self.objects, "ConfigMap", "staffetta-config")["data"]["staffetta.yaml"]
        self.write("/etc/staffetta/config/staffetta.yaml", self.localized(config))
        for name, text in rendering.one(self.objects, "ConfigMap", "staffetta-documents")["data"].items():
            self.write(f"/etc/staffetta/documents/{name}", text)
        for name, text in rendering.one(self.objects, "Secret", "staffetta-tls")["data"].items():
            self.write(f"/etc/staffetta/tls/{name}", base64.b64decode(text).decode())

    def environment(self, container):
        found = {"POD_IP": "127.0.0.1", "POD_NAME": "staffetta-nats-0"}
        for it in container.get("env", []):
            if "value" in it:
                found[it["name"]] = self.localized(it["value"])
        return found

    def container(self, kind, name, at=0):
        """A container of an object, as a command's arguments and environment."""
        (spec,) = [spec for pod, _, spec in rendering.pod_templates(self.objects) if pod.startswith(f"{kind}/{name}")]
        container = rendering.containers(spec)[at]
        arguments = [self.localized(it) for it in container.get("args", [])]
        return arguments, os.environ | self.environment(container)

    def start(self, name, command, environment):
        log = (self.folder / f"{name}.log").open("w")
        self.processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        log.close()

    def start_stores(self):
        config = rendering.one(self.objects, "ConfigMap", "staffetta-nats")["data"]["nats.conf"]
        path = self.write("/etc/nats/nats.conf", self.localized(config))
        (self.folder / "run/nats").mkdir(parents=True)
        _, environment = self.container("StatefulSet", "staffetta-nats")
        self.start("nats", [SERVERS / "nats-server", "--config", path, "--addr", "127.0.0.1"], environment)
        arguments, environment = self.container("Deployment", "staffetta-redis")
        (self.folder / "data").mkdir(exist_ok=True)
        port = ["--port", str(self.port(6379)), "--bind", "127.0.0.1"]
        self.start("redis", [SERVERS / "redis-server", *arguments, *port], environment)

    def start_server(self, number):
        """One of several NATS servers, at an address of its own."""
        addresses = [f"127.0.1.{it + 1}" for it in range(3)]
        config = rendering.one(self.objects, "ConfigMap", "staffetta-nats")["data"]["nats.conf"]
        for it, address in enumerate(addresses):
            config = re.sub(rf"staffetta-nats-{it}\.[-.a-z]*:6222", f"{address}:{self.port(6222)}", config)
        config = config.replace("  port: 6222", f"  listen: {addresses[number]}:{self.port(6222)}")
        config = self.localized(config).replace(f"{self.folder}/", f"{self.folder}/server-{number}/")
        path = self.write(f"/server-{number}/nats.conf", config)
        (self.folder / f"server-{number}/run/nats").mkdir(parents=True)
        environment = os.environ | {"POD_NAME": f"staffetta-nats-{number}"}
        command = [SERVERS / "nats-server", "--config", path, "--addr", addresses[number]]
        self.start(f"nats-{number}", command, environment)

    def stopping(self, name):
        """What Kubernetes runs in the pod of a StatefulSet before it stops it."""
        (spec,) = [
            spec for pod, _, spec in rendering.pod_templates(self.objects) if pod == f"StatefulSet/staffetta-{name}"
        ]
        return spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]

    def start_services(self):
        for service in SERVICES:
            arguments, environment = self.container("Deployment", f"staffetta-{service}")
            self.start(service, [BINARY, *arguments], environment)

    def readiness(self, service):
        url = f"http://127.0.0.1:{self.port(SERVICES[service])}"
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def wait_for(self, status):
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            seen = {service: self.readiness(service) for service in SERVICES}
            if set(seen.values()) == {status}:
                return
            time.sleep(0.2)
        raise AssertionError(f"not {status} in time: {seen}\n{self.logs()}")

    def run_step(self, kind, name, at):
        """A container that ends."""
        arguments, environment = self.container(kind, name, at)
        done = subprocess.run([BINARY, *arguments], env=environment, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}\n{self.logs()}"
        return done.stdout

    def logs(self):
        return "\n".join(f"--- {path.name}\n{path.read_text()[-1500:]}" for path in sorted(self.folder.glob("*.log")))

    def stop(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            process.wait(timeout=PATIENCE)
        shutil.rmtree(self.folder)


class Programs(unittest.TestCase):
    def test_nats_takes_every_configuration(self):
        for values in set(rendering.VALUES) - {"existing"}:
            here = Here(values)
            self.addCleanup(here.stop)
            config = rendering.one(here.objects, "ConfigMap", "staffetta-nats")["data"]["nats.conf"]
            path = here.write("/nats.conf", config)
            environment = os.environ | {
                "POD_NAME": "staffetta-nats-0",
                "NATS_USERNAME": "user",
                "NATS_PASSWORD": "secret",
            }
            environment |= {
                f"NATS_ROUTE_{number}": f"nats-route://user:secret@nats-{number}:6222" for number in range(3)
            }
            command = [SERVERS / "nats-server", "--config", path, "-t"]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            self.assertEqual(0, done.returncode, f"{values}: {done.stderr}")

    def test_staffetta_takes_every_bootstrap_file(self):
        for values in rendering.VALUES:
            here = Here(values)
            self.addCleanup(here.stop)
            config = rendering.one(here.objects, "ConfigMap", "staffetta-config")["data"]["staffetta.yaml"]
            # Certificates are checked too, and are not here.
            config = re.sub(r"(?m)^ *(certificate|key|admin|certificates|- \{ certificate): ?.*\n", "", config).replace("tls: starttls", "tls: none")
            keys = here.write("/tokens", "1 0123456789abcdef\n")
            config = config.replace("/etc/staffetta/tokens/keys", str(keys))
            path = here.write("/staffetta.yaml", config.replace("tls: implicit", "tls: none"))
            environment = os.environ | {
                "POD_IP": "10.1.2.3",
                "NATS_URL": "nats://x:4222",
                "REDIS_URL": "rediss://x:6379",
            }
            command = [BINARY, "--config", path, "check"]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            self.assertEqual(0, done.returncode, f"{values}: {done.stderr}")

    def test_three_servers_find_each_other_and_creating_waits_for_all_of_them(self):
        here = Here("ha")
        self.addCleanup(here.stop)
        config = rendering.one(here.objects, "ConfigMap", "staffetta-config")["data"]["staffetta.yaml"]
        # The Service of all servers is the first of them here.
        first = here.localized(config).replace("127.0.0.1:", "127.0.1.1:")
        here.write("/etc/staffetta/config/staffetta.yaml", first)
        arguments, environment = here.container("Job", "staffetta-init")
        environment["NATS_URL"] = environment["NATS_URL"].replace("127.0.0.1", "127.0.1.1")
        pipe = subprocess.PIPE
        init = subprocess.Popen([BINARY, *arguments], env=environment, stdout=pipe, stderr=pipe, text=True)
        try:
            for number in range(3):
                time.sleep(1.5)
                self.assertIsNone(init.poll(), here.logs())
                here.start_server(number)
            output, error = init.communicate(timeout=PATIENCE)
        finally:
            init.kill()
        self.assertEqual(0, init.returncode, f"{error}\n{here.logs()}")
        self.assertIn("8 partitions, 3 replica(s)", output)

    def test_a_server_that_stops_says_so_first(self):
        here = Here("ha")
        self.addCleanup(here.stop)
        here.start_server(0)
        (process,) = here.processes
        log = here.folder / "nats-0.log"
        until = time.monotonic() + PATIENCE
        while "Server is ready" not in log.read_text() and time.monotonic() < until:
            time.sleep(0.1)
        program, *arguments = here.stopping("nats")
        self.assertEqual("nats-server", program)
        arguments = [it.replace("/run/nats", f"{here.folder}/server-0/run/nats") for it in arguments]
        subprocess.run([SERVERS / program, *arguments], check=True, timeout=PATIENCE)
        self.assertEqual(0, process.wait(PATIENCE), here.logs())
        self.assertIn("lame duck", log.read_text())

    def test_an_installation_comes_up_and_its_own_test_passes(self):
        """Pods start in any order and before the Job; `helm test` delivers, and leaves the configuration as it was."""
        here = Here("dev")
        self.addCleanup(here.stop)
        here.write_mounted()
        here.start_services()
        here.wait_for(503)
        here.start_stores()
        self.assertIn("created", here.run_step("Job", "staffetta-init", 0))
        self.assertIn("created Tenant/dev", here.run_step("Job", "staffetta-init", 1))
        here.wait_for(200)

        script = rendering.CHART / "files" / "delivery.py"
        environment = os.environ | {
            "POD_IP": "127.0.0.1",
            "WORK": str(here.folder / "scratch"),
            "SINK_HOST": "localhost",
            # It receives at all addresses, where other tests are too.
            "SINK_PORT": str(free_port("")),
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(here.port(2525)),
            "SMTP_TLS": "starttls",
            "TIMEOUT_SECONDS": "30",
        }
        (here.folder / "scratch").mkdir()

        def step(name):
            command = [sys.executable, "-B", script, name]
            return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)

        self.assertEqual(0, step("prepare").returncode)
        self.assertIn("created Credential/helm-test", here.run_step("Pod", "staffetta-test", 1))
        sent = step("send")
        self.assertIn("delivered", sent.stdout, f"{sent}\n{here.logs()}")
        restored = here.run_step("Pod", "staffetta-test", 3)
        for it in ("Tenant/helm-test", "Credential/helm-test", "Route/helm-test"):
            self.assertIn(it, restored)
        self.assertNotIn("/dev", restored)
        verdict = step("verdict")
        self.assertEqual((0, "delivered\n"), (verdict.returncode, verdict.stdout))
        (here.folder / "scratch" / "result").write_text("not accepted: x")
        self.assertEqual(1, step("verdict").returncode)


if __name__ == "__main__":
    unittest.main()
