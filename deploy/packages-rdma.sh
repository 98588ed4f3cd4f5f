#!/bin/sh
# Installs what tests/rdma needs beside deploy/packages.sh: a machine emulator, the tools that make a guest's initial
# file system, and RDMA's tools. Says nothing and needs no network if all are there.
set -eu
exec sh "$(dirname "$0")/packages.sh" qemu-system-x86 seabios busybox-static cpio kmod xz-utils \
    ibverbs-providers ibverbs-utils libucx0
