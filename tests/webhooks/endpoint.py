"""An endpoint of webhooks that verifies every post, and can be as bad as one likes."""

import collections
import http.server
import json
import random
import socket
import struct
import threading
import time

from standardwebhooks import Webhook, WebhookVerificationError


class Endpoint:
    """Listens on a loopback port. `faults`: the share of posts that are not answered as they should be."""

    def __init__(self, port, secret, faults=0.0, seed=1, answers=200):
        self.port, self.secret, self.faults, self.answers = port, Webhook(secret), faults, answers
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        # Events in the order in which they came first, and how often each came.
        self.order, self.times = [], collections.Counter()
        self.posts, self.forged, self.strayed = 0, 0, 0
        self.met = collections.Counter()
        self.server = None

    def start(self):
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                endpoint.take(self)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self):
        """Nobody listens any more."""
        self.server.shutdown()
        self.server.server_close()
        self.server = None

    def take(self, request):
        body = request.rfile.read(int(request.headers["content-length"]))
        with self.lock:
            self.posts += 1
            fault = self.random.choice(FAULTS) if self.random.random() < self.faults else None
            self.met[fault or "none"] += 1
            if request.path != "/hook":
                self.strayed += 1
        if fault == "lost_answer":
            # It is taken, and the answer never comes.
            self.note(body, request)
            return cut(request)
        if fault:
            return fault_of(fault)(request)
        status = self.answers if self.note(body, request) else 401
        answer(request, status)

    def note(self, body, request):
        try:
            post = self.secret.verify(body, dict(request.headers))
        except WebhookVerificationError:
            with self.lock:
                self.forged += 1
            return False
        if self.answers >= 300:
            return True
        with self.lock:
            for event in post["data"]["events"]:
                if event["id"] not in self.times:
                    self.order.append(event)
                self.times[event["id"]] += 1
        return True


def answer(request, status, fields=()):
    request.send_response(status)
    for name, value in fields:
        request.send_header(name, value)
    request.send_header("content-length", "0")
    request.end_headers()


def cut(request):
    """The connection is reset."""
    linger = struct.pack("ii", 1, 0)
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    request.close_connection = True
    request.connection.close()


def slow(request):
    time.sleep(3)
    answer(request, 200)


def half(request):
    request.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-le")
    cut(request)


def endless(request):
    request.wfile.write(b"HTTP/1.1 500 Oh no\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(100):
        try:
            request.wfile.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        except OSError:
            break
    request.close_connection = True


FAULTS = ["500", "503", "redirect", "reset", "slow", "half", "endless", "lost_answer", "404"]


def fault_of(name):
    return {
        "500": lambda request: answer(request, 500),
        "404": lambda request: answer(request, 404),
        "503": lambda request: answer(request, 503, [("retry-after", "1")]),
        "redirect": lambda request: answer(request, 302, [("location", "/elsewhere")]),
        "reset": cut,
        "slow": slow,
        "half": half,
        "endless": endless,
    }[name]


def out_of_order(endpoint):
    """Messages of which an event came before one that happened earlier."""
    places, wrong = {}, set()
    for event in endpoint.order:
        message = event.get("message_id")
        if message is None or "partition" not in event:
            continue
        place = tuple(int(part) for part in event["id"].split("-"))
        if places.get(message, ()) > place:
            wrong.add(message)
        places[message] = max(places.get(message, ()), place)
    return wrong


def lines(text):
    return [json.loads(line) for line in text.splitlines()]
