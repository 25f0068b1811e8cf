# Runs a command with --process-id 0 and with --process-id 1, each on what it takes for a machine of
# its own: two network namespaces that a cable joins, 10.0.0.1 and 10.0.0.2. To be started by
#
#     unshare --user --map-root-user --net --uts --mount bash two_machines.sh SCRATCH COMMAND...
#
# Whoever makes the file SCRATCH/cut cuts the cable.
set -e
scratch=$1
shift
if [ "$scratch" = second ]; then
    hostname second
    read -r # until the cable is plugged in
    ip link set lo up
    ip address add 10.0.0.2/24 dev right
    ip link set right up
    exec "$@" --process-id 1
fi
printf '%s\n' '127.0.0.1 localhost' '10.0.0.1 first' '10.0.0.2 second' > "$scratch/hosts"
mount --bind "$scratch/hosts" /etc/hosts
hostname first
ip link add left type veth peer name right
mkfifo "$scratch/start"
unshare --net --uts bash "$0" second "$@" < "$scratch/start" &
second=$!
exec 3> "$scratch/start"
until [ "$(readlink /proc/$second/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
ip link set right netns $second
ip link set lo up
ip address add 10.0.0.1/24 dev left
ip link set left up
echo >&3
(until [ -e "$scratch/cut" ]; do sleep 0.1; done && ip link set left down) &
cutter=$!
first_status=0 second_status=0
"$@" --process-id 0 || first_status=$?
wait $second || second_status=$?
kill $cutter
exit $((first_status || second_status))
