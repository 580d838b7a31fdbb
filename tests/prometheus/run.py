"""`make prometheus`: a real Prometheus scrapes every service under load; every query of the dashboards has an answer.

The last line is `prometheus: ok services=N …`, or `prometheus: FAILED …` with exit status 1.
"""

import contextlib
import pathlib
import re
import smtplib
import subprocess
import sys
import threading
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from namespaces import mx_host  # noqa: E402
from namespaces.clients import Clients  # noqa: E402
from prometheus.dashboards import all_dashboards  # noqa: E402
from prometheus.server import Prometheus  # noqa: E402
from rig.processes import Failed, Rig, free_port, listens, wait_until  # noqa: E402
from rig.relay import Relay  # noqa: E402
from rig.servers import Dns, Nats, Redis, rsa_key  # noqa: E402

HOST = "127.0.0.2"
PER_SECOND = 30
# Enough for rates over RATE_INTERVAL, and for what the relay counts every few seconds.
SECONDS_OF_LOAD = 24
RATE_INTERVAL = "16s"


def documents(key, mx_port):
    return f"""apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: {{ name: acme }}
spec: {{ defaultStream: transactional, streams: [ {{ name: transactional, inDoubt: retry }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: {{ name: acme-app }}
spec: {{ tenant: acme, stream: transactional, networks: ["127.0.0.0/8"] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: {{ name: acme.example }}
spec: {{ tenant: acme, dkim: [ {{ selector: s1, algorithm: rsa-sha256, key: "file:{key}" }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: {{ name: default }}
spec: {{ sources: [ {{ name: a, ehlo: relay.example.com }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Route
metadata: {{ name: default }}
spec: {{ pool: default, port: {mx_port}, allowPrivate: true, retry: {{ initial: 2s, factor: 2, max: 10s, jitter: 10 }} }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Shaping
metadata: {{ name: default }}
spec: {{ rules: [ {{ connections: 8, rate: 1000/s }}, {{ match: {{ site: mx.slow.example }}, rate: 5/s }} ] }}
"""


def start(rig):
    """The relay, each service a process of its own, and the clients."""
    port = free_port(HOST)
    rig.start("mx-host", [sys.executable, mx_host.__file__, HOST, port, rig.directory / "book"], lambda: listens(HOST, port))
    domains = ("one.example", "slow.example", "acme.example")
    dns = Dns(rig, mx={domain: [(10, f"mx.{domain}")] for domain in domains}, a={f"mx.{domain}": HOST for domain in domains})
    relay = Relay(rig, Nats(rig), Redis(rig), dns)
    key = rig.directory / "s1.pem"
    rsa_key(key)
    relay.apply(documents(key, port))
    clients = Clients("127.0.0.1", relay.submission, PER_SECOND, 1)
    rig.at_end += [clients.stop, Intruder(relay.submission).stop]
    return relay, clients


class Intruder:
    """Submits as a domain that is nobody's, and is refused."""

    def __init__(self, port):
        self.port = port
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.stopping.wait(0.5):
            with contextlib.suppress(OSError, smtplib.SMTPException), smtplib.SMTP("127.0.0.1", self.port, timeout=10) as client:
                client.ehlo()
                client.mail("somebody@else.example")

    def stop(self):
        self.stopping.set()
        self.thread.join(20)


def check_exposition(relay):
    """promtool says nothing against what each service shows; gives the number of its series."""
    series = 0
    for service in relay.processes:
        with urllib.request.urlopen(f"http://127.0.0.1:{relay.metrics[service]}/metrics", timeout=10) as answer:
            text = answer.read()
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=30)
        said = (done.stdout + done.stderr).decode()
        if done.returncode != 0 or said:
            raise Failed(f"promtool check metrics, {service}:\n{said}")
        series += sum(1 for line in text.splitlines() if line and not line.startswith(b"#"))
    return series


def fill_in(expression, values):
    """The query with the variables in their places, as Grafana asks it."""
    expression = expression.replace("$__rate_interval", RATE_INTERVAL)
    for name, value in values.items():
        expression = expression.replace(f"${name}", value)
    if "$" in expression:
        raise Failed(f"a variable is not known: {expression}")
    return expression


def check_dashboard(prometheus, dashboard):
    """Every variable and every query has an answer, with a value for every label in the legend; gives (panels, queries)."""
    dashboard.check()
    values = {}
    for name, variable in dashboard.variables.items():
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            choices = prometheus.label_values(found[2], fill_in(found[1], values))
            if not choices:
                raise Failed(f"{dashboard.name}: the variable {name} has no value")
            values[name] = choices[0]
    problems, queries = [], 0
    for title, expression, legend in dashboard.queries():
        queries += 1
        answer = prometheus.query(fill_in(expression, values))
        if not answer:
            problems.append(f"{title}: no data for {expression}")
        for label in re.findall(r"\{\{\s*(\w+)\s*\}\}", legend):
            if any(not labels.get(label) for labels, _ in answer):
                problems.append(f"{title}: a series without the label {label} of the legend")
    if problems:
        raise Failed(f"{dashboard.name}:\n  " + "\n  ".join(problems))
    return len(dashboard.panels), queries


def all_up(prometheus, services):
    """The series of `up`, when there is one for each service and all are 1."""
    up = prometheus.query('up{job="staffetta"}')
    return up if len(up) == services and all(value == 1 for _, value in up) else None


def test(rig):
    relay, clients = start(rig)
    prometheus = Prometheus(rig, {service: relay.metrics[service] for service in relay.processes})
    wait_until("mail is accepted", lambda: clients.accepted() > 50, 60)
    time.sleep(SECONDS_OF_LOAD)
    # Prometheus gives a scrape two seconds, which a busy machine may need once.
    up = wait_until("all services up", lambda: all_up(prometheus, len(relay.processes)), 60, every=1)
    series = check_exposition(relay)
    panels = queries = 0
    dashboards = all_dashboards()
    for dashboard in dashboards:
        more_panels, more_queries = check_dashboard(prometheus, dashboard)
        panels, queries = panels + more_panels, queries + more_queries
    shown = {name for dashboard in dashboards for _, expression, _ in dashboard.queries()
             for name in re.findall(r"staffetta_\w+", expression)}
    return (f"services={len(up)} series={series} accepted={clients.accepted()} dashboards={len(dashboards)} "
            f"panels={panels} queries={queries} metrics_shown={len(shown)}")


def main():
    try:
        with Rig("prometheus") as rig:
            result = test(rig)
    except Exception as failure:
        reason = failure if isinstance(failure, Failed) else f"{type(failure).__name__}: {failure}"
        print(f"prometheus: FAILED {reason}")
        sys.exit(1)
    print(f"prometheus: ok {result}")


if __name__ == "__main__":
    main()
