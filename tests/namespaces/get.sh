#!/usr/bin/env bash
# Gets what the namespace test needs beside the servers: HAProxy and ip, by apt when they are missing and we
# are root. With everything in place the script asks no network.
set -euo pipefail

export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin DEBIAN_FRONTEND=noninteractive

missing=()
command -v haproxy >/dev/null || missing+=(haproxy)
command -v ip >/dev/null || missing+=(iproute2)
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "namespaces: missing on this machine: ${missing[*]}. As root, on Debian: apt-get install ${missing[*]}" >&2
    exit 1
fi
# The program is wanted, not the daemon: nothing is started on this machine.
policy=/usr/sbin/policy-rc.d
made_policy=
if ! [ -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    made_policy=yes
fi
echo "namespaces: apt-get install ${missing[*]}"
status=0
{ apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/dev/null || status=$?
[ -z "$made_policy" ] || rm -f "$policy"
exit "$status"
