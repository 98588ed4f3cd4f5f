#!/bin/sh
# Makes the guest's kernel and initial file system out of Debian's kernel package, which is unpacked here and never
# installed, unless they are there already.
#   kernel.sh FOLDER     leaves FOLDER/vmlinux and FOLDER/initramfs
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"

find_package() {
    package=$(apt-cache depends linux-image-amd64 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*-amd64\)$/\1/p' | head -n 1)
    [ -n "$package" ]
}
find_package || { apt-get update -q >&2 && find_package; } || {
    echo "kernel.sh: apt knows no package linux-image-amd64" >&2
    exit 1
}
version=${package#linux-image-}
made="$version $(cat "$here/kernel.sh" "$here/init" | cksum)"
[ "$(cat made 2>/dev/null)" != "$made" ] || exit 0

work=$(mktemp -d "$PWD/unpack.XXXXXX")
trap 'rm -rf "$work"' EXIT
rm -f made
download() {
    (cd "$work" && apt-get download -q -o APT::Sandbox::User=root "$package" >&2)
}
download || { apt-get update -q >&2 && download; }
dpkg-deb --fsys-tarfile "$work/$package"_*.deb | tar -x -C "$work" "./boot/vmlinuz-$version" \
    "./lib/modules/$version/modules.order" "./lib/modules/$version/modules.builtin" \
    "./lib/modules/$version/kernel/drivers/infiniband" "./lib/modules/$version/kernel/drivers/virtio" \
    "./lib/modules/$version/kernel/drivers/net" "./lib/modules/$version/kernel/net" \
    "./lib/modules/$version/kernel/fs" "./lib/modules/$version/kernel/crypto" \
    "./lib/modules/$version/kernel/lib" "./lib/modules/$version/kernel/arch/x86/crypto"
depmod -b "$work" "$version" 2>/dev/null

# The kernel proper inside the boot image: QEMU starts it at once, and the emulated processor need not unpack it.
image=$work/boot/vmlinuz-$version
number() { # FORMAT OFFSET BYTES
    od -An "-t$1" -j "$2" -N "$3" "$image" | tr -d ' '
}
start=$((($(number u1 497 1) + 1) * 512 + $(number u4 584 4)))
tail -c +$((start + 1)) "$image" | head -c $(($(number u4 588 4) - 4)) | xz -dc >vmlinux

root=$work/root
mkdir -p "$root/bin" "$root/modules" "$root/proc" "$root/sys" "$root/dev" "$root/lower" "$root/upper" "$root/host"
cp /bin/busybox "$root/bin/"
cp "$here/init" "$root/init"
chmod +x "$root/init"
# crc32_generic is what rdma_rxe asks for by another name, which no list of dependencies says.
for module in virtio_pci virtio_net 9pnet_virtio 9p overlay dummy crc32_generic crc32_pclmul sch_netem rdma_rxe \
    ib_uverbs rdma_ucm; do
    modprobe -d "$work" -S "$version" --show-depends $module | sed -n 's/^insmod \([^ ]*\).*/\1/p'
done | awk '!seen[$0]++' | while read -r file; do
    cp "$file" "$root/modules/"
    basename "$file"
done >"$work/list"
mv "$work/list" "$root/modules/list"
(cd "$root" && find . | cpio --quiet -o -H newc) >initramfs
echo "$made" >made
