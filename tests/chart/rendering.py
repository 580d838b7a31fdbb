"""Renders the chart with both majors of Helm, and reads what comes out."""

import functools
import pathlib
import subprocess

import yaml

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CHART = ROOT / "charts" / "staffetta"
BIN = ROOT / ".servers" / "kube" / "bin"
HELMS = ("helm3", "helm4")
NAMESPACE = "mail"
# Making a key for each rendering takes a while.
WITHOUT_KEY = "tls.existingSecret=certificate"

# All sets of values that are shipped or tested, by name.
VALUES = {"default": None} | {
    path.stem.removeprefix("values-").removesuffix("-values"): path
    for path in sorted([*CHART.glob("values-*.yaml"), *CHART.glob("ci/*-values.yaml")])
}


class Refused(Exception):
    """Helm did not render."""


def run(program, *arguments, env=None, cwd=None):
    done = subprocess.run([BIN / program, *map(str, arguments)], capture_output=True, text=True, env=env, cwd=cwd)
    if done.returncode:
        raise Refused(done.stderr.strip())
    return done.stdout


def from_values(name):
    return ["--values", VALUES[name]] if VALUES[name] else []


def template(helm, *arguments):
    """The text of a release `staffetta` in namespace `mail`, for the oldest Kubernetes that the chart takes."""
    return run(helm, "template", "staffetta", CHART, "--namespace", NAMESPACE, *arguments)


def objects_in(text):
    return [document for document in yaml.load_all(text, yaml.CSafeLoader) if document]


@functools.cache
def text(name, helm="helm4"):
    return template(helm, *from_values(name))


@functools.cache
def objects(name="default", helm="helm4"):
    """Not to be changed: others get the same."""
    return objects_in(text(name, helm))


def rendered_with(*settings, helm="helm4"):
    """Objects with `--set` for each of the settings."""
    arguments = [part for setting in (WITHOUT_KEY, *settings) for part in ("--set", setting)]
    return objects_in(template(helm, *arguments))


def one(found, kind, name):
    """The object of this kind and name."""
    matches = [it for it in found if it["kind"] == kind and it["metadata"]["name"] == name]
    assert len(matches) == 1, f"{len(matches)} of {kind}/{name}"
    return matches[0]


def pod_templates(found):
    """(name, labels, pod spec) of everything that becomes a pod."""
    for it in found:
        name = f"{it['kind']}/{it['metadata']['name']}"
        if it["kind"] == "Pod":
            yield name, it["metadata"]["labels"], it["spec"]
        elif it["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
            template = it["spec"]["template"]
            yield name, template["metadata"]["labels"], template["spec"]


def containers(spec):
    return [*spec.get("initContainers", []), *spec["containers"]]


def selects(selector, labels):
    """Whether a label selector fits."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In", expression
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return True
