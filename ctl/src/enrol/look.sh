# What this host has. Reads only.
LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
say() { printf '%s=%s\n' "$1" "$(printf %s "$2" | tr -d '\r' | head -n 1 | cut -c 1-200)"; }
unit() { systemctl show -p "$1" --value cbagent.service 2>/dev/null; }
echo 'cbagent-look 1'
say uid "$(id -u)"
say systemd "$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')"
[ ! -x /usr/bin/cbagent ] || say agent "$(/usr/bin/cbagent --version 2>/dev/null || echo 'cbagent ?')"
say unit "$(unit LoadState)"
say active "$(unit ActiveState)"
say enabled "$(systemctl is-enabled cbagent.service 2>/dev/null)"
for file in node.pem cbagent.toml token; do
    [ ! -e "/etc/cbagent/$file" ] || say has "$file"
done
# A host that began to join has its key, with which it may go on.
if [ -s /etc/cbagent/node.key.new ] || [ -e /etc/cbagent/.enrol/.joins ]; then
    say has node.key.new
fi
[ ! -e /etc/cbagent/cbagent.toml ] ||
    say node "$(sed -n '/^[[:space:]]*\[/q;/^[[:space:]]*node[[:space:]]*=/p' /etc/cbagent/cbagent.toml)"
echo end
