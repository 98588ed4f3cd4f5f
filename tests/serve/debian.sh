# shellcheck shell=sh
# What package_test.sh, service_test.sh and container_test.sh share, behind library.sh: the package of a release build,
# and a bare Debian 12 to put it into.
source=$(cd "$here/../.." && pwd)
build=$(cd "$(dirname "$hearth")" && pwd)
PATH=$PATH:/usr/sbin:/sbin

# WHY: what cannot be tried is skipped, but not in CI.
missing() {
    [ "$failures" -eq 0 ] || exit 1
    [ "${HEARTH_REQUIRE_LABS:-0}" != 1 ] || {
        echo "FAILED: $*"
        exit 1
    }
    echo "skipped: $*"
    exit 77
}

# PACKAGES.sh PROGRAM...: installed by that script of deploy/.
need_program() {
    by=$1
    shift
    for program in "$@"; do
        command -v "$program" >/dev/null || missing "needs $program: run deploy/$by"
    done
}

# Makes the package: $package.
make_package() {
    need_program packages-serve.sh cpack dpkg-shlibdeps file
    if ! (cd "$build" && cpack -G DEB -B "$work/package") >"$work/log" 2>&1; then
        fail "cpack: $(tail -n 20 "$work/log")"
        exit 1
    fi
    package=$(echo "$work"/package/*.deb)
}

# A Debian 12 with nothing in it, as an archive that is made once and kept beside the builds: $debian.
fetch_debian() {
    need_program packages-serve.sh debootstrap
    [ "$(id -u)" -eq 0 ] || missing "needs root, to make a Debian"
    debian=$source/build/debian-12.tar
    (
        flock 9
        [ ! -s "$debian" ] || exit 0
        debootstrap --variant=minbase bookworm "$work/debian" >"$work/log" 2>&1 &&
            tar -C "$work/debian" -cf "$debian.part" . && mv "$debian.part" "$debian"
    ) 9>"$debian.lock" || missing "debootstrap found no Debian: $(tail -n 1 "$work/log")"
    rm -rf "$work/debian"
}

# ROOT PACKAGE...: unpacks that Debian and installs into it the package that was made, and these.
install_debian() {
    root=$1
    shift
    fetch_debian
    mkdir "$root"
    tar -C "$root" -xf "$debian"
    cp "$package" "$root/tmp/hearth.deb"
    cp /etc/resolv.conf "$root/etc/" # the archive may be older than that
    chroot "$root" apt-get update -q -o APT::Update::Error-Mode=any >"$work/log" 2>&1 ||
        missing "Debian's packages cannot be had: $(tail -n 1 "$work/log")"
    if ! chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
        -o Dpkg::Options::=--force-unsafe-io /tmp/hearth.deb "$@" >"$work/log" 2>&1; then
        fail "the package cannot be installed: $(tail -n 5 "$work/log")"
        exit 1
    fi
}

# FILE: a tiny model whose chat template is nobody's, so that Jinja writes its chats. The key comes before all others,
# and takes whole units of alignment, so that nothing else in the file changes.
make_model() {
    python3 - "$source/tests/vectors/tiny-q4_k.gguf" "$1" <<'END'
import sys
model = open(sys.argv[1], "rb").read()
key = b"tokenizer.chat_template"
text = b"{% for m in messages %}{{ m.role | upper }}: {{ m.content }}\n{% endfor %}ASSISTANT:"
text += b"{# #}".ljust(5 + -(len(text) + 5 + len(key) + 20) % 32, b"\n")
size = lambda n: n.to_bytes(8, "little")
keys = int.from_bytes(model[16:24], "little")
entry = size(len(key)) + key + (8).to_bytes(4, "little") + size(len(text)) + text
assert len(entry) % 32 == 0
open(sys.argv[2], "wb").write(model[:16] + size(keys + 1) + entry + model[24:])
END
}

# WHAT PROMPT TOKENS COMMAND...: asks the server that $work/log gives the address of, in 20 s; COMMAND brings the log up
# to date.
ask_until_answered() {
    what=$1 prompt=$2 n=$3
    shift 3
    tries=0
    until "$@" && url=$(sed -n 's,.*\(http://[0-9.:]*\).*,\1,p' "$work/log" | head -n 1) && [ -n "$url" ] &&
        printf '%s\n' "$prompt" | "$hearth" chat --url "$url" -n "$n" -q >"$work/out" 2>"$work/answer"; do
        tries=$((tries + 1))
        if [ $tries -gt 100 ]; then
            fail "no answer from $what: $(cat "$work/log" "$work/answer")"
            break
        fi
        sleep 0.2
    done
}
