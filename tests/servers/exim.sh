# Sourced after apt.sh: gets Exim, which can't be installed beside Postfix, by unpacking it.

# has_exim FOLDER: whether it is there and finds its libraries and its user.
has_exim() {
    [ -x "$1/usr/sbin/exim4" ] && ! ldd "$1/usr/sbin/exim4" | grep -q 'not found' && getent passwd Debian-exim >/dev/null
}

# get_exim FOLDER LOG, as root, after the lists of packages were read: with the libraries that its package needs, and the
# user that it makes.
get_exim() {
    has_exim "$1" && return
    rm -rf "$1" && mkdir -p "$1"
    (cd "$1" && apt-get download -qq exim4-daemon-light && dpkg -x exim4-daemon-light_*.deb .) >>"$2" 2>&1 ||
        { tail -20 "$2" >&2; fail "Exim can't be had; see $2"; }
    # shellcheck disable=SC2046
    install_packages "$2" $(dpkg-deb -f "$1"/exim4-daemon-light_*.deb Depends | grep -oE '\blib[a-z0-9.+-]+' | sort -u)
    rm -f "$1"/*.deb
    getent passwd Debian-exim >/dev/null || useradd --system --no-create-home --shell /usr/sbin/nologin Debian-exim
    has_exim "$1" || fail "Exim lacks libraries: $(ldd "$1/usr/sbin/exim4" | grep 'not found' | tr -s '\t\n' ' ')"
}
