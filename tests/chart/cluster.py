"""Just enough of a Kubernetes API server for Helm's `lookup`: discovery, and objects that are there."""

import http.server
import json
import pathlib
import tempfile
import threading

import rendering

# Path of a group: kind, resource, namespaced.
KINDS = {
    "/api/v1": [
        ("ConfigMap", "configmaps"),
        ("PersistentVolumeClaim", "persistentvolumeclaims"),
        ("Pod", "pods"),
        ("Secret", "secrets"),
        ("Service", "services"),
        ("ServiceAccount", "serviceaccounts"),
    ],
    "/apis/apps/v1": [("Deployment", "deployments"), ("StatefulSet", "statefulsets")],
    "/apis/autoscaling/v2": [("HorizontalPodAutoscaler", "horizontalpodautoscalers")],
    "/apis/networking.k8s.io/v1": [("NetworkPolicy", "networkpolicies")],
    "/apis/policy/v1": [("PodDisruptionBudget", "poddisruptionbudgets")],
    "/apis/batch/v1": [("Job", "jobs")],
}
VERBS = ["get", "list"]


def discovery(path):
    if path == "/version":
        return {"major": "1", "minor": "36", "gitVersion": "v1.36.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = []
        for group in KINDS:
            _, root, name, *version = group.split("/")
            if root == "apis":
                entry = {"groupVersion": f"{name}/{version[0]}", "version": version[0]}
                groups.append({"name": name, "versions": [entry], "preferredVersion": entry})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    if path in KINDS:
        resources = [
            {"name": plural, "singularName": "", "namespaced": True, "kind": kind, "verbs": VERBS}
            for kind, plural in KINDS[path]
        ]
        group_version = path.removeprefix("/apis/").removeprefix("/api/")
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}
    return None


class Cluster:
    """Serves objects; renders the chart against them."""

    def __init__(self, *objects):
        self.objects = {}
        for it in objects:
            self.add(it)

    def add(self, it):
        group = "/api/v1" if it["apiVersion"] == "v1" else f"/apis/{it['apiVersion']}"
        plural = dict(KINDS[group])[it["kind"]]
        listing = f"{group}/namespaces/{rendering.NAMESPACE}/{plural}"
        self.objects.setdefault(listing, []).append(it)

    def answer(self, path):
        path = path.split("?")[0]
        found = discovery(path)
        if found is None and path in self.objects:
            found = {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": self.objects[path]}
        if found is None:
            listing, _, name = path.rpartition("/")
            found = next((it for it in self.objects.get(listing, []) if it["metadata"]["name"] == name), None)
        return found

    def __enter__(self):
        cluster = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                found = cluster.answer(self.path)
                reason = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
                body = json.dumps(found or reason).encode()
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.folder = tempfile.TemporaryDirectory()
        # JSON is YAML.
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{self.server.server_port}"}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            "users": [{"name": "x", "user": {}}],
            "current-context": "x",
        }
        self.kubeconfig = pathlib.Path(self.folder.name) / "config"
        self.kubeconfig.write_text(json.dumps(config))
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.folder.cleanup()

    def render(self, helm, *settings):
        """As `helm upgrade` renders, looking at the objects."""
        arguments = [part for setting in settings for part in ("--set", setting)]
        arguments += ["--dry-run=server", "--disable-openapi-validation", "--is-upgrade"]
        arguments += ["--kubeconfig", self.kubeconfig]
        home = {"HOME": self.folder.name, "PATH": "/usr/bin"}
        command = ["template", "staffetta", rendering.CHART, "--namespace", rendering.NAMESPACE, *arguments]
        return rendering.objects_in(rendering.run(helm, *command, env=home))
