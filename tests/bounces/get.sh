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
. "$here/../servers/exim.sh"

missing=()
perl -MSisimai -e 1 2>/dev/null || missing+=(libsisimai-perl)
/usr/bin/python3 -c 'import flufl.bounce.tests.data' 2>/dev/null || missing+=(python3-flufl.bounce)

exim=$here/../../.servers/exim
if [ ${#missing[@]} -gt 0 ] || ! has_exim "$exim"; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "missing on this machine: ${missing[*]-} exim4-daemon-light. As root, on Debian, run this again"
    fi
    echo "bounces: apt-get ${missing[*]-} exim4-daemon-light"
    install_packages "$bounces/apt.log" ${missing[@]+"${missing[@]}"}
    get_exim "$exim" "$bounces/apt.log"
fi
