#!/bin/sh
# What is installed: the unit of systemd and the Debian package, which is put into a bare Debian 12 and serves there.
#   package_test.sh HEARTH        of a release build, in whose folder the package is made
hearth=$1
source=$(cd "$(dirname "$0")/../.." && pwd)
build=$(cd "$(dirname "$hearth")" && pwd)
work=$(mktemp -d)
failures=0
server=
finish() {
    [ -z "$server" ] || kill "$server" 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# WHY: nothing behind this can be tried.
skip() {
    echo "SKIP: $*"
    [ $failures -eq 0 ] || exit 1
    exit 77
}

# The unit, as systemd reads it; the program is this build's, as one must be there.
if command -v systemd-analyze >/dev/null; then
    sed "s,/usr/bin/hearth,$build/hearth," "$source/deploy/hearth.service" >"$work/hearth.service"
    systemd-analyze verify --man=no "$work/hearth.service" >"$work/log" 2>&1 || fail "the unit: $(cat "$work/log")"
    [ ! -s "$work/log" ] || fail "the unit: $(cat "$work/log")"
    # 0 is shut off, 10 is free; here in tenths.
    systemd-analyze security --offline=yes --threshold=30 --no-pager "$work/hearth.service" >"$work/log" 2>&1 ||
        fail "the unit leaves too much open: $(tail -n 1 "$work/log")"
else
    echo "SKIP: systemd-analyze is not there: the unit is not checked"
fi

case $(sed -n 's/^HEARTH_SANITIZE:STRING=//p;s/^CMAKE_BUILD_TYPE:STRING=//p' "$build/CMakeCache.txt" | tr -d '\n') in
Release) ;;
*) skip "no package is made of a build for tests" ;;
esac
if ! command -v cpack >/dev/null || ! command -v dpkg-shlibdeps >/dev/null; then
    skip "cpack or dpkg-dev is not there: no package is made"
fi
if ! (cd "$build" && cpack -G DEB -B "$work/package") >"$work/log" 2>&1; then
    fail "cpack: $(tail -n 20 "$work/log")"
    exit 1
fi
package=$(echo "$work"/package/*.deb)
dpkg-deb -c "$package" >"$work/list"
for file in usr/bin/hearth lib/systemd/system/hearth.service share/man/man1/hearth-chat.1 share/doc/hearth/README.md \
    share/hearth/licences.txt; do
    grep -q "$file" "$work/list" || fail "the package lacks $file"
done
if grep -qE ' root/root .*(home|tmp)/' "$work/list"; then
    fail "the package has files where none belong"
fi
depends=$(dpkg-deb -f "$package" Depends)
for library in libc6 libmicrohttpd12 libjansson4 libpcre2-8-0; do
    case $depends in
    *$library*) ;;
    *) fail "the package does not depend on $library: $depends" ;;
    esac
done

# A Debian with nothing in it, kept for the next time.
root=$build/debian-root
if [ "$(id -u)" -ne 0 ] || ! command -v debootstrap >/dev/null; then
    skip "debootstrap as root is not to be had: the package is not installed"
fi
if [ ! -e "$root/complete" ]; then
    rm -rf "$root"
    if ! debootstrap --variant=minbase bookworm "$root" >"$work/log" 2>&1; then
        skip "debootstrap found no Debian: $(tail -n 1 "$work/log")"
    fi
    touch "$root/complete"
fi
cp "$package" "$root/tmp/hearth.deb"
cp "$source/tests/vectors/tiny-q4_k.gguf" "$root/tmp/tiny.gguf"
if ! chroot "$root" sh -c 'apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --reinstall \
    --no-install-recommends /tmp/hearth.deb' >"$work/log" 2>&1; then
    fail "the package cannot be installed: $(tail -n 5 "$work/log")"
    exit 1
fi
chroot "$root" hearth run -q -m /tmp/tiny.gguf -n 4 --temp 0 -p "An old clock" >"$work/out" 2>"$work/log" ||
    fail "hearth run in a bare Debian: $(cat "$work/log")"
chroot "$root" hearth serve -m /tmp/tiny.gguf --chat-template chatml --port 0 >"$work/out" 2>"$work/log" &
server=$!
tries=0
until url=$(sed -n 's,.*\(http://[0-9.:]*\).*,\1,p' "$work/log" | head -n 1) && [ -n "$url" ] &&
    printf 'Hello\n' | "$hearth" chat --url "$url" -n 4 -q >"$work/out" 2>"$work/answer"; do
    tries=$((tries + 1))
    if [ $tries -gt 100 ]; then
        fail "no answer from a bare Debian: $(cat "$work/log" "$work/answer")"
        break
    fi
    sleep 0.2
done
[ $failures -eq 0 ] || exit 1
echo "passed"
