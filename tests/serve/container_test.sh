#!/bin/sh
# The container file: its image is built, runs without any rights, answers, and ends when it is told to. The stage that
# compiles, for minutes, is left out: the package is the one of this build, and what it is put on a Debian 12 made here.
#   container_test.sh HEARTH        of a release build, in whose folder the package is made
. "$(dirname "$0")/library.sh"
. "$here/debian.sh"
need_program packages-serve.sh podman runc
need_program packages.sh python3

# No image and no container of this machine's is seen or changed. crun does not know how this machine may mount cgroups,
# runc does.
podman() {
    command podman --runtime runc --root "$work/storage" --runroot "$work/run" --storage-driver vfs \
        --cgroup-manager cgroupfs "$@"
}
trap 'podman rm -f -t 0 hearth >/dev/null 2>&1; rm -rf "$work"' EXIT

make_package
fetch_debian
mkdir -p "$work/made/src/build/release" "$work/models"
cp "$package" "$work/made/src/build/release/"
make_model "$work/models/model.gguf"
chmod -R a+rX "$work"
podman import -q "$debian" localhost/debian:12 >"$work/log" 2>&1 ||
    missing "podman does not work: $(tail -n 1 "$work/log")"
sed '/ AS build$/,/^$/d' "$source/deploy/Containerfile" >"$work/Containerfile"
if ! podman build --isolation chroot -f "$work/Containerfile" --build-arg BASE=localhost/debian:12 \
    --build-context build="$work/made" -t hearth "$source" >"$work/log" 2>&1; then
    fail "the image cannot be built: $(tail -n 20 "$work/log")"
    exit 1
fi

# The limits: podman's own are more than a machine may allow.
if ! podman run -d --name hearth --network host --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 --read-only \
    --cap-drop all --security-opt no-new-privileges -v "$work/models:/models:ro" \
    hearth -m /models/model.gguf --host 127.0.0.1 --port 0 >"$work/log" 2>&1; then
    missing "podman runs no container: $(tail -n 1 "$work/log")"
fi
read_log() {
    podman logs hearth >"$work/log" 2>&1
}
ask_until_answered "the container" "Good day." 12 read_log
pid=$(podman inspect -f '{{.State.Pid}}' hearth)
like "the user" "[1-9]*" "$(sed -n 's/^Uid:[[:space:]]*//p' "/proc/$pid/status")"
podman stop -t 40 hearth >"$work/log" 2>&1 || fail "podman stop: $(cat "$work/log")"
equal "the status of a container that was stopped" 0 "$(podman inspect -f '{{.State.ExitCode}}' hearth)"
finish
