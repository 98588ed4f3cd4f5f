#!/bin/sh
# What is installed: the unit of systemd, as systemd reads it, and the Debian package, which is put into a bare Debian
# 12 and serves there.
#   package_test.sh HEARTH        of a release build, in whose folder the package is made
. "$(dirname "$0")/library.sh"
. "$here/debian.sh"

# The unit names the program of this build, as one must be there.
need_program packages-serve.sh systemd-analyze
sed "s,/usr/bin/hearth,$build/hearth," "$source/deploy/hearth.service" >"$work/hearth.service"
systemd-analyze verify --man=no "$work/hearth.service" >"$work/log" 2>&1 || fail "the unit is refused"
equal "what systemd says of the unit" "" "$(cat "$work/log")"
# 0 is shut off, 10 is free; the threshold is in tenths.
systemd-analyze security --offline=yes --threshold=20 --no-pager "$work/hearth.service" >"$work/log" 2>&1 ||
    fail "the unit leaves more open than it did"
tail -n 1 "$work/log"

make_package
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
    like "what the package depends on" "*$library*" "$depends"
done

install_debian "$work/root"
cp "$source/tests/vectors/tiny-q4_k.gguf" "$work/root/tmp/tiny.gguf"
chroot "$work/root" hearth run -q -m /tmp/tiny.gguf -n 4 --temp 0 -p "An old clock" >"$work/out" 2>"$work/log" ||
    fail "hearth run in a bare Debian: $(cat "$work/log")"
: >"$work/log"
chroot "$work/root" hearth serve -m /tmp/tiny.gguf --chat-template chatml --port 0 >"$work/out" 2>"$work/log" &
server=$!
ask_until_answered "a bare Debian" Hello 4 true
finish
