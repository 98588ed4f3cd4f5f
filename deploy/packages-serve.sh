#!/bin/sh
# Installs what tests/serve needs beside deploy/packages.sh: a browser to drive the page, which needs no screen (about
# 440 MB), and what makes the Debian package, a Debian to put it into, and containers. Says nothing and needs no network if
# all are there.
set -eu
exec sh "$(dirname "$0")/packages.sh" chromium chromium-driver python3-selenium curl \
    dpkg-dev file debootstrap systemd podman runc
