#!/usr/bin/env bash
# Boots several real systemd hosts on one machine, whatever that machine's own PID 1 is.
#
# Each host is a systemd-nspawn container with its own PID 1, D-Bus, journal, cgroups, boot id, disk
# image and address on a private bridge. A host can lose its power: what it had not synced is gone.
# `hosts.sh help` lists the verbs; README.md beside this file says what they are good for.
#
# Needs root, and
#   apt-get install --no-install-recommends systemd-container mmdebstrap nftables iproute2 \
#       e2fsprogs python3 util-linux
set -euo pipefail

# --- Settings, all from the environment -------------------------------------------------------

# Where everything is kept: the base tree, and a folder for each run.
KEEP="${CBDDC_HOSTS_DIR:-${TMPDIR:-/var/tmp}/cbddc-hosts}"
# Runs with different tags do not see each other.
TAG="${CBDDC_HOSTS_TAG:-cbh}"
# The first three numbers of the hosts' addresses. The network exists only inside the run's own
# network namespaces, so it may even be one that another run uses.
NET="${CBDDC_HOSTS_NET:-10.77.0}"
# The Debian release of the hosts, and where apt finds its packages: by default those of the machine.
SUITE="${CBDDC_HOSTS_SUITE:-$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")}"
SOURCES="${CBDDC_HOSTS_SOURCES:-}"
# Further packages for the base tree, separated by commas, such as tcpdump.
PACKAGES="${CBDDC_HOSTS_PACKAGES:-}"
# The size of a host's disk; the image is sparse.
DISK="${CBDDC_HOSTS_DISK:-2G}"
# The process for which the run exists. When it is gone, `sweep` may take the run away.
OWNER="${CBDDC_HOSTS_OWNER:-}"

SELF="$(readlink -f "${BASH_SOURCE[0]}")"
RUN="$KEEP/run-$TAG"
SWITCH="$TAG-switch"

# What a host needs beyond a minimal Debian: systemd with its bus, what cbagent, the fixture node and
# the harness use, and an admin's way in, which is off until a test turns it on.
BASE_PACKAGES="systemd,systemd-sysv,dbus,iproute2,nftables,procps,ca-certificates,libgcc-s1"
BASE_PACKAGES="$BASE_PACKAGES,openssh-server,sudo"
if [ -n "$PACKAGES" ]; then
    BASE_PACKAGES="$BASE_PACKAGES,$PACKAGES"
fi
# Another list of packages is another tree.
BASE="$KEEP/base-$SUITE-$(printf '%s' "$BASE_PACKAGES" | cksum | cut -d' ' -f1)"

# The unified cgroup tree, also where the machine mounts it beside the old ones. There the old tree
# "name=systemd" must hold the host, too, or its systemd finds itself in the machine's cgroup.
CGROUPS=/sys/fs/cgroup
if [ ! -e "$CGROUPS/cgroup.procs" ]; then
    CGROUPS=/sys/fs/cgroup/unified
fi
OLD_CGROUPS=/sys/fs/cgroup/systemd
if [ ! -d "$OLD_CGROUPS" ]; then
    OLD_CGROUPS=
fi

die() {
    printf 'hosts.sh: %s\n' "$*" >&2
    exit 1
}

# Waits until a command succeeds: wait_until SECONDS WHAT COMMAND…
wait_until() {
    local tries=$(($1 * 50)) what=$2
    shift 2
    until "$@"; do
        [ $((tries -= 1)) -gt 0 ] || die "waited in vain until $what"
        sleep 0.02
    done
}

# --- The base tree: made once, read by all hosts ----------------------------------------------

# The machine's own sources of packages, so that no mirror is named here.
sources() {
    if [ -n "$SOURCES" ]; then
        echo "$SOURCES"
    elif [ -e /etc/apt/sources.list.d/debian.sources ]; then
        echo /etc/apt/sources.list.d/debian.sources
    elif [ -e /etc/apt/sources.list ]; then
        echo /etc/apt/sources.list
    else
        die "no apt sources found: name a file of them in CBDDC_HOSTS_SOURCES"
    fi
}

base() {
    [ ! -e "$BASE/.complete" ] || return 0
    mkdir -p "$KEEP"
    # Two runs that begin together must not build it twice.
    exec 9>"$BASE.lock"
    flock 9
    if [ ! -e "$BASE/.complete" ]; then
        make_base
    fi
    exec 9>&-
}

make_base() {
    local sources
    sources="$(sources)"
    rm -rf --one-file-system "$BASE"
    mkdir -p "$BASE"
    # Through tar, because device nodes cannot be made everywhere; nspawn makes those of each host.
    mmdebstrap --quiet --variant=minbase --include="$BASE_PACKAGES" \
        --aptopt='Acquire::Languages "none"' "$SUITE" - "$sources" |
        tar -C "$BASE" --numeric-owner --xattrs --exclude='./dev/*' -xp

    # The journal stays on the disk, and is synced often: it tells what happened before a power cut.
    mkdir -p "$BASE/etc/systemd/journald.conf.d"
    printf '[Journal]\nStorage=persistent\nSyncIntervalSec=1s\nRateLimitBurst=0\n' \
        >"$BASE/etc/systemd/journald.conf.d/hosts.conf"
    # Nothing may run that the tests did not ask for.
    ln -sf /dev/null "$BASE/etc/systemd/system/apt-daily.timer"
    ln -sf /dev/null "$BASE/etc/systemd/system/apt-daily-upgrade.timer"
    systemctl --quiet --root="$BASE" disable ssh.service ssh.socket sshd-keygen.service 2>/dev/null || true
    # Each host makes its own.
    rm -f "$BASE"/etc/ssh/ssh_host_*
    touch "$BASE/.complete"
}

# --- The network: one switch, a cable for each host -------------------------------------------

# The switch is a network namespace with two bridges; a host on the other bridge is partitioned off.
# The machine itself joins by `ip netns exec`, as .254.
make_switch() {
    local bridge
    ip netns add "$SWITCH"
    ip -n "$SWITCH" link set lo up
    for bridge in br0 br1; do
        ip -n "$SWITCH" link add "$bridge" type bridge forward_delay 0
        ip -n "$SWITCH" link set "$bridge" up
    done
    ip -n "$SWITCH" address add "$NET.254/24" dev br0
}

plug_in() {
    local host=$1 netns="$TAG-h$1" mac
    unplug "$host"
    # The same address of the card for ever, so that no neighbour remembers an old one.
    mac="$(printf '02:00:00:00:00:%02x' "$host")"
    ip netns add "$netns"
    ip -n "$netns" link set lo up
    ip -n "$SWITCH" link add "p$host" type veth peer name eth0 address "$mac" netns "$netns"
    ip -n "$SWITCH" link set "p$host" master br0 up
    ip -n "$netns" address add "$NET.$host/24" dev eth0
    ip -n "$netns" link set eth0 up
}

unplug() {
    ip -n "$SWITCH" link del "p$1" 2>/dev/null || true
    ip netns del "$TAG-h$1" 2>/dev/null || true
}

# link I down|up: pulls the cable out of the switch, or puts it back.
link() {
    ip -n "$SWITCH" link set "p$1" "$2"
}

# split 1,2 3: the hosts of the first list, and the machine, no longer reach those of the second.
# `split 1,2,3` heals it.
split() {
    local host
    for host in ${1//,/ }; do
        ip -n "$SWITCH" link set "p$host" master br0
    done
    for host in $(echo "${2:-}" | tr , ' '); do
        ip -n "$SWITCH" link set "p$host" master br1
    done
}

# drop A B [PERCENT]: what A sends to B is silently lost; the other way is open.
drop() {
    local from=$1 to=$2 some="${3:+numgen random mod 100 < $3}"
    enter "$to" nft "add table netdev hosts
        add chain netdev hosts from$from { type filter hook ingress device eth0 priority 0; }
        add rule netdev hosts from$from ether type ip ip saddr $NET.$from $some drop"
}

undrop() {
    enter "$2" nft delete chain netdev hosts "from$1"
}

# --- One host ---------------------------------------------------------------------------------

cgroups_of() {
    echo "$CGROUPS/$TAG/h$1"
    if [ -n "$OLD_CGROUPS" ]; then
        echo "$OLD_CGROUPS/$TAG/h$1"
    fi
}

# The host's PID 1 as the machine numbers it.
leader() {
    local pid
    pid="$(head -n1 "$CGROUPS/$TAG/h$1/payload/init.scope/cgroup.procs" 2>/dev/null)" || return 1
    [ -n "$pid" ] || return 1
    echo "$pid"
}

need_leader() {
    leader "$1" || die "h$1 is down"
}

# enter I COMMAND…: in all namespaces of the host, but outside its cgroups: a quick look.
enter() {
    local pid
    pid="$(need_leader "$1")" || exit 1
    shift
    nsenter -t "$pid" -m -u -i -n -p -r -w -- "$@"
}

# run I COMMAND…: as a unit of the host, as anything there runs. The exit code is the command's.
run() {
    local host=$1
    shift
    # systemd would replace variables in the command by its own; `$$` is a `$` to it.
    enter "$host" systemd-run --quiet --wait --pipe --collect -- "${@//\$/\$\$}"
}

# put I FILE /PATH [MODE]: copies a file in, and syncs it: a power cut does not take it away.
put() {
    local pid target
    pid="$(need_leader "$1")" || exit 1
    target="/proc/$pid/root$3"
    install -D -m "${4:-755}" "$2" "$target"
    sync "$target"
}

# plant I FOLDER: copies everything below a folder to the host's root, owned by root, and syncs it.
# What lies there already, such as /etc, keeps its owner and mode.
plant() {
    local pid
    pid="$(need_leader "$1")" || exit 1
    tar -C "$2" --owner=0 --group=0 --numeric-owner -c . |
        tar -C "/proc/$pid/root" --no-overwrite-dir -xp
    sync -f "/proc/$pid/root"
}

# Mounts a host's disk and its root. Only ever called in a mount namespace of its own: a disk that
# the machine mounts would be held by the namespaces of all hosts that boot later.
mount_disk() {
    local host=$1 folder="$RUN/h$1" new= number
    mkdir -p "$folder/disk" "$folder/root"
    if [ ! -e "$folder/disk.img" ]; then
        new=1
        truncate -s "$DISK" "$folder/disk.img"
        mkfs.ext4 -q -E nodiscard "$folder/disk.img"
    fi
    mount -o loop "$folder/disk.img" "$folder/disk"
    mkdir -p "$folder/disk/upper" "$folder/disk/work"
    mount -t overlay overlay \
        -o "lowerdir=$BASE,upperdir=$folder/disk/upper,workdir=$folder/disk/work" "$folder/root"
    [ -n "$new" ] || return 0

    echo "h$host" >"$folder/root/etc/hostname"
    tr -d - </proc/sys/kernel/random/uuid >"$folder/root/etc/machine-id"
    {
        echo "127.0.0.1 localhost"
        for number in $(seq 9); do
            echo "$NET.$number h$number"
        done
    } >"$folder/root/etc/hosts"
    # A power cut must not take the host's identity away.
    sync -f "$folder/disk"
}

# wipe I: a new disk, as it comes from the base tree, for a host that is down.
wipe() {
    if leader "$1" >/dev/null; then
        die "h$1 is up: \`hosts.sh cut $1\` first"
    fi
    wait_until 10 "the disk of h$1 is free" disk_is_free "$1"
    rm -f "$RUN/h$1/disk.img"
}

# offline I COMMAND…: with the disk of a host that is down; the command finds its root in $ROOT.
offline() {
    if leader "$1" >/dev/null; then
        die "h$1 is up"
    fi
    unshare --mount --propagation slave "$SELF" _offline "$@"
}

_offline() {
    local host=$1
    shift
    mount_disk "$host"
    ROOT="$RUN/h$host/root" "$@"
}

# journal I [LINES]: the end of a host's journal, of earlier boots too, whether it is up or not.
journal() {
    local lines="${2:-100}"
    if leader "$1" >/dev/null; then
        enter "$1" journalctl --no-pager --lines="$lines" --output=short-precise
    else
        # shellcheck disable=SC2016 # the inner shell expands it
        offline "$1" sh -c \
            'journalctl --no-pager --lines="$1" --output=short-precise --directory="$ROOT/var/log/journal"' \
            sh "$lines"
    fi
}

# Becomes the host's systemd-nspawn, in the host's cgroups.
_boot() {
    local host=$1 cgroup
    for cgroup in $(cgroups_of "$host"); do
        mkdir -p "$cgroup"
        echo $$ >"$cgroup/cgroup.procs"
    done
    mount_disk "$host"
    # Writable network settings, as a real host has them. The capabilities and calls are what
    # systemd needs for its own sandboxes: BPF for IPAddressDeny and devices, keyrings for services.
    export UNIFIED_CGROUP_HIERARCHY=1 SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
    exec systemd-nspawn --quiet --boot --register=no --keep-unit \
        --directory="$RUN/h$host/root" --machine="$TAG-h$host" --hostname="h$host" \
        --network-namespace-path="/run/netns/$TAG-h$host" \
        --link-journal=no --resolv-conf=off --timezone=off --console=pipe \
        --capability=CAP_NET_ADMIN,CAP_BPF,CAP_PERFMON --system-call-filter="@keyring bpf"
}

# boot I: returns once the host's systemd has started everything.
boot() {
    local host=$1 folder="$RUN/h$1" pid said='' tries=1200
    if leader "$host" >/dev/null; then
        die "h$host is up"
    fi
    reap "$host" 10
    mkdir -p "$folder"
    plug_in "$host"
    # Each of these programs becomes the next, so that $! is nspawn in the end.
    setsid unshare --mount --propagation slave "$SELF" _boot "$host" \
        </dev/null >>"$folder/console.log" 2>&1 &
    pid=$!
    disown
    echo "$pid" >"$folder/nspawn.pid"
    while [ $((tries -= 1)) -gt 0 ]; do
        said="$( (enter "$host" systemctl is-system-running) 2>/dev/null)" || true
        case "$said" in
        running | degraded)
            echo "h$host $said"
            return
            ;;
        esac
        if ! kill -0 "$pid" 2>/dev/null; then
            tail -n 5 "$folder/console.log" >&2
            die "h$host ended while it booted"
        fi
        sleep 0.05
    done
    die "h$host does not come up: ${said:-no answer}; see $folder/console.log"
}

# Waits until nothing of a host is left, and takes away what it was given.
reap() {
    local host=$1 seconds=$2 cgroup
    cgroup="$CGROUPS/$TAG/h$host"
    [ -d "$cgroup" ] || return 0
    wait_until "$seconds" "the processes of h$host have ended" is_empty "$cgroup"
    for cgroup in $(cgroups_of "$host"); do
        if [ -d "$cgroup" ]; then
            find "$cgroup" -depth -type d -exec rmdir {} +
        fi
    done
    wait_until 10 "the disk of h$host is free" disk_is_free "$host"
    rmdir "/run/systemd/nspawn/propagate/$TAG-h$host" 2>/dev/null || true
}

is_empty() {
    ! grep -q 'populated 1' "$1/cgroup.events"
}

is_frozen() {
    grep -q 'frozen 1' "$1/cgroup.events"
}

disk_is_free() {
    [ -z "$(losetup -j "$RUN/h$1/disk.img" 2>/dev/null)" ]
}

# cut I: the power fails. The cable goes first, so that no goodbye reaches the peers; then all
# processes stand still while the disk forgets what was not synced; then they are gone.
cut_power() {
    local host=$1 cgroup="$CGROUPS/$TAG/h$1" pid
    need_leader "$host" >/dev/null || exit 1
    pid="$(cat "$RUN/h$host/nspawn.pid")"
    unplug "$host"
    echo 1 >"$cgroup/cgroup.freeze"
    wait_until 10 "h$host stands still" is_frozen "$cgroup"
    # FS_IOC_SHUTDOWN with "do not flush the log": ext4 drops everything that is not yet on the disk.
    python3 -c '
import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack("I", 2))
' "/proc/$pid/root$RUN/h$host/disk"
    echo 1 >"$cgroup/cgroup.kill"
    reap "$host" 10
}

# crash I: all processes die at once. Peers see their connections end; the disk keeps everything.
crash() {
    echo 1 >"$CGROUPS/$TAG/h$1/cgroup.kill"
    reap "$1" 10
    unplug "$1"
}

# stop I: a clean shutdown. The signal means "start poweroff.target" to systemd.
stop() {
    local pid
    pid="$(need_leader "$1")" || exit 1
    kill -s RTMIN+4 "$pid"
    reap "$1" 90
    unplug "$1"
}

# --- The run ----------------------------------------------------------------------------------

up() {
    local count=$1 host pids='' pid failed=0
    [ "$count" -ge 1 ] && [ "$count" -le 99 ] || die "between 1 and 99 hosts"
    [ ! -e "$RUN" ] || die "a run with the tag $TAG is there: hosts.sh down"
    base
    mkdir -p "$RUN"
    if [ -n "$OWNER" ]; then
        owner_mark "$OWNER" >"$RUN/owner"
    fi
    make_switch
    for host in $(seq "$count"); do
        boot "$host" &
        pids="$pids $!"
    done
    for pid in $pids; do
        wait "$pid" || failed=1
    done
    [ "$failed" = 0 ] || die "not all hosts came up; hosts.sh down removes them"
}

# down: ends and removes everything of this tag, whatever state it was left in.
down() {
    local cgroup host netns
    for cgroup in "$CGROUPS/$TAG"/h*; do
        [ -d "$cgroup" ] || continue
        host="${cgroup##*/h}"
        echo 0 >"$cgroup/cgroup.freeze"
        echo 1 >"$cgroup/cgroup.kill"
        reap "$host" 10
    done
    for netns in $(ip netns list | cut -d' ' -f1 | grep -E "^$TAG-(h[0-9]+|switch)$" || true); do
        ip netns del "$netns"
    done
    rmdir "$CGROUPS/$TAG" ${OLD_CGROUPS:+"$OLD_CGROUPS/$TAG"} 2>/dev/null || true
    rm -rf --one-file-system "$RUN"
}

# A process is told apart from a later one with the same number by when it started.
owner_mark() {
    echo "$1 $(sed 's/.*) //' "/proc/$1/stat" | cut -d' ' -f20)"
}

# sweep: `down` for every run whose owner is gone, as after a harness that was killed.
sweep() {
    local owner mark pid
    for owner in "$KEEP"/run-*/owner; do
        [ -e "$owner" ] || continue
        mark="$(cat "$owner")"
        pid="${mark%% *}"
        if [ "$(owner_mark "$pid" 2>/dev/null || true)" != "$mark" ]; then
            owner="${owner%/owner}"
            CBDDC_HOSTS_TAG="${owner##*/run-}" "$SELF" down
        fi
    done
}

# check: says what is missing on this machine, and fails if anything is.
check() {
    local missing='' program
    for program in systemd-nspawn mmdebstrap nft ip mkfs.ext4 python3 nsenter unshare losetup; do
        command -v "$program" >/dev/null || missing="$missing $program"
    done
    if [ "$(id -u)" != 0 ]; then
        missing="$missing root"
    fi
    [ -e "$CGROUPS/cgroup.procs" ] || missing="$missing cgroup2"
    [ -z "$missing" ] || die "missing here:$missing"
}

help() {
    cat <<'END'
hosts.sh VERB …
  check                     says what this machine lacks
  base                      makes the tree that all hosts read; `up` does it, too
  up N, down                boots h1 … hN; removes everything of this tag
  sweep                     `down` for runs whose owner is gone
  run I CMD…                as a unit of host I
  enter I CMD…              in host I, outside its cgroups
  put I FILE /PATH [MODE]   copies a file in
  plant I FOLDER            copies a tree in, to be laid over the root
  cut I                     power cut: what was not synced is lost
  crash I                   all processes die, the disk is kept
  stop I                    clean shutdown
  boot I                    starts it again
  wipe I                    a new disk for a host that is down
  offline I CMD…            with the disk of a host that is down, at $ROOT
  journal I [LINES]         the end of its journal
  net CMD…                  on the machine, in the hosts' network
  link I down|up            the cable
  split 1,2 3               partition; `split 1,2,3` heals it
  drop A B [PERCENT]        loss from A to B only; `undrop A B`
END
}

verb="${1:-help}"
[ $# = 0 ] || shift
case "$verb" in
cut) cut_power "$@" ;;
# Becomes the program, so that whoever ends this one ends that one.
net) exec ip netns exec "$SWITCH" "$@" ;;
check | base | up | down | sweep | run | enter | put | plant | crash | stop | boot | wipe | offline | journal | \
    link | split | drop | undrop | help | _boot | _offline)
    "$verb" "$@"
    ;;
*) die "there is no verb $verb; see hosts.sh help" ;;
esac
