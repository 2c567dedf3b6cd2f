#!/usr/bin/env bash
# package_test.sh PACKAGE: what is in it, and that what is in it works: from a folder it is installed to, a node
# comes up under the unit's restrictions, makes a sandbox in a jail, and outlives its daemon.
set -euo pipefail
export LC_ALL=C
deb=$(realpath "$1")
work=$(mktemp -d /tmp/cube-package-XXXXXX)
root=$work/root
devices=/sys/fs/cgroup/devices/${work##*/}
fail() { echo "package_test: $*" >&2; exit 1; }
cube() { "$root/usr/bin/cube" --home "$root/var/lib/cube" "$@"; }
end() {
  if [[ -S $root/var/lib/cube/cubed.sock ]]; then
    cube sandbox ls | awk 'NR > 1 {print $1}' | while read -r id; do cube sandbox kill "$id"; done
    cube down
  fi
  if [[ -d $devices ]]; then
    while read -r pid; do tail --pid="$pid" -f /dev/null; done < "$devices/tasks"
    rmdir "$devices"
  fi
  rm -rf "$work"
}
trap end EXIT

info=$(dpkg-deb --info "$deb")
for what in 'Package: cube$' 'Architecture: amd64$' 'Depends: .*libc6' 'conffiles' 'postinst'; do
  grep -qE "$what" <<< "$info" || fail "--info lacks $what"
done
contents=$(dpkg-deb --contents "$deb")
for what in ./usr/libexec/cube/{cube,cubed,cube-vmm,cube-jail,cube-template} ./usr/lib/cube/images/{vmlinux,System.map,initramfs.cpio,agent-initramfs.cpio} \
  ./etc/cube/cubed.toml ./lib/systemd/system/cubed.service ./usr/share/man/man8/cubed.8.gz ./usr/share/doc/cube/node.md \
  ./usr/share/bash-completion/completions/cube ./usr/share/zsh/vendor-completions/_cube ./usr/share/fish/vendor_completions.d/cube.fish; do
  grep -qF " $what" <<< "$contents" || fail "--contents lacks $what"
done
! grep -vE ' root/root ' <<< "$contents" || fail "a file is not root's"

# With a dpkg of its own, which knows no other packages.
mkdir -p "$root/var/lib/dpkg"/{info,updates} && : > "$root/var/lib/dpkg/status"
dpkg --root="$root" --force-depends --force-not-root --force-script-chrootless -i "$deb" > "$work/log" 2>&1 || fail "$(cat "$work/log")"
echo '# mine' >> "$root/etc/cube/cubed.toml"
dpkg --root="$root" --force-depends --force-script-chrootless --force-confold -i "$deb" > "$work/log" 2>&1 || fail "$(cat "$work/log")"
grep -q '^# mine' "$root/etc/cube/cubed.toml" || fail "the configuration was replaced"
"$root/usr/bin/cubed" check-config "$root/etc/cube/cubed.toml" > /dev/null
systemd-analyze verify --root="$root" --man=no cubed.service 2>&1 | grep -E 'cubed\.service:[0-9]+' \
  && fail "systemd does not understand the unit"

# As the unit has it: these capabilities, no new privileges, and these devices, where a controller of cgroup v1
# can say so (systemd.resource-control(5): what "closed" leaves). It tells when it is ready.
unit=$root/lib/systemd/system/cubed.service
capabilities=$(sed -n 's/^CapabilityBoundingSet=//p' "$unit" | tr ' ' '\n' | sed 's/^CAP_/+/' | tr 'A-Z\n' 'a-z,')
sed -i "s#^vmm = .*#vmm = \"$root/usr/bin/cube-vmm\"#; s#^home = .*#home = \"$root/var/lib/cube\"#" "$root/etc/cube/cubed.toml"
cube template build base --memory 128 > "$work/log" 2>&1 || fail "$(cat "$work/log")"
if mkdir "$devices" 2> /dev/null && echo a > "$devices/devices.deny"; then
  for one in 'c 1:3' 'c 1:5' 'c 1:7' 'c 1:8' 'c 1:9' 'c 5:0' 'c 5:2'; do echo "$one rwm" > "$devices/devices.allow"; done
  echo 'c 136:* rw' > "$devices/devices.allow"
  sed -n 's/^DeviceAllow=//p' "$unit" | while read -r node access; do
    [[ ! -c $node ]] || echo "c $((0x$(stat -c %t "$node"))):$((0x$(stat -c %T "$node"))) $access" > "$devices/devices.allow"
  done
fi
cat > "$work/notified.py" <<'PY'
import os, socket, subprocess, sys
if os.path.exists(sys.argv[3]):
    open(sys.argv[3], "w").write(str(os.getpid()))
listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
listener.bind(sys.argv[1])
subprocess.Popen(sys.argv[4:], env={**os.environ, "NOTIFY_SOCKET": sys.argv[1]}, start_new_session=True,
                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=open(sys.argv[2], "ab"))
listener.settimeout(120)
assert listener.recv(100) == b"READY=1"
PY
start() {
  rm -f "$work/notify"
  python3 "$work/notified.py" "$work/notify" "$work/cubed.log" "$devices/tasks" setpriv --no-new-privs --bounding-set="-all,${capabilities%,}" \
    "$root/usr/bin/cubed" --config "$root/etc/cube/cubed.toml" --listen 127.0.0.1:0 || fail "$(cat "$work/cubed.log")"
}
start
id=$(cube sandbox create base)
[[ $(cube sandbox exec "$id" -- /bin/sh -c 'echo from $((40 + 2))') == 'from 42' ]] || fail "exec"
pid=$(cube --json status | python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])')
http=$(cube --json status | python3 -c 'import json, sys; print(json.load(sys.stdin)["http"])')
python3 - "$http" <<'PY'
import sys, urllib.request
assert b"<title>Cube</title>" in urllib.request.urlopen("http://" + sys.argv[1] + "/").read()
PY
grep -q "^NoNewPrivs:.1" "/proc/$pid/status" || fail "no_new_privs"
# KillMode=process: the daemon alone ends.
kill "$pid"
tail --pid="$pid" -f /dev/null
start
[[ $(cube --json sandbox info "$id" | python3 -c 'import json, sys; print(json.load(sys.stdin)["sandbox"]["state"])') == running ]] \
  || fail "the sandbox has not outlived the daemon"
[[ $(cube sandbox exec "$id" -- /bin/echo again) == again ]] || fail "exec after a restart"
echo "ok"
