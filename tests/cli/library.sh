# shellcheck shell=sh
# What the command-line tests share; each is started as `sh NAME_test.sh HEARTH` and sources this.
hearth=$1
model=${HEARTH_TEST_MODEL:-}
failures=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A test that needs a model is skipped without one.
need_model() {
    if [ ! -f "$model" ]; then
        echo "skipped: HEARTH_TEST_MODEL names no model"
        exit 77
    fi
}

# Runs hearth; leaves its exit status in $status and what it printed in $out and $err.
hearth() {
    "$hearth" "$@" >"$work/out" 2>"$work/err" </dev/null
    status=$?
    out=$(cat "$work/out")
    err=$(cat "$work/err")
}

fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}

# WHAT EXPECTED FOUND
equal() {
    [ "$2" = "$3" ] || fail "$1: expected '$2', found '$3'"
}

# WHAT PATTERN TEXT; the pattern is the shell's.
like() {
    # shellcheck disable=SC2254 # it is a pattern on purpose
    case $3 in
    $2) ;;
    *) fail "$1: expected something like '$2', found '$3'" ;;
    esac
}

# STATUS PATTERN ARGUMENT...: hearth must end with the status, print nothing on standard output, and say one line about
# it that is like the pattern.
refuses() {
    expected=$1 pattern=$2
    shift 2
    hearth "$@"
    equal "exit status of hearth $*" "$expected" "$status"
    equal "standard output of hearth $*" "" "$out"
    errors=$(grep -c "error: " "$work/err")
    equal "error lines of hearth $*" 1 "$errors"
    # shellcheck disable=SC2254
    case $err in
    $pattern) ;;
    *) fail "hearth $*: expected '$pattern', found '$err'" ;;
    esac
}

finish() {
    [ "$failures" -eq 0 ] || exit 1
    echo "passed"
}
