#!/usr/bin/env bash
# Gets what the power-cut test needs: QEMU and mke2fs by apt when they are missing and we are root, and
# into .servers/powercut a kernel and a busybox for the guest, unpacked from Debian's packages without
# installing them. With everything in place the script asks no network.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
place=$root/.servers/powercut
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin DEBIAN_FRONTEND=noninteractive

fail() { echo "powercut: $*" >&2; exit 1; }

missing=()
command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
command -v mke2fs >/dev/null || missing+=(e2fsprogs)
guest=wanted
if [ -e "$place/guest/complete" ]; then guest=; fi
[ ${#missing[@]} -gt 0 ] || [ -n "$guest" ] || exit 0

command -v apt-get >/dev/null || fail "needs Debian's packages qemu-system-x86, e2fsprogs, linux-image-cloud-amd64 and busybox-static"
mkdir -p "$place"
if [ "$(id -u)" = 0 ]; then
    apt-get update -qq >"$place/apt.log" 2>&1 || fail "apt-get update failed; see $place/apt.log"
elif [ ${#missing[@]} -gt 0 ]; then
    fail "missing on this machine: ${missing[*]}. As root: apt-get install ${missing[*]}"
fi
if [ ${#missing[@]} -gt 0 ]; then
    echo "powercut: apt-get install ${missing[*]}"
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >>"$place/apt.log" 2>&1 ||
        fail "apt-get install failed; see $place/apt.log"
fi
if [ -n "$guest" ]; then
    kernel=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ { print $2; exit }')
    [ -n "$kernel" ] || fail "apt knows no linux-image-cloud-amd64"
    echo "powercut: unpacking $kernel and busybox-static"
    rm -rf "$place/packages" "$place/guest"
    mkdir -p "$place/packages" "$place/guest"
    (cd "$place/packages" && apt-get download -qq "$kernel" busybox-static) >>"$place/apt.log" 2>&1 ||
        fail "apt-get download failed; see $place/apt.log"
    for package in "$place"/packages/*.deb; do
        dpkg-deb -x "$package" "$place/guest"
    done
    rm -rf "$place/packages"
    touch "$place/guest/complete"
fi
