#!/bin/sh
# Runs a command in one or two virtual machines that have an RDMA device, rxe0: the kernel's soft RoCE over a dummy
# interface of one guest, or over the wire between two. Guests see this machine's files (what they write outside the
# work folder is lost with them), so programs built here run there. README.md says more.
#
#   guests.sh [-n 1|2 | -r ROOT] [-t SECONDS] KERNEL_FOLDER WORK_FOLDER COMMAND [ARGUMENT...]
#
# With -r the guest has a system of its own instead: ROOT is a folder with a Debian, whose systemd runs COMMAND when it
# is up; the work folder is /work there. It has no RDMA, and a processor that can do what every x86-64 can, no more.
#
# COMMAND runs in guest 1, with standard output in WORK_FOLDER/out and standard error in WORK_FOLDER/err; agent.sh runs
# what it starts elsewhere. Ends with its status, or with 124 if there was none in time (default 60 s).
set -u
here=$(cd "$(dirname "$0")" && pwd)
guests=1 seconds=60 root=
while getopts n:r:t: option; do
    case $option in
    n) guests=$OPTARG ;;
    r) root=$OPTARG ;;
    t) seconds=$OPTARG ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -ge 3 ] || {
    echo "usage: guests.sh [-n 1|2 | -r ROOT] [-t SECONDS] KERNEL_FOLDER WORK_FOLDER COMMAND [ARGUMENT...]" >&2
    exit 2
}
kernel=$1
mkdir -p "$2"
work=$(cd "$2" && pwd)
shift 2
rm -rf "$work/out" "$work/err" "$work/console".* "$work/jobs" "$work/wire"
mkdir "$work/jobs"
machines=
trap 'for machine in $machines; do kill -TERM "$machine"; done 2>/dev/null; rm -f "$work/wire"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# The command, quoted for a shell.
{
    [ -n "$root" ] || echo "cd '$PWD'"
    for argument in "$@"; do
        printf "'%s' " "$(printf %s "$argument" | sed "s/'/'\\\\''/g")"
    done
} >"$work/command"
cp "$here/agent.sh" "$work/agent.sh"
sed "s|^guests=.*|guests=$guests|; s|^work=.*|work=$work|" "$here/guest.sh" >"$work/guest.sh"
processor=max files=/ parameters="work=$work"
if [ -n "$root" ]; then
    cp "$here/system.sh" "$work/guest.sh"
    processor=qemu64 files=$root parameters="work=/work system=/lib/systemd/systemd systemd.run=/work/guest.sh"
fi
chmod +x "$work/agent.sh" "$work/guest.sh"

boot() { # GUEST NETDEV
    set -- "$1" ${2:+-netdev "$2,id=wire,addr.type=unix,addr.path=$work/wire" \
        -device "virtio-net-pci,netdev=wire,mac=52:54:00:00:00:0$1,host_mtu=9000,romfile="}
    guest=$1
    shift
    timeout -k 1 "$seconds" qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu $processor -smp 1 -m 512 \
        -nodefaults -no-user-config -display none -serial stdio -no-reboot \
        -kernel "$kernel/vmlinux" -initrd "$kernel/initramfs" \
        -append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr guest=$guest $parameters" \
        -fsdev local,id=host,path="$files",security_model=none,readonly=on,multidevs=remap \
        -device virtio-9p-pci,fsdev=host,mount_tag=hostroot \
        -fsdev local,id=work,path="$work",security_model=none,multidevs=remap \
        -device virtio-9p-pci,fsdev=work,mount_tag=work \
        -device virtio-rng-pci "$@" >"$work/console.$guest" 2>&1 </dev/null &
    machines="$machines $!"
}

if [ "$guests" -eq 1 ]; then
    boot 1 ""
else
    boot 2 stream,server=on
    tries=0
    while [ ! -S "$work/wire" ] && [ $tries -lt 100 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    boot 1 stream,server=off
fi
wait "${machines##* }" # guest 1
status=$(sed -n 's/^GUEST_EXIT=\([0-9]*\).*/\1/p' "$work/console.1")
[ -n "$status" ] || {
    echo "guests.sh: guest 1 said no status within $seconds s; its console:" >&2
    tail -n 20 "$work/console.1" >&2
    status=124
}
exit "$status"
