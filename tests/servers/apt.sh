# Sourced by the scripts that get programs: installs Debian packages, and starts none of their daemons.

policy=/usr/sbin/policy-rc.d
made_policy=

# The programs are wanted, not the daemons: nothing is started on this machine, now or after a broken try.
without_daemons() {
    if ! [ -e "$policy" ]; then
        trap '[ -z "$made_policy" ] || rm -f "$policy"' EXIT
        made_policy=yes
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    local status=0
    "$@" || status=$?
    if [ -n "$made_policy" ]; then
        rm -f "$policy"
        made_policy=
    fi
    return "$status"
}

# install_packages LOG PACKAGE…
install_packages() {
    local log=$1
    shift
    export DEBIAN_FRONTEND=noninteractive
    without_daemons apt_install "$@" >"$log" 2>&1 || { tail -20 "$log" >&2; fail "apt-get failed; its output is in $log"; }
}

apt_install() {
    apt-get update -qq && { [ $# = 0 ] || apt-get install -y -qq --no-install-recommends "$@"; }
}
