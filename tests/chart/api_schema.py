"""The schemas of the Kubernetes API that the package kubernetes-validate carries, with all errors of an object."""

import functools
import importlib.resources
import json
import re

import jsonschema
import referencing

# Kinds of other projects, for which there are no schemas here. Anything else without a schema is an error: a kind that
# a Kubernetes release no longer has looks the same.
FOREIGN_GROUPS = {"cert-manager.io", "keda.sh", "monitoring.coreos.com"}

SCHEMAS = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema"


@functools.cache
def folder(minor):
    return SCHEMAS / f"v{minor}.0-local-strict"


@functools.cache
def registry(minor):
    definitions = json.loads((folder(minor) / "_definitions.json").read_text())
    return referencing.Resource.from_contents(definitions) @ referencing.Registry()


@functools.cache
def validator(minor, api_version, kind):
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    path = folder(minor) / f"{kind.lower()}-{group}.json"
    if not path.is_file():
        return None
    return jsonschema.Draft202012Validator(json.loads(path.read_text()), registry=registry(minor))


def problems(minor, found):
    """Everything that Kubernetes 1.x would refuse, and kinds that it does not know."""
    for it in found:
        name = f"{it['kind']}/{it['metadata']['name']}"
        if it["apiVersion"].split("/")[0] in FOREIGN_GROUPS:
            continue
        schema = validator(minor, it["apiVersion"], it["kind"])
        if schema is None:
            yield f"{name}: {minor} has no {it['apiVersion']} {it['kind']}"
            continue
        for error in schema.iter_errors(it):
            yield f"{name}: {error.json_path}: {error.message}"
