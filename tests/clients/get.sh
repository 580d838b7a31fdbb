#!/usr/bin/env bash
# Gets the mail programs that `make clients` submits with, beside what tests/servers/get.sh gets: Debian packages by apt
# when they are missing and we are root, Exim unpacked (it can't be installed beside Postfix), pinned packages of Python
# and Node. What is not Debian's goes into .servers/clients. With everything in place the script asks no network.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
clients=$(cd "$here/../.." && pwd)/.servers/clients
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin DEBIAN_FRONTEND=noninteractive
mkdir -p "$clients"

fail() { echo "clients: $*" >&2; exit 1; }
. "$here/../servers/apt.sh"
. "$here/../servers/exim.sh"

missing=()
# program:Debian package
for entry in msmtp:msmtp php:php-cli curl:curl haproxy:haproxy node:nodejs npm:npm; do
    command -v "${entry%%:*}" >/dev/null || missing+=("${entry##*:}")
done
[ -e /usr/share/php/libphp-phpmailer/src/PHPMailer.php ] || missing+=(libphp-phpmailer)
# SASL mechanisms of Postfix.
[ -e "/usr/lib/$(uname -m)-linux-gnu/sasl2/libscram.so" ] || missing+=(libsasl2-modules)

exim=$here/../../.servers/exim
if [ ${#missing[@]} -gt 0 ] || ! has_exim "$exim"; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "missing on this machine: ${missing[*]-} exim4-daemon-light. As root, on Debian, run this again"
    fi
    echo "clients: apt-get ${missing[*]-} exim4-daemon-light"
    install_packages "$clients/apt.log" ${missing[@]+"${missing[@]}"}
    get_exim "$exim" "$clients/apt.log"
fi

wanted=$(cat "$here/requirements.txt" "$here/package-lock.json" | sha256sum)
if [ "$(cat "$clients/wanted" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$clients/python" "$clients/node"
    python3 -m venv "$clients/python"
    "$clients/python/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r "$here/requirements.txt"
    mkdir -p "$clients/node"
    cp "$here/package.json" "$here/package-lock.json" "$clients/node"
    (cd "$clients/node" && npm ci --no-audit --no-fund --ignore-scripts) >"$clients/npm.log" 2>&1 ||
        { tail -20 "$clients/npm.log" >&2; fail "npm failed; its output is in $clients/npm.log"; }
    # Remembered last, so that a broken try is repeated.
    echo "$wanted" >"$clients/wanted"
fi
