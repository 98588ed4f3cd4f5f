#!/bin/sh
# Tests over a real RDMA driver: boots one or two virtual machines with the kernel's soft RoCE and runs one_guest.sh or
# two_guests.sh in the first. Skipped (status 77) where something is missing, which HEARTH_REQUIRE_LABS=1 forbids.
#   rdma_test.sh one|two BUILD_FOLDER VECTORS [CASE...]
set -u
here=$(cd "$(dirname "$0")" && pwd)
part=$1 build=$2 vectors=$3
shift 3
PATH=$PATH:/usr/sbin:/sbin

missing() {
    [ "${HEARTH_REQUIRE_LABS:-0}" = 1 ] && echo "FAILED: $*" && exit 1
    echo "skipped: $*"
    exit 77
}

[ "$(uname -m)" = x86_64 ] || missing "the guests are x86-64 machines"
[ "$(id -u)" -eq 0 ] || missing "needs root, to give guests this machine's files"
for program in qemu-system-x86_64 busybox cpio depmod xz dpkg-deb ibv_rc_pingpong rdma; do
    command -v $program >/dev/null || missing "needs $program: run deploy/packages-rdma.sh"
done

kernel=$here/../../build/guest-kernel
sh "$here/kernel.sh" "$kernel" || missing "the guest's kernel cannot be had"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
case $part in
one) sh "$here/guests.sh" -n 1 -t 200 "$kernel" "$work" sh "$here/one_guest.sh" "$build" "$vectors" "$@" ;;
two) sh "$here/guests.sh" -n 2 -t 290 "$kernel" "$work" sh "$here/two_guests.sh" "$build" "$vectors" "$@" ;;
*) echo "there is no part '$part'" && exit 2 ;;
esac
status=$?
cat "$work/out"
if [ $status -ne 0 ]; then
    echo "FAILED: status $status (124: it hangs)"
    cat "$work/err"
fi
exit $((status != 0))
