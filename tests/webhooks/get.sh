#!/usr/bin/env bash
# Gets what verifies signatures in `make webhooks`, beside what tests/servers/get.sh gets: a pinned Python package, into
# .servers/webhooks. With everything in place the script asks no network.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
webhooks=$(cd "$here/../.." && pwd)/.servers/webhooks
mkdir -p "$webhooks"

wanted=$(sha256sum <"$here/requirements.txt")
if [ "$(cat "$webhooks/wanted" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$webhooks/python"
    python3 -m venv "$webhooks/python"
    "$webhooks/python/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r "$here/requirements.txt"
    # Remembered last, so that a broken try is repeated.
    echo "$wanted" >"$webhooks/wanted"
fi
