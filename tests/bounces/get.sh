#!/usr/bin/env bash
# Gets what `make bounces` compares with, beside what tests/servers/get.sh gets: Sisimai and flufl.bounce as Debian packages when
# they are missing and we are root (the latter with its examples), and Exim unpacked (it can't be installed beside Postfix) into
# .servers/bounces. With everything in place the script asks no network.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
bounces=$(cd "$here/../.." && pwd)/.servers/bounces
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin DEBIAN_FRONTEND=noninteractive
mkdir -p "$bounces"

fail() { echo "bounces: $*" >&2; exit 1; }
. "$here/../servers/apt.sh"

missing=()
perl -MSisimai -e 1 2>/dev/null || missing+=(libsisimai-perl)
/usr/bin/python3 -c 'import flufl.bounce.tests.data' 2>/dev/null || missing+=(python3-flufl.bounce)
# Of Exim.
ldconfig -p | grep -q 'libidn\.so\.12 ' || missing+=(libidn12)

if [ ${#missing[@]} -gt 0 ] || ! [ -x "$bounces/exim/usr/sbin/exim4" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "missing on this machine: ${missing[*]-} exim4-daemon-light. As root, on Debian, run this again"
    fi
    echo "bounces: apt-get ${missing[*]-} exim4-daemon-light"
    install_packages "$bounces/apt.log" ${missing[@]+"${missing[@]}"}
    rm -rf "$bounces/exim" && mkdir -p "$bounces/exim"
    (cd "$bounces/exim" && apt-get download -qq exim4-daemon-light && dpkg -x exim4-daemon-light_*.deb . && rm -f ./*.deb) \
        >>"$bounces/apt.log" 2>&1 || { tail -20 "$bounces/apt.log" >&2; fail "Exim can't be had; see $bounces/apt.log"; }
fi
# Exim looks for the user that its package makes.
getent passwd Debian-exim >/dev/null || useradd --system --no-create-home --shell /usr/sbin/nologin Debian-exim
if ldd "$bounces/exim/usr/sbin/exim4" | grep -q 'not found'; then
    fail "Exim lacks libraries: $(ldd "$bounces/exim/usr/sbin/exim4" | grep 'not found' | tr -s '\t\n' ' ')"
fi
