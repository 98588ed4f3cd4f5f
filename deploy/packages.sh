#!/bin/sh
# Installs the Debian packages that hearth is built and tested with; says nothing and needs no network if all are there.
# docs/dependencies.md says what each is for. Packages named as arguments are installed instead of these.
set -eu

packages="gcc g++ ccache libc6-dev cmake ninja-build pkg-config
    openmpi-bin libopenmpi-dev libibverbs-dev ibverbs-providers libhwloc-dev libpcre2-dev libxxhash-dev libjansson-dev
    libmicrohttpd-dev libcurl4-gnutls-dev libopenblas-pthread-dev
    libcmocka-dev
    iproute2 strace curl openssl python3-venv
    help2man python3 python3-jinja2 python3-jsonschema python3-pip"
[ $# -eq 0 ] || packages=$*

missing=
for package in $packages; do
    state=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
    [ "$state" = "install ok installed" ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
    as_root=sudo
    command -v sudo >/dev/null || {
        echo "packages.sh: run as root, or install:$missing" >&2
        exit 1
    }
fi
echo "installing$missing" >&2
$as_root apt-get update -q >&2
# shellcheck disable=SC2086 # $missing is a list
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing >&2
