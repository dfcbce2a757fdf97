# Installs the package that comes through standard input. SIZE: its bytes.
set -eu
LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
DEBIAN_FRONTEND=noninteractive
export LC_ALL PATH DEBIAN_FRONTEND
fail() {
    echo "$1" >&2
    exit 1
}
command -v dpkg >/dev/null || fail 'this host has no dpkg: install cbagent there by its own means'
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
cat >"$folder/cbagent.deb"
[ "$(stat -c %s "$folder/cbagent.deb")" = "$SIZE" ] ||
    fail 'the connection ended before the whole package was here; nothing was installed'
name="$(dpkg-deb --field "$folder/cbagent.deb" Package)" || fail 'the file is no Debian package'
[ "$name" = cbagent ] || fail "the file is the package $name, not cbagent; nothing was installed"
before="$(dpkg-query --show --showformat '${Status}' cbagent 2>/dev/null || true)"
said="$(dpkg --force-confdef --force-confold --install "$folder/cbagent.deb" 2>&1 </dev/null)" || {
    # Half a package is of no use to anybody.
    case "$before" in
    *' ok installed') left='' ;;
    *) dpkg --remove cbagent >/dev/null 2>&1 && left=', and took it away again' || left='' ;;
    esac
    fail "dpkg did not install it$left: $said"
}
