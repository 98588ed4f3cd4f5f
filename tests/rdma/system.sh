#!/bin/sh
# What systemd runs in a guest that has a system of its own (guests.sh -r), where the work folder is /work: the command,
# and then the end.
sh /work/command >/work/out 2>/work/err </dev/null
echo "GUEST_EXIT=$?" >/dev/console
sync
echo o >/proc/sysrq-trigger
