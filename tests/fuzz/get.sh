#!/usr/bin/env bash
# Gets what fuzzing needs: a C++ compiler for libFuzzer, from Debian when it is missing and we are root, and cargo-fuzz.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
fail() { echo "fuzz: $*" >&2; exit 1; }
. "$here/../servers/apt.sh"

if ! command -v c++ >/dev/null; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "a C++ compiler is missing. As root, on Debian: apt-get install g++"
    fi
    mkdir -p "$here/../../target/fuzz"
    install_packages "$here/../../target/fuzz/apt.log" g++
fi
cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz
