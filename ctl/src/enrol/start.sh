# Starts the agent, anew if it runs, now and at each boot.
set -u
LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
systemctl --quiet enable cbagent.service || exit 1
# A power cut must not take that back.
sync /etc/systemd/system /etc/systemd/system/*.wants 2>/dev/null
if ! timeout 60 systemctl restart cbagent.service 2>/dev/null ||
    ! systemctl --quiet is-active cbagent.service; then
    echo "cbagent is $(systemctl show -p ActiveState --value cbagent.service)" >&2
    journalctl --unit cbagent.service --lines 8 --output cat --no-pager >&2
    exit 1
fi
