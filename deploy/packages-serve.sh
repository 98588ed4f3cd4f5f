#!/bin/sh
# Installs what tests/serve needs beside deploy/packages.sh to drive the page: a browser, which needs no screen (about
# 440 MB). Says nothing and needs no network if all are there.
set -eu
exec sh "$(dirname "$0")/packages.sh" chromium chromium-driver python3-selenium curl
