#!/bin/sh
# hearth.service as a house has it: the package in a Debian 12 that systemd starts, in a virtual machine (tests/rdma)
# whose processor can do what every x86-64 can and no more. service_guest.sh is what is tried there.
#   service_test.sh HEARTH        of a release build, in whose folder the package is made
. "$(dirname "$0")/library.sh"
. "$here/debian.sh"
guests=$here/../rdma
kernel=$source/build/guest-kernel
[ "$(uname -m)" = x86_64 ] || missing "the guest is an x86-64 machine"
need_program packages-rdma.sh qemu-system-x86_64 busybox cpio depmod xz
need_program packages.sh python3
sh "$guests/kernel.sh" "$kernel" 2>"$work/log" || missing "the guest's kernel cannot be had: $(tail -n 1 "$work/log")"

make_package
install_debian "$work/root" systemd python3-jinja2 curl
tr -d - </proc/sys/kernel/random/uuid >"$work/root/etc/machine-id" # else systemd asks who it is

# An answer is the same everywhere: here first.
mkdir "$work/guest"
cp "$here/service_guest.sh" "$here/service_inside.py" "$work/guest"
model=$work/guest/model.gguf
make_model "$model"
serve
printf 'Good day.\n' | "$hearth" chat --url "$url" -q --temp 0 -n 12 >"$work/guest/expected" 2>"$work/log" ||
    fail "hearth chat: $(cat "$work/log")"
stop_server

sh "$guests/guests.sh" -r "$work/root" -t 200 "$kernel" "$work/guest" sh /work/service_guest.sh 2>"$work/log"
status=$?
cat "$work/guest/out"
[ $status -eq 0 ] || fail "status $status (124: it hangs): $(cat "$work/log" "$work/guest/err")"
finish
