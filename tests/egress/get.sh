#!/usr/bin/env bash
# Gets what `make egress` sends by, beside what tests/servers/get.sh gets: Debian packages, by apt when they are missing and
# we are root. With everything in place the script asks no network.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
log=$(cd "$here/../.." && pwd)/.servers/apt.log
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

fail() { echo "egress: $*" >&2; exit 1; }
. "$here/../servers/apt.sh"

missing=()
# program:Debian package
for entry in danted:dante-server haproxy:haproxy saslpasswd2:sasl2-bin ip:iproute2 unshare:util-linux; do
    command -v "${entry%%:*}" >/dev/null || missing+=("${entry##*:}")
done
plugins=/usr/lib/$(uname -m)-linux-gnu/sasl2
[ -e "$plugins/libplain.so" ] || missing+=(libsasl2-modules)
[ -e "$plugins/libsasldb.so" ] || missing+=(libsasl2-modules-db)
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail "missing on this machine: ${missing[*]}. As root, on Debian, run this again"
fi
echo "egress: apt-get ${missing[*]}"
install_packages "$log" "${missing[@]}"
