"""An issuer of access tokens: an RSA key, a web server that shows its public half over TLS, and tokens for clients."""

import base64
import http.server
import json
import ssl
import threading
import time

from rig.processes import run

ISSUER, AUDIENCE, SUBJECT = "https://login.acme.example", "relay.example.com", "crm-1"


def encode(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


class Authority:
    """Signs certificates of servers and of clients."""

    def __init__(self, folder):
        self.folder, self.certificate, self.key = folder, folder / "authority.pem", folder / "authority.key"
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
             "-subj", "/CN=authority", "-keyout", self.key, "-out", self.certificate])

    def certify(self, name, alternative):
        """Certificate and key for `alternative`, such as DNS:a.example."""
        certificate, key, request, extensions = (self.folder / f"{name}{end}" for end in (".pem", ".key", ".csr", ".ext"))
        run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-subj", f"/CN={name}", "-keyout", key, "-out", request])
        extensions.write_text(f"subjectAltName={alternative}\nbasicConstraints=CA:FALSE\n")
        run(["openssl", "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial",
             "-days", "30", "-extfile", extensions, "-out", certificate])
        return certificate, key


class Issuer:
    def __init__(self, folder, authority):
        self.key = folder / "issuer.key"
        run(["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", self.key])
        modulus = run(["openssl", "rsa", "-in", self.key, "-noout", "-modulus"]).strip().partition("=")[2]
        keys = {"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "2026", "e": "AQAB",
                          "n": encode(bytes.fromhex(modulus))}]}
        self.documents = {"/keys": json.dumps(keys).encode()}
        documents = self.documents

        class Show(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                document = documents.get(self.path)
                self.send_response(200 if document else 404)
                self.send_header("Content-Type", "application/jwk-set+json")
                self.send_header("Content-Length", str(len(document or b"")))
                self.end_headers()
                self.wfile.write(document or b"")

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Show)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.certify("login", "DNS:login.acme.example,IP:127.0.0.1"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"https://127.0.0.1:{server.server_port}/keys"

    def token(self):
        now = int(time.time())
        header = {"alg": "RS256", "kid": "2026", "typ": "at+jwt"}
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": SUBJECT, "iat": now, "exp": now + 600, "scope": "smtp.send"}
        signed = ".".join(encode(json.dumps(part).encode()) for part in (header, claims))
        to_sign, signature = (self.key.with_suffix(end) for end in (".txt", ".sig"))
        to_sign.write_text(signed)
        run(["openssl", "dgst", "-sha256", "-sign", self.key, "-out", signature, to_sign])
        return f"{signed}.{encode(signature.read_bytes())}"


def documents(issuer, authority, tenant, certified_as):
    """A credential by token, and one by certificate."""
    return f"""---
apiVersion: staffetta.dev/v1alpha1
kind: TokenIssuer
metadata: {{ name: login }}
spec: {{ issuer: "{ISSUER}", audiences: ["{AUDIENCE}"], scope: smtp.send, jwksUrl: "{issuer.url}", authorities: "file:{authority.certificate}" }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: {{ name: by-token }}
spec: {{ tenant: {tenant}, tokens: [ {{ issuer: login, subject: "{SUBJECT}" }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: {{ name: by-certificate }}
spec: {{ tenant: {tenant}, certificates: [{certified_as}] }}
"""
