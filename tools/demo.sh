#!/usr/bin/env bash
# From a checkout to a command's output from inside a microVM. Arguments: the command to run there.
set -euo pipefail
cd "$(dirname "$0")/.."
export CUBE_HOME=${CUBE_HOME:-/var/lib/cube}
[ $# -gt 0 ] || set -- /bin/sh -c 'echo "hello from $(uname -sr) on $(nproc) vCPU"'

seconds() { date +%s.%N; }
t0=$(seconds)
echo "== packages" >&2
tools/setup.sh
t1=$(seconds)
echo "== building cube-vmm" >&2
bazel build //vmm/cli:cube-vmm >&2
t2=$(seconds)
echo "== guest kernel and root file system (the first time: several minutes)" >&2
tools/images.sh
t3=$(seconds)
vmm=bazel-bin/vmm/cli/cube-vmm
"$vmm" host | tail -n 1 >&2
echo "== running: $*" >&2
report=$(mktemp)
trap 'rm -f "$report"' EXIT
status=0
"$vmm" run --json -- "$@" >"$report" </dev/null || status=$?
t4=$(seconds)
python3 - "$report" "$t0" "$t1" "$t2" "$t3" "$t4" <<'PY'
import base64, json, sys
t = [float(x) for x in sys.argv[2:]]
result = None
for line in open(sys.argv[1]):
    event = json.loads(line)
    if event["event"] == "exit":
        result = event
        continue
    data = event["text"].encode() if "text" in event else base64.b64decode(event["base64"])
    stream = sys.stdout if event["event"] == "stdout" else sys.stderr
    stream.buffer.write(data)
    stream.flush()
rows = [("packages", t[1] - t[0]), ("build", t[2] - t[1]), ("kernel, root file system", t[3] - t[2])]
if result:
    names = {"probe": "host probe", "create": "VM made, kernel loaded", "boot": "kernel boot to agent",
             "agent": "agent ready", "start": "command started", "command": "command ran"}
    rows += [(names[k], v / 1e3) for k, v in result["milliseconds"].items() if k in names]
rows.append(("all", t[4] - t[0]))
print()
for name, value in rows:
    print(f"{name:28} {value:10.3f} s")
if result and "reason" in result:
    print("cube-vmm: " + result["reason"], file=sys.stderr)
PY
exit "$status"
