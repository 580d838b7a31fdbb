"""Benchmark `feedback`: how fast events get to where they are wanted, by a process of `feedback` alone, from journals that
are full of them.

- `pipeline/events_per_second`: events by second of CPU, read from the journals, made into JSON and written into files.
- `webhooks/events_per_second`: events by second to one endpoint, in posts of a hundred, signed; `cpu_us_per_event` of feedback.

The events are those of mail of a sandbox: nobody delivers it.
"""

import http.server
import pathlib
import smtplib
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from rig.processes import Rig, free_port, wait_until  # noqa: E402
from rig.relay import Relay  # noqa: E402
from rig.servers import Dns, Nats, Redis  # noqa: E402

from .figures import Figures  # noqa: E402

RECIPIENTS = 98
MESSAGES = 1_000
SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

DOCUMENTS = """apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: acme }
spec: { defaultStream: bulk, mode: sandbox, streams: [ { name: bulk } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-app }
spec: { tenant: acme, networks: [127.0.0.0/8] }
---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: { name: acme.example }
spec: { tenant: acme, unsigned: true }
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: { name: default }
spec: { sources: [ { name: a, ehlo: relay.example.com } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Route
metadata: { name: default }
spec: { pool: default }
"""
WEBHOOK = """---
apiVersion: staffetta.dev/v1alpha1
kind: Webhook
metadata: {{ name: bench }}
spec: {{ url: "http://127.0.0.1:{port}/", secrets: [ "file:{secret}" ], allowHttp: true, allowPrivate: true, events: [ Delivery ] }}
"""


class Counter:
    """An endpoint that counts."""

    def __init__(self):
        self.events, self.first, self.last = 0, None, None
        counter, lock = self, threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                with lock:
                    counter.first = counter.first or time.monotonic()
                    counter.events += body.count(b'"type":"Delivery"')
                    counter.last = time.monotonic()
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def submit(relay, messages):
    """All events of the journals are there when it returns."""
    with smtplib.SMTP("127.0.0.1", relay.submission, timeout=120) as client:
        for number in range(messages):
            recipients = [f"r{number}-{one}@receiver.example" for one in range(RECIPIENTS)]
            content = f"From: app@acme.example\r\nTo: all@receiver.example\r\nSubject: {number}\r\n\r\nHello\r\n"
            client.sendmail("app@acme.example", recipients, content)
    wait_until("the mail to be done", lambda: relay.owned_waiting() == 0, 300)


def run(messages):
    figures = Figures("feedback")
    with Rig("bench-feedback") as rig:
        relay = Relay(rig, Nats(rig), Redis(rig), Dns(rig, {}, {}))
        counter, secret = Counter(), rig.directory / "secret"
        secret.write_text(SECRET)
        relay.apply(DOCUMENTS + WEBHOOK.format(port=counter.port, secret=secret))
        server = f"http://127.0.0.1:{relay.ports['scheduler']}"
        wait_until("the webhook to begin", lambda: "accepts" in relay.run("webhook", "list", "--server", server), 60)
        # Its place is kept within two seconds.
        time.sleep(3)
        relay.processes["feedback"].stop()
        submit(relay, messages)
        events = messages * RECIPIENTS
        relay.start("feedback")
        feedback = relay.processes["feedback"]
        wait_until("the posts", lambda: counter.events >= events, 600)
        figures.add("webhooks", "events_per_second", events / (counter.last - counter.first), "1/s")
        figures.add("webhooks", "cpu_us_per_event", feedback.cpu_us() / events, "us")
        feedback.stop()

        # The webhook goes on beside it, and has nothing more to do.
        text = relay.configuration.read_text()
        folder = rig.directory / "events"
        relay.configuration.write_text(text.replace("feedback: {", f"feedback: {{ export: {{ folder: {folder} }},"))
        relay.start("feedback")
        feedback = relay.processes["feedback"]
        wait_until("ready", lambda: relay.ready("feedback"), 60)

        def written():
            lines = relay.metric_lines("feedback")
            return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("staffetta_feedback_export_events_total"))

        wait_until("the files", lambda: written() >= events, 600)
        figures.add("pipeline", "events_per_second", written() / (feedback.cpu_us() / 1e6), "1/s")
    for (case, metric), value in figures.values.items():
        print(f"{case:<12}{metric:<26}{value:>12,.2f}")
    print(f"written to {figures.path}")
