#!/bin/sh
# Fails when two files of a room call each other, directly or round about: who reads one would have to read both.
#   circles_test.sh LIBRARY...   the rooms' static libraries
set -eu

# LIBRARY; a line "FILE FILE" for each file that uses something of another.
uses() {
    nm "$1" | awk '
        /\.o:$/ { file = $1 }
        NF == 2 && $1 == "U" { n++; user[n] = file; used[n] = $2 }
        NF == 3 && $2 ~ /[TDBR]/ { definer[$3] = file }
        END {
            for (i = 1; i <= n; i++)
                if (used[i] in definer && definer[used[i]] != user[i])
                    print user[i], definer[used[i]]
        }'
}

failed=0
for library in "$@"; do
    uses "$library" | tsort >/dev/null || { echo "in $library"; failed=1; }
done
exit $failed
