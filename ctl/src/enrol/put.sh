# Puts files into the agent's folder: all of them, checked by the agent itself, or none.
# FILES: names and sizes, in the order in which they take their places. REPLACE: yes or no.
# JOIN: the size of a token that follows them, by which NODE joins at ISSUER, to listen at LISTEN;
# unset where the certificate is among the files.
set -eu
umask 077
LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
folder=/etc/cbagent
stage=/etc/cbagent/.enrol
fail() {
    echo "$1" >&2
    exit 1
}
# The key of a host that was about to join: an issuer may know it, so that it must not get lost.
keep_key() {
    [ -e "$stage/.joins" ] || return 0
    for key in node.key.new node.key; do
        [ -s "$stage/$key" ] || continue
        cmp -s "$stage/$key" "$folder/node.key" || mv -f "$stage/$key" "$folder/node.key.new"
    done
}
check() {
    said="$(/usr/bin/cbagent check --config "$stage/cbagent.toml" 2>&1)" ||
        fail "the agent would not start with its configuration, nothing was changed: $(
            printf '%s\n' "$said" | sed "s|$stage/|$folder/|g"
        )"
}
[ -d "$folder" ] || mkdir -m 700 "$folder"
exec 9<"$folder"
flock -n 9 || fail 'this host is being enrolled by somebody else'
[ "$REPLACE" = yes ] || [ ! -e "$folder/node.pem" ] || fail 'the host has got a certificate meanwhile'
keep_key
rm -rf "$stage"
mkdir "$stage"
trap 'keep_key; rm -rf "$stage"' EXIT
trap 'exit 1' HUP INT TERM
# What the configuration names beside it is found there as well.
for old in "$folder"/*; do
    [ ! -e "$old" ] || cp -a "$old" "$stage/"
done
for file in $FILES; do
    name="${file%:*}" size="${file#*:}"
    rm -f "$stage/$name"
    dd bs=1 count="$size" of="$stage/$name" 2>/dev/null
    [ "$(stat -c %s "$stage/$name")" = "$size" ] ||
        fail 'the connection ended before everything was here; nothing was changed'
done
if [ -n "${JOIN-}" ]; then
    # A host that has an identity keeps it where its configuration is no good.
    [ ! -e "$stage/node.pem" ] || check
    : >"$stage/.joins"
    sync "$stage"
    rm -f "$stage/node.pem"
    said="$(dd bs=1 count="$JOIN" 2>/dev/null | /usr/bin/cbagent join "$ISSUER" --token - \
        --name "$NODE" --listen "$LISTEN" --dir "$stage" 2>&1)" || fail "it did not join: $said"
    cp -f "$stage/node.key" "$folder/node.key.new"
    sync "$folder/node.key.new"
    FILES="ca.pem mesh.toml $FILES node.key node.pem"
fi
check
# First to the disk, then to its place: after a power cut each file is the old or the new one. The
# certificate comes last: until it is there, the host counts as not enrolled.
for file in $FILES; do sync "$stage/${file%:*}"; done
for file in $FILES; do mv -f "$stage/${file%:*}" "$folder/${file%:*}"; done
rm -f "$folder/node.key.new"
sync "$folder"
[ -z "${JOIN-}" ] || cat "$folder/node.pem"
