"""Plain manifests in k8s/, made from the chart; and golden files of what it renders."""

import re

import rendering

K8S = rendering.ROOT / "k8s"
GOLDEN = rendering.HERE / "golden"
# What golden files are kept of; the default values are in k8s/ as it is.
KEPT = ("ha", "existing", "proxy")
NAMESPACE = "staffetta"

MADE = "# Made from the chart by tests/chart/write.py; `make chart` checks that it still is.\n"
GONE = """\
$patch: delete
apiVersion: {version}
kind: {kind}
metadata: {{ name: {name}, namespace: staffetta }}
"""


def chart(*arguments):
    """The chart's objects for a namespace `staffetta`, without what belongs to Helm alone."""
    command = ["template", "staffetta", rendering.CHART, "--namespace", NAMESPACE, "--skip-tests", *arguments]
    text = rendering.run("helm4", *command, "--values", K8S / "values.yaml")
    text = re.sub(r"(?m)^ *helm\.sh/chart: .*\n", "", text)
    text = re.sub(r"(?m)^ *staffetta\.dev/replicas: .*\n", "", text)
    text = re.sub(r"(?m)^( *)annotations:\n(?!\1 )", "", text)
    text = text.replace("app.kubernetes.io/managed-by: Helm", "app.kubernetes.io/managed-by: kustomize")
    return text


def by_template(text):
    """Text by the template that it came from."""
    parts = {}
    for part in re.split(r"(?m)^---\n", text):
        source = re.match(r"# Source: staffetta/templates/(.*)\n", part)
        if source:
            name = source[1].replace("/", "-")
            body = part[source.end() :].strip() + "\n"
            parts[name] = f"{parts[name]}---\n{body}" if name in parts else body
    return parts


def kustomization(kind, **lists):
    version = "v1alpha1" if kind == "Component" else "v1beta1"
    text = f"{MADE}apiVersion: kustomize.config.k8s.io/{version}\nkind: {kind}\n"
    for name, entries in lists.items():
        text += f"{name}:\n" + "".join(f"  - {entry}\n" for entry in entries) if entries else ""
    return text


def one_by_one(parts):
    """Kind, name and text of each object."""
    found = {}
    for part in parts.values():
        for text in re.split(r"(?m)^---\n", part):
            (it,) = rendering.objects_in(text)
            found[it["kind"], it["metadata"]["name"]] = (it, text)
    return found


def difference(before, after):
    """A component that makes one rendering out of another: files by name."""
    before, after = one_by_one(before), one_by_one(after)
    new, changed, gone = [], [], []
    for key, (it, text) in after.items():
        if key not in before:
            new.append(text)
        elif it != before[key][0]:
            changed.append(text)
    for key, (it, _) in before.items():
        if key not in after:
            gone.append(GONE.format(version=it["apiVersion"], kind=it["kind"], name=it["metadata"]["name"]))
    return {
        "new.yaml": "---\n".join(new),
        "changed.yaml": "---\n".join(changed),
        "gone.yaml": "---\n".join(gone),
        "kustomization.yaml": kustomization(
            "Component", resources=["new.yaml"], patches=["path: changed.yaml", "path: gone.yaml"]
        ),
    }


def manifests():
    """Path below k8s/ and text of all files that are made."""
    base = by_template(chart())
    cluster = difference(base, by_template(chart("--set", "nats.replicas=3")))
    files = {f"base/{name}": MADE + text for name, text in base.items()}
    files["base/kustomization.yaml"] = kustomization("Kustomization", resources=sorted(base))
    return files | {f"components/nats-cluster/{name}": text for name, text in cluster.items()}


def golden():
    """Name and text of all golden files."""
    return {f"{name}.yaml": without_noise(rendering.text(name)) for name in KEPT}


def without_noise(text):
    """Without a certificate that is another one each time, and without dashboards, which are files of their own."""
    parts = re.split(r"(?m)^---\n", re.sub(r"(?m)^(  tls\.\w+): .*$", r"\1: …", text))
    kept = [part for part in parts if not part.startswith("# Source: staffetta/templates/dashboards.yaml")]
    return "---\n".join(kept).strip() + "\n"
