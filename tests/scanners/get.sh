#!/usr/bin/env bash
# Gets the scanners of `make scanners`, beside what tests/servers/get.sh gets: ClamAV, Rspamd and the Python binding of
# libmilter as Debian packages when they are missing and we are root, a milter library in Python by pip into
# .servers/scanners. No virus database is fetched: the test has a signature of its own. With everything in place the script
# asks no network.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
scanners=$(cd "$here/../.." && pwd)/.servers/scanners
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin DEBIAN_FRONTEND=noninteractive
mkdir -p "$scanners"

fail() { echo "scanners: $*" >&2; exit 1; }
. "$here/../servers/apt.sh"

missing=()
# program:Debian package
for entry in clamd:clamav-daemon rspamd:rspamd opendkim:opendkim; do
    command -v "${entry%%:*}" >/dev/null || missing+=("${entry##*:}")
done
/usr/bin/python3 -c 'import Milter' 2>/dev/null || missing+=(python3-milter)

if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "missing on this machine: ${missing[*]}. As root, on Debian, run this again"
    fi
    echo "scanners: apt-get ${missing[*]}"
    install_packages "$scanners/apt.log" "${missing[@]}"
fi

wanted=$(sha256sum <"$here/requirements.txt")
if [ "$(cat "$scanners/wanted" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$scanners/python"
    python3 -m venv "$scanners/python"
    "$scanners/python/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r "$here/requirements.txt"
    # Remembered last, so that a broken try is repeated.
    echo "$wanted" >"$scanners/wanted"
fi
