#!/bin/bash
# build-rootfs.sh without its minutes: what it refuses, the cache, and builds with stand-ins for what
# loads and installs packages. The image is made by the real mke2fs.
set -euo pipefail
cd "$(dirname "$0")"
script=$PWD/build-rootfs.sh
source lib/script_test.sh

expect_error "usage:" "$script"
expect_error "usage:" "$script" windows
expect_error "usage:" "$script" debian more

# A machine without mke2fs.
link_programs "$scratch/bin" bash readlink dirname flock apt-get
ln -s /bin/true "$scratch/bin/mmdebstrap"
expect_error "mke2fs is missing: apt-get install e2fsprogs" \
  env PATH="$scratch/bin" "$script" debian

# The stand-ins: apt knows three sources of Debian 12 and two others; mmdebstrap says what it was
# asked for and makes a tree with what the machine would leave in it.
stand_ins=$scratch/stand-ins
mkdir "$stand_ins"
cat > "$stand_ins/apt-get" <<'EOF'
#!/bin/bash
[[ $1 == indextargets ]] || exit 0
[[ -z ${NO_SOURCES-} ]] || exit 0
cat <<'END'
deb http://mirror.test/debian/ bookworm main
deb http://mirror.test/debian/ bookworm main
deb http://mirror.test/debian/ bookworm-updates main
deb http://mirror.test/security/ bookworm-security main
deb http://other.test/ cloud-bookworm main
deb http://other.test/ nodistro main
END
EOF
cat > "$stand_ins/mmdebstrap" <<'EOF'
#!/bin/bash
echo built >> "$BUILDS"
printf '%s\n' "$@" > "$BUILDS.arguments"
[[ -z ${BREAK-} ]] || { echo "E: broken"; exit 1; }
sleep 1
while [[ $1 != bookworm ]]; do shift; done
tree=$2
mkdir -p "$tree"/{dev,etc/default,root,var/log/apt,var/cache/debconf,var/lib/dpkg,tmp}
chmod 1777 "$tree/tmp"
echo 'if [ "$(id -u)" -eq 0 ]; then' > "$tree/etc/profile"
echo 'mesg n 2> /dev/null || true' > "$tree/root/.profile"
echo nameserver 192.0.2.1 > "$tree/etc/resolv.conf"
touch "$tree/var/log/dpkg.log" "$tree/etc/passwd" "$tree/etc/passwd-" "$tree/dev/null"
EOF
chmod +x "$stand_ins"/*
PATH=$stand_ins:$PATH
export CUBE_HOME=$scratch/home BUILDS=$scratch/builds
: > "$BUILDS"

expect_error "set CUBE_HOME to a folder you may write to" \
  env CUBE_HOME=/dev/null "$script" debian
expect_error "no source of Debian 12 (bookworm) in /etc/apt" env NO_SOURCES=1 "$script" debian
expect_error "mmdebstrap failed" env BREAK=1 "$script" debian
[[ -z $(entries rootfs) ]] || fail "a failed build left something"

# Two builders at once make one image.
: > "$BUILDS"
"$script" debian > "$scratch/one" 2> /dev/null &
"$script" debian > "$scratch/two" 2> /dev/null
wait $!
expect_builds 1
cmp "$scratch/one" "$scratch/two" || fail "two builders, two paths"
image=$(cat "$scratch/one")
[[ $image == "$CUBE_HOME/cache/rootfs/$("$script" --key debian)/root.ext4" ]] || fail "path '$image'"
[[ $(ls "$(dirname "$image")") == root.ext4 ]] || fail "more than the image is kept"
[[ $("$script" debian) == "$image" && $(wc -l < "$BUILDS") == 1 ]] || fail "the cache is not used"

# Debian's sources, once each, and nobody else's.
[[ $(grep -c '^deb ' "$BUILDS.arguments") == 3 ]] || fail "$(grep '^deb ' "$BUILDS.arguments")"
! grep -q other.test "$BUILDS.arguments" || fail "a source that is not Debian's is used"
! grep -q 'fio' "$BUILDS.arguments" || fail "debian holds what only bench is to have"

# The image: clean, sparse, a journal, and nothing of this machine.
e2fsck -fn "$image" > "$scratch/fsck" 2>&1 || fail "$(cat "$scratch/fsck")"
[[ $(stat -c %s "$image") == $((2 << 30)) ]] || fail "size $(stat -c %s "$image")"
(($(stat -c %b "$image") < 200000)) || fail "$(stat -c %b "$image") blocks are written: not sparse"
[[ $(stat -c %a "$image") == 444 ]] || fail "mode $(stat -c %a "$image")"
features=$(dumpe2fs -h "$image" 2> /dev/null)
grep -q '^Filesystem features:.*has_journal' <<< "$features" || fail "no journal"
grep -q '^Maximum mount count: *-1' <<< "$features" || fail "checked by count of mounts"
grep -q '^Check interval: *0' <<< "$features" || fail "checked by time"
ask() { debugfs -R "$1" "$image" 2> /dev/null; }
[[ $(ask "cat /etc/hostname") == cube ]] || fail "hostname"
[[ $(ask "cat /etc/hosts") == *"127.0.0.1 localhost cube"* ]] || fail "hosts"
[[ $(ask "cat /etc/profile") == 'if [ "${EUID:-$(id -u)}" -eq 0 ]; then' ]] || fail "profile"
[[ $(ask "cat /root/.profile") == '[ ! -t 0 ] || mesg n 2> /dev/null || true' ]] || fail ".profile"
[[ -z $(ask "cat /etc/resolv.conf") ]] || fail "this machine's name servers are in the image"
! ask "ls /dev" | grep -q null || fail "device nodes are in the image"
! ask "ls /var/log" | grep -q -w -e apt -e dpkg.log || fail "logs of the build are in the image"
! ask "ls /etc" | grep -q -e 'passwd-' || fail "back-ups are in the image"
ask "stat /tmp" | grep -q 'Mode: *01777' || fail "/tmp"

# Another name is another image.
[[ $("$script" --key bench) != $("$script" --key debian) ]] || fail "the name is not in the key"
"$script" bench > /dev/null
grep -q 'python3,.*fio,iperf3' "$BUILDS.arguments" || fail "bench lacks its programs"
