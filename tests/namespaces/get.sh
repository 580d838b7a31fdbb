#!/usr/bin/env bash
# Gets what the namespace test needs beside the servers: HAProxy and ip, by apt when they are missing and we
# are root. With everything in place the script asks no network.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
servers=$(cd "$here/../.." && pwd)/.servers
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
mkdir -p "$servers"

fail() { echo "namespaces: $*" >&2; exit 1; }
. "$here/../servers/apt.sh"

missing=()
command -v haproxy >/dev/null || missing+=(haproxy)
command -v ip >/dev/null || missing+=(iproute2)
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail "missing on this machine: ${missing[*]}. As root, on Debian: apt-get install ${missing[*]}"
fi
echo "namespaces: apt-get install ${missing[*]}"
install_packages "$servers/apt-namespaces.log" "${missing[@]}"
