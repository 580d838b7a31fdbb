#!/usr/bin/env bash
# Gets what `make image` needs beside the compiler: buildah, and Python for the test of the image. By apt when they are
# missing and we are root. With everything in place the script asks no network.
set -euo pipefail

missing=()
for program in buildah python3; do
    command -v "$program" >/dev/null || missing+=("$program")
done
command -v readelf >/dev/null || missing+=(binutils)
# Whose authorities go into the image.
[ -r /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "image: missing on this machine: ${missing[*]}. As root, on Debian: apt-get install ${missing[*]}" >&2
    exit 1
fi
echo "image: apt-get install ${missing[*]}"
{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >/dev/null
