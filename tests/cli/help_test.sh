#!/bin/sh
# Help: every option stands in its group.
. "$(dirname "$0")/library.sh"
commands="run chat serve bench perplexity tokenize inspect probe plan prepare"

# "OPTION HEADER" of every option that stands under a header in the help of a command; a header that no option follows
# is "(none) HEADER".
groups() {
    "$hearth" "$1" --help | awk '
        function leave() { if (header && empty) print "(none)", header; header = "" }
        /^$/ { leave() }
        /^ [A-Z].*:$/ { leave(); header = $0; empty = 1 }
        /^  (-., |    )--[a-z]/ && header {
            match($0, /--[a-z-]+/)
            print substr($0, RSTART, RLENGTH), header
            empty = 0
        }
        END { leave() }'
}

# No group is empty, and what several commands have stands in the same group everywhere.
for command in $commands; do
    groups $command
done | sort -u > "$work/groups"
equal "empty groups" "" "$(grep '^(none)' "$work/groups")"
for expected in "--ranks  Ranks:" "--shares  Ranks:" "--transport  Network:" "--temp  Sampling:" \
    "--sparse  Neurons:" "--gpu-index  GPUs:"; do
    like "groups of ${expected%% *}" "$expected" "$(grep -e "^${expected%% *} " "$work/groups")"
done
equal "options in two groups" "" "$(cut -d ' ' -f 1 "$work/groups" | uniq -d)"

# In the manual page they are headings, where help2man was there to make it.
page=$(dirname "$hearth")/hearth-run.1
[ ! -f "$page" ] || equal "headings of $page" "Neurons Ranks Network Sampling" \
    "$(sed -n 's/^\.SS "\([A-Z][a-z]*\):"$/\1/p' "$page" | paste -s -d ' ')"

finish
