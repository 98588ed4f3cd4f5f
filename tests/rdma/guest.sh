# shellcheck shell=sh
# What a guest runs (guests.sh fills in the first two lines): makes the RDMA device, and then the command in guest 1,
# and what agent.sh asks for in guest 2.
guests=
work=
guest=$1
export work

ip link set lo up
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
if [ "$guests" -eq 1 ]; then
    ip link add eth0 type dummy
else
    echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad
fi
ip link set eth0 mtu 9000 up
ip addr add "10.88.0.$guest/24" dev eth0
rdma link add rxe0 type rxe netdev eth0 || exit 125
# Index 0 is the address that begins with fe80, 1 the IPv4 one; they come when they come.
tries=0
while [ $tries -lt 50 ]; do
    case $(cat /sys/class/infiniband/rxe0/ports/1/gids/1) in
    *:ffff:*) break ;;
    esac
    sleep 0.1
    tries=$((tries + 1))
done

if [ "$guest" -eq 1 ]; then
    sh "$work/command" >"$work/out" 2>"$work/err" </dev/null
    exit
fi
touch "$work/jobs/ready"
while :; do
    for job in "$work"/jobs/*.run; do
        [ -f "$job" ] || continue
        mv "$job" "${job%.run}.sh"
        { sh "${job%.run}.sh" >"${job%.run}.out" 2>&1 </dev/null; echo $? >"${job%.run}.part" &&
            mv "${job%.run}.part" "${job%.run}.status"; } &
    done
    sleep 0.1
done
