# What tools/hardware-host.sh has its host check, as root under its systemd: a line for each, "pass" or "FAIL",
# a failed one with what was said.
export HOME=/root LC_ALL=C
readonly world=10.0.2.100

# check NAME COMMAND...
check() {
  local name=$1 said
  shift
  if said=$("$@" 2>&1); then
    echo "pass $name"
  else
    echo "FAIL $name"
    sed 's/^/     | /' <<< "$said"
  fi
}
# says WANTED COMMAND...: the command's output is that.
says() {
  local wanted=$1 said
  shift
  said=$("$@" 2>&1)
  [[ $said == "$wanted" ]] || { echo "$said"; return 1; }
}
has() {
  local wanted=$1 said
  shift
  said=$("$@" 2>&1)
  [[ $said == *"$wanted"* ]] || { echo "$said"; return 1; }
}
# By the fabric: it counts what goes to addresses that nobody may reach.
fixed_count() { cube --json net stats | jq .reasons.fixed; }
is_refused() {
  local before said
  before=$(fixed_count)
  said=$(in_sandbox "$1" "wget -q -O - $2" 2>&1) && { echo "it was let through: $said"; return 1; }
  (($(fixed_count) > before)) || { echo "$said, and the fabric knows nothing of it"; return 1; }
}
create() { cube sandbox create "$@" --timeout 3000; }
in_sandbox() { cube sandbox exec "$1" -- /bin/sh -c "$2"; }
cgroup_of() { echo /sys/fs/cgroup/cube/*/"$1"; }
state() { cube sandbox ls | awk -v id="$1" '$1 == id {print $3}'; }
main_pid() { systemctl show -p MainPID --value cubed; }
# await COMMAND...: until it succeeds, a minute at most.
await() {
  for ((i = 0; i < 120; ++i)); do
    "$@" > /dev/null 2>&1 && return
    sleep 0.5
  done
  return 1
}
await_fails() { await eval "! $1"; }

echo "     $(uname -r), $(systemctl --version | head -n 1), $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)"
check "KVM has nested paging" grep -q '[Y1]' /sys/module/kvm_amd/parameters/npt
check "cgroups are of version 2 alone" says cgroup2fs stat -fc %T /sys/fs/cgroup
check "ring 0 is the processor's" has 'runs guest ring 0 in hardware' cube-vmm host
check "a machine runs" says 'from 42' cube-vmm run --memory 128 -- /bin/sh -c 'echo from $((40 + 2))'
check "ring 0 of it is native" has '"ring0":"native"' cube-vmm run --json --memory 128 -- /bin/true
check "two processors" says 2 cube-vmm run --memory 128 --cpus 2 -- /bin/grep -c ^processor /proc/cpuinfo
check "a template" cube template build base --memory 128 --net cube
check "a clone" says cloned cube-vmm clone base -- /bin/echo cloned

sed -i "s/^# enabled = false.*/enabled = true\nexceptions = [\"$world\/32\"]/; s/^\[pool\]/[jail]\nio_mib_per_second = 20\n[pool]/" \
  /etc/cube/cubed.toml
check "the configuration" cubed check-config /etc/cube/cubed.toml
check "the unit starts" systemctl start cubed
check "the network is on" cube net list
id=$(create base --limit-cpus 0.5 --limit-memory 300)
check "a sandbox" says running state "$id"
check "its commands" says 'from 42' in_sandbox "$id" 'echo from $((40 + 2)); echo kept > /tmp/kept'
check "memory.max" says 314572800 cat "$(cgroup_of "$id")/memory.max"
check "cpu.max" says '50000 100000' cat "$(cgroup_of "$id")/cpu.max"
check "pids.max" says 64 cat "$(cgroup_of "$id")/pids.max"
check "io.max" has 'rbps=20971520 wbps=20971520' cat "$(cgroup_of "$id")/io.max"
check "its policy" cube net policy "$id" --allow "$world"
check "it reaches what it may" says 'from the world' in_sandbox "$id" "wget -q -O - http://$world/"
check "it is refused what it may not" is_refused "$id" http://10.0.2.2/
check "pause" cube sandbox pause "$id"
check "its cgroup goes with the process" await test ! -e "$(cgroup_of "$id")"
check "resume" cube sandbox resume "$id"
check "it goes on" says kept in_sandbox "$id" 'cat /tmp/kept'
check "fork" cube sandbox fork "$id"
fork=$(cube sandbox ls | awk -v id="$id" 'NR > 1 && $1 != id {print $1; exit}')
check "the fork has what it had" says kept in_sandbox "$fork" 'cat /tmp/kept'
check "snapshot" cube sandbox snapshot "$id" --name one
in_sandbox "$id" 'echo lost > /tmp/kept'
check "rollback" cube sandbox rollback "$id" "$(cube snapshot ls | awk 'NR == 2 {print $1}')"
check "it is as it was" says kept in_sandbox "$id" 'cat /tmp/kept'

check "restart" timeout 20 systemctl restart cubed
check "a sandbox outlives it" says again in_sandbox "$id" 'echo again'
killed=$(main_pid)
kill -9 "$killed"
check "systemd starts a killed one again" await eval "[[ \$(main_pid) != $killed ]] && cube status"
check "a sandbox outlives that" says again in_sandbox "$id" 'echo again'
for ((i = 0; i < 3; ++i)); do
  systemctl kill -s KILL cubed
  await eval "[[ \$(systemctl show -p SubState --value cubed) == start ]]"
  systemctl stop cubed
  systemctl reset-failed cubed 2> /dev/null
  systemctl start cubed
done
check "and one that is stopped as it starts" says again in_sandbox "$id" 'echo again'
check "stop" systemctl stop cubed
check "machines go on" grep -q . "$(cgroup_of "$id")/cgroup.procs"
check "nothing of the unit's is left" await test ! -s /sys/fs/cgroup/system.slice/cubed.service/cgroup.procs
systemctl start cubed
check "both are found" eval "says running state $id && says running state $fork"
check "kill" cube sandbox kill "$id"
check "its cgroup is gone" await test ! -e "$(cgroup_of "$id")"
check "drain" cube down
check "all that the node made is gone" await_fails "ls -d /sys/fs/cgroup/cube/*/"
check "nothing was said to be nobody's" await_fails "journalctl -u cubed | grep \"nobody's\""
journalctl -u cubed --no-pager -o cat | grep -E 'warning|error' | sed 's/^/     | /'
echo "all checks were made"
