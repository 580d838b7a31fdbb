"""`make webhooks`: 100,000 events to webhooks whose endpoints are slow, die, answer 500, redirect and reset, while `feedback`
is killed again and again. At the end each event has arrived at least once, in order per message, with a signature that the
`standardwebhooks` package verifies; an endpoint that works has not waited for those that don't; and what was given up for a
dead one arrives after `staffetta webhook replay`.

The last line is `webhooks: ok …`, or `webhooks: FAILED …` with exit status 1.
"""

import argparse
import base64
import json
import pathlib
import smtplib
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from rig.processes import Failed, Rig, free_port, wait_until  # noqa: E402
from rig.relay import BINARY, Relay  # noqa: E402
from rig.servers import Dns, Nats, Redis  # noqa: E402
from webhooks.endpoint import Endpoint, lines, out_of_order  # noqa: E402

SENDER = "app@acme.example"
RECIPIENTS = 98


def documents(folder, endpoints):
    text = """apiVersion: staffetta.dev/v1alpha1
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
    for name, (endpoint, more) in endpoints.items():
        text += f"""---
apiVersion: staffetta.dev/v1alpha1
kind: Webhook
metadata: {{ name: {name} }}
spec:
  tenant: acme
  url: http://127.0.0.1:{endpoint.port}/hook
  secrets: [ "file:{folder}/{name}.secret" ]
  allowHttp: true
  allowPrivate: true
  linger: 100ms
  timeout: 2s
  {more}
"""
    return text


def submit(relay, messages):
    """Sends so many messages, over a few connections."""
    failures = []

    def send(numbers):
        try:
            with smtplib.SMTP("127.0.0.1", relay.submission, timeout=120) as client:
                for number in numbers:
                    recipients = [f"r{number}-{one}@receiver.example" for one in range(RECIPIENTS)]
                    content = f"From: {SENDER}\r\nTo: all@receiver.example\r\nSubject: {number}\r\n\r\nHello\r\n"
                    client.sendmail(SENDER, recipients, content)
        except (OSError, smtplib.SMTPException) as error:
            failures.append(error)

    threads = [threading.Thread(target=send, args=(range(first, messages, 4),)) for first in range(4)]
    for thread in threads:
        thread.start()
    return threads, failures


def secret(number):
    return "whsec_" + base64.b64encode(bytes([number]) * 32).decode()


def told(relay):
    """All events of the tenant so far, that webhooks get, by id."""
    server = f"http://127.0.0.1:{relay.ports['scheduler']}"
    # A hundred thousand lines take longer than other commands.
    found = subprocess.run([str(part) for part in (BINARY, "--config", relay.configuration, "events", "--server", server)],
                           capture_output=True, text=True, timeout=300)
    if found.returncode:
        raise Failed(found.stderr)
    return {event["id"]: event for event in lines(found.stdout) if event.get("tenant") == "acme"}


def webhook(relay, *arguments):
    server = f"http://127.0.0.1:{relay.ports['scheduler']}"
    return relay.run("webhook", *arguments, "--server", server)


def behind(relay, name):
    for one in json.loads(webhook(relay, "list", "--output", "json"))["webhooks"]:
        if one["webhook"] == name:
            return one["behind"]
    raise Failed(f"there is no webhook {name}")


def check(name, endpoint, expected):
    """Everything came, signed and in order."""
    missing = [event for event in expected.values() if event["id"] not in endpoint.times]
    if missing:
        raise Failed(f"{name}: {len(missing)} of {len(expected)} events are missing, such as {missing[0]}")
    if strange := set(endpoint.times) - set(expected):
        raise Failed(f"{name}: {len(strange)} events of nobody, such as {sorted(strange)[0]}")
    if endpoint.forged:
        raise Failed(f"{name}: {endpoint.forged} posts with a signature that is wrong")
    if endpoint.strayed:
        raise Failed(f"{name}: {endpoint.strayed} redirections were followed")
    if wrong := out_of_order(endpoint):
        raise Failed(f"{name}: {len(wrong)} messages out of order, such as {sorted(wrong)[0]}")


def test(rig, messages, kills):
    nats, redis, dns = Nats(rig), Redis(rig), Dns(rig, {}, {})
    relay = Relay(rig, nats, redis, dns)
    endpoints = {
        "stormy": (Endpoint(free_port(), secret(1), faults=0.25), "batch: 100"),
        "well": (Endpoint(free_port(), secret(2)), "batch: 200"),
        "bounces": (Endpoint(free_port(), secret(3)), "events: [ Bounce, Expiration ]"),
        "dead": (Endpoint(free_port(), secret(4)), "maxAge: 1m\n  events: [ Reception ]"),
    }
    for number, name in enumerate(endpoints, 1):
        (rig.directory / f"{name}.secret").write_text(secret(number) + "\n")
        if name != "dead":
            endpoints[name][0].start()
    relay.apply(documents(rig.directory, endpoints))
    stormy, well, dead = (endpoints[name][0] for name in ("stormy", "well", "dead"))
    wait_until("the webhooks to begin", lambda: webhook(relay, "list").count("accepts") == len(endpoints), 60)

    begun = time.monotonic()
    threads, failures = submit(relay, messages)
    for number in range(kills):
        time.sleep(4)
        relay.processes["feedback"].kill()
        if number % 3 == 2:
            # The endpoint dies as well, and comes back.
            stormy.stop()
            time.sleep(3)
            stormy.start()
        relay.start("feedback")
    for thread in threads:
        thread.join(600)
    if failures:
        raise Failed(f"submission: {failures[0]}")
    wait_until("the mail to be done", lambda: relay.owned_waiting() == 0, 300)
    expected = told(relay)
    print(f"webhooks: {len(expected)} events, {kills} times kill -9 of feedback", flush=True)

    wait_until("the endpoint that works", lambda: len(well.times) >= len(expected), 300)
    waited = time.monotonic() - begun
    check("well", well, expected)
    repeated = sum(well.times.values()) - len(expected)
    print(f"webhooks: the endpoint that works has all after {waited:.0f} s, {repeated} repeated", flush=True)

    try:
        wait_until("the endpoint that fails", lambda: len(stormy.times) >= len(expected), 900)
    except Failed as failure:
        raise Failed(f"{failure}: {len(stormy.times)} of {len(expected)}, {webhook(relay, 'log', 'stormy')}") from None
    check("stormy", stormy, expected)
    faults = sum(stormy.met.values()) - stormy.met["none"]
    print(f"webhooks: the endpoint that fails has all, after {faults} faults: {dict(stormy.met)}", flush=True)
    if missing := [one for one in expected.values() if one["type"] == "Bounce" and one["id"] not in endpoints["bounces"][0].times]:
        raise Failed(f"bounces: {len(missing)} are missing")

    receptions = {key: event for key, event in expected.items() if event["type"] == "Reception"}

    def given_up():
        letters = lines(webhook(relay, "dead", "dead", "--output", "json"))
        return {event["id"] for letter in letters for event in letter["events"]}

    wait_until("the dead endpoint to be given up", lambda: given_up() >= set(receptions), 300, every=2)
    dead.start()
    webhook(relay, "replay", "dead")
    wait_until("what was given up", lambda: set(dead.times) >= set(receptions), 120)
    wait_until("no dead letters", lambda: not given_up(), 30)
    check("dead", dead, receptions)
    print(f"webhooks: {len(receptions)} events were given up for a dead endpoint, and came after a replay", flush=True)
    return len(expected)


def main():
    parser = argparse.ArgumentParser(description="Webhooks under faults.")
    parser.add_argument("--messages", type=int, default=1_000, help="each makes about a hundred events")
    parser.add_argument("--kills", type=int, default=12)
    arguments = parser.parse_args()
    try:
        with Rig("webhooks") as rig:
            events = test(rig, arguments.messages, arguments.kills)
    except Failed as failure:
        sys.exit(f"webhooks: FAILED {failure}")
    print(f"webhooks: ok {events} events")


if __name__ == "__main__":
    main()
