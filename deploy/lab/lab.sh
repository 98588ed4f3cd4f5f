#!/bin/sh
# Several hosts on one machine: each is a network namespace with an address of its own, a wire of the chosen bandwidth
# joins them, and one process of a command runs on each under mpirun. README.md beside it says more.
set -u

usage() {
    cat <<'USAGE'
Usage: sh lab.sh [-n HOSTS] [-b RATE] [--] COMMAND [ARGUMENT...]
Runs COMMAND under mpirun, one rank on each of several hosts that are network namespaces of this machine.

  -n HOSTS    how many hosts, 1 to 250 (default 2)
  -b RATE     bandwidth of each host, the same in both directions, as tc writes it: 10gbit, 100mbit (default 1gbit)
  -h, --help  this text

For example:  sh lab.sh -n 2 -b 10gbit -- hearth bench -m model.gguf
Needs root and Debian's iproute2 and openmpi-bin. Ends with mpirun's exit status, or with 2 if the command line is wrong
and 77 if this machine cannot do it. Nothing of it is left afterwards, whatever the command does.
USAGE
}

wrong() {
    echo "lab.sh: error: $*" >&2
    exit 2
}

unable() {
    echo "lab.sh: $*" >&2
    exit 77
}

hosts=2 rate=1gbit
while [ $# -gt 0 ]; do
    case $1 in
    -n) hosts=${2-} ;;
    -b) rate=${2-} ;;
    -h | --help) usage && exit 0 ;;
    --) shift && break ;;
    -*) wrong "there is no option '$1' (--help lists them)" ;;
    *) break ;;
    esac
    shift $(($# > 1 ? 2 : 1))
done
[ $# -gt 0 ] || wrong "there is no command to run (see --help)"
case $hosts in
'' | 0* | *[!0-9]* | ????*) wrong "the number of hosts is '$hosts', expected 1 to 250" ;;
esac
[ "$hosts" -le 250 ] || wrong "the number of hosts is '$hosts', expected 1 to 250"
number=${rate%[kmg]bit}
case $number in
'' | 0* | *[!0-9]* | "$rate" | ???????*)
    wrong "the bandwidth is '$rate', expected one like 10gbit, 100mbit or 500kbit" ;;
esac
case $rate in
*kbit) kbit=$number ;;
*mbit) kbit=$((number * 1000)) ;;
*) kbit=$((number * 1000000)) ;;
esac

PATH=$PATH:/usr/sbin:/sbin
[ "$(id -u)" -eq 0 ] || unable "needs root, to make network namespaces"
for program in ip tc mpirun unshare; do
    command -v $program >/dev/null || unable "needs $program: install iproute2, openmpi-bin and util-linux"
done

# Everything lives in namespaces of this lab's own (the bridge too), so that no address or interface of this machine or
# of another lab can be in the way, and removing the namespaces removes all.
lab=hearthlab$$
work=$(mktemp -d)
job=

processes() {
    for i in $(seq 0 "$hosts"); do
        ip netns pids "$lab-$i"
    done 2>/dev/null
}

# mpirun ends its ranks when it is told to. What does not end is killed: a process would keep its namespace in being.
clean_up() {
    trap '' HUP INT TERM
    [ -z "$job" ] || kill -TERM "$job" 2>/dev/null
    tries=0
    while [ -n "$(processes)" ] && [ "$tries" -lt 12 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    for pid in $(processes); do
        kill -KILL "$pid" 2>/dev/null
    done
    for i in $(seq 0 "$hosts"); do
        ip netns del "$lab-$i" 2>/dev/null
    done
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# A message up to the bucket's size leaves at once, so it is small: what the wire carries in 0.1 ms, and no less than
# the longest packet that a veth passes on.
burst=$((kbit / 80))
[ "$burst" -ge 66000 ] || burst=66000

limit() { # HOST_NUMBER INTERFACE; of what leaves by it
    tc -n "$lab-$1" qdisc add dev "$2" root tbf rate "$rate" burst "$burst" latency 100ms
}

# Namespace 0 is the switch, where mpirun itself runs too; 1 to n are the hosts.
build() {
    ip netns add "$lab-0" && ip -n "$lab-0" link set lo up &&
        ip -n "$lab-0" link add bridge type bridge && ip -n "$lab-0" link set bridge up &&
        ip -n "$lab-0" addr add 10.10.10.254/24 dev bridge || return
    for i in $(seq "$hosts"); do
        ip netns add "$lab-$i" && ip -n "$lab-$i" link set lo up &&
            ip -n "$lab-0" link add port"$i" type veth peer name eth0 netns "$lab-$i" &&
            ip -n "$lab-0" link set port"$i" master bridge up &&
            ip -n "$lab-$i" addr add 10.10.10."$i"/24 dev eth0 && ip -n "$lab-$i" link set eth0 up &&
            limit 0 port"$i" && limit "$i" eth0 || return
        echo "host$i slots=1" >>"$work/hosts"
    done
}
build || unable "cannot make network namespaces, a bridge, veth and tbf here"

# What mpirun starts instead of ssh: agent HOST COMMAND...
cat >"$work/agent" <<END
#!/bin/sh
host=\$1
shift
exec ip netns exec "$lab-\${host#host}" unshare --uts sh -c "hostname \$host && \$*"
END
chmod +x "$work/agent"

# Ranks must meet over the wire although they share a machine, and wait politely where they share a core.
idle=0
[ "$hosts" -le "$(nproc)" ] || idle=1
net=10.10.10.0/24
exec 3<&0
ip netns exec "$lab-0" mpirun --allow-run-as-root -np "$hosts" --hostfile "$work/hosts" --bind-to none \
    --mca plm_rsh_agent "$work/agent" --mca orte_tmpdir_base "$work" --mca oob_tcp_if_include $net \
    --mca pml ob1 --mca btl tcp,self --mca btl_tcp_if_include $net --mca mpi_yield_when_idle $idle \
    "$@" <&3 3<&- &
job=$!
wait "$job"
code=$?
job=
exit "$code"
