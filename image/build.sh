#!/usr/bin/env bash
# Builds the container image without a Docker daemon, as an archive that any container tool loads.
#
#   image/build.sh            target/image/staffetta-<version>.tar
#
# One static binary on nothing: no shell, no package, a numeric user. Two builds of one commit with the same compiler,
# buildah and ca-certificates give the same bytes. What is missing comes through apt when we are root (image/get.sh).
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
work=$root/target/image
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
# Of the commit, not of the moment.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
profile=${PROFILE:-dist}
target=$(uname -m)-unknown-linux-gnu
archive=$work/staffetta-$version.tar
authorities=/etc/ssl/certs/ca-certificates.crt

say() { echo "image: $*"; }
fail() { echo "image: $*" >&2; exit 1; }

"$root/image/get.sh"

mkdir -p "$work"
say "compiling, profile $profile"
# Where it is compiled must not be in the binary, neither in Rust's panics nor in the assertions of what is written in C.
crates=${CARGO_HOME:-$HOME/.cargo}
# With --target, since the flags must not reach build scripts and macros.
RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols --remap-path-prefix=$root=/staffetta --remap-path-prefix=$crates=/cargo" \
    CFLAGS="-ffile-prefix-map=$root=/staffetta -ffile-prefix-map=$crates=/cargo" \
    CARGO_TARGET_DIR=$work/cargo \
    "${CARGO:-cargo}" build --quiet --locked --profile "$profile" --target "$target" -p staffetta
binary=$work/cargo/$target/$profile/staffetta
headers=$(readelf --program-headers "$binary")
case $headers in *INTERP*) fail "$binary is not static" ;; esac

# A store of its own, so that nothing is left in that of the machine.
store=$(mktemp -d "$work/store.XXXXXX")
b() { buildah --storage-driver vfs --root "$store/root" --runroot "$store/run" "$@"; }
container=
clean() {
    [ -z "$container" ] || b rm "$container" >/dev/null 2>&1 || true
    rm -rf "$store"
}
trap clean EXIT

container=$(b from scratch)
b copy --quiet --chmod 0755 "$container" "$binary" /usr/local/bin/staffetta >/dev/null
b copy --quiet --chmod 0644 "$container" "$authorities" /etc/ssl/certs/ca-certificates.crt >/dev/null
label() { b config --label "org.opencontainers.image.$1=$2" "$container"; }
label title staffetta
label description "SMTP relay for transactional and bulk mail"
label version "$version"
label revision "$revision"
label licenses Apache-2.0
b config --user 65532:65532 --entrypoint '["/usr/local/bin/staffetta"]' --cmd '' --workingdir / \
    --env PATH=/usr/local/bin --created-by "image/build.sh" "$container"
rm -f "$archive"
# By way of OCI's format, whose configuration names no container; and without a name, which would be in the archive too.
image=$(b commit --quiet --format oci --timestamp "$SOURCE_DATE_EPOCH" "$container")
b push --quiet "$image" "docker-archive:$archive:docker.io/library/staffetta:$version" >/dev/null
say "$(basename "$archive"): staffetta:$version, $(($(stat -c %s "$archive") / 1000000)) MB, sha256 $(sha256sum "$archive" | cut -d ' ' -f 1)"
