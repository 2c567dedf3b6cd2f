#!/bin/bash
# Builds a guest's root disk, or takes it from the cache, and prints the path of the image.
#
#   build-rootfs.sh debian|code|bench
#
# debian: Debian 12, small, with Python 3, for sandboxes. code: the same and what the code interpreter
# and the users of an E2B sandbox expect: IPython with numpy, pandas and matplotlib, Node, esbuild, git,
# pip, sudo without a password. bench: debian and what benchmarks run in a guest. An ext4 of 2 GiB, or
# 4 for code, most of it free and sparse. The agent is not in it: it comes with the VMM's initramfs
# (guestkernel/agent/root_disk.h).
#
# Packages come from the Debian 12 sources this machine's apt is set up with. A build takes minutes,
# so its result is kept outside the checkout, under ${CUBE_HOME:-/var/lib/cube}/cache/rootfs/KEY. The
# key covers this script and the machine's Debian release; remove the folder for newer packages.
set -euo pipefail
export LC_ALL=C

readonly program=build-rootfs
source "$(dirname "$(readlink -f "$0")")/lib/cache.sh"

readonly kSuite=bookworm
readonly kPackages=(python3 ca-certificates curl procps iproute2 iputils-ping)
# munkres: matplotlib needs it or scipy, which needs compilers.
readonly kCodePackages=(
  python3-ipykernel python3-numpy python3-pandas python3-matplotlib python3-munkres python3-pip
  python3-venv python-is-python3 nodejs esbuild git sudo less vim-tiny wget unzip)
readonly kBenchPackages=(fio iperf3)
readonly kHooks=/usr/share/mmdebstrap/hooks/merged-usr
# What apt and dpkg are to leave out of the image, now and in the guest.
readonly kDpkgOptions=(
  'path-exclude=/usr/share/doc/*' 'path-include=/usr/share/doc/*/copyright'
  'path-exclude=/usr/share/man/*' 'path-exclude=/usr/share/info/*'
  'path-exclude=/usr/share/locale/*' 'path-exclude=/usr/share/lintian/*'
  'force-unsafe-io')  # a sandbox's disk is as durable as the sandbox

check_tools() {
  need mmdebstrap mmdebstrap
  need mke2fs e2fsprogs
  need apt-get apt
  need flock util-linux
  [[ -d $kHooks ]] || fail "$kHooks is missing: apt-get install mmdebstrap"
}

cache_key() {
  {
    echo "$name"
    dpkg-query -W -f '${Version}\n' base-files 2> /dev/null || echo "no package"
    cat "$0"
  } | sha256sum | cut -d ' ' -f 1
}

# The lines of a sources.list by which this machine's apt gets Debian 12; not what else it gets.
debian_sources() {
  apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' \
    | grep -E "^deb [^ ]+ $kSuite(-[a-z-]+)? " | sort -u
}

# What this machine's apt needs to reach them, and what holds for the build only. mmdebstrap's apt does
# not read the machine's configuration, and the guest is not to keep it. Recommended packages would be
# compilers, debuggers and documentation: half of the image.
write_apt_access() {
  apt-config dump --format '%F "%v";%n' Acquire::http Acquire::https > "$1"
  echo 'APT::Install-Recommends "false";' >> "$1"
}

# Not of /proc in it, where a look at the wrong time keeps it from being unmounted.
megabytes() {
  echo "$(du -smx "$1" 2> /dev/null | cut -f 1) MiB of files"
}

# What an image of the code interpreter has besides its packages. pip may install for the machine:
# nothing else manages it. matplotlib looks for fonts once, here.
set_up_code() {
  local tree=$1
  echo 'user ALL=(ALL:ALL) NOPASSWD: ALL' > "$tree/etc/sudoers.d/user"
  chmod 0440 "$tree/etc/sudoers.d/user"
  rm -f "$tree"/usr/lib/python3*/EXTERNALLY-MANAGED
  chroot "$tree" su -l user -c "python3 -c 'import matplotlib.font_manager'"
}

make_tree() {
  local tree=$1 work=$2 packages=("${kPackages[@]}") sources options=() option
  [[ $name != bench ]] || packages+=("${kBenchPackages[@]}")
  [[ $name != code ]] || packages+=("${kCodePackages[@]}")
  mapfile -t sources < <(debian_sources)
  if ((${#sources[@]} == 0)); then
    # The lists apt knows its sources by are often removed from images of machines.
    apt-get update > "$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; fail "apt-get update failed"; }
    mapfile -t sources < <(debian_sources)
  fi
  ((${#sources[@]} > 0)) || fail "no source of Debian 12 ($kSuite) in /etc/apt"
  for option in "${kDpkgOptions[@]}"; do options+=("--dpkgopt=$option"); done
  write_apt_access "$work/access"
  # Languages: translated descriptions of packages are a third of what apt-get update loads.
  mmdebstrap --mode=root --variant=minbase --format=directory --hook-dir="$kHooks" \
    --include="$(IFS=,; echo "${packages[*]}")" --aptopt='Acquire::Languages "none"' \
    "${options[@]}" \
    --setup-hook="copy-in '$work/access' /etc/apt/apt.conf.d" \
    --customize-hook='rm "$1/etc/apt/apt.conf.d/access"' \
    --customize-hook='chroot "$1" useradd --create-home --uid 1000 --shell /bin/bash user' \
    "$kSuite" "$tree" "${sources[@]}" > "$work/log" 2>&1 \
    || { tail -n 20 "$work/log" >&2; fail "mmdebstrap failed"; }
}

# What a login shell does at its start it does for every command that a client of a sandbox runs, and a
# process it starts for that takes longer than the shell itself where ring 0 is emulated: Bash knows who
# it runs as, and no one writes to a terminal that is not there.
quicken_login() {
  local tree=$1
  sed -i 's/"$(id -u)"/"${EUID:-$(id -u)}"/' "$tree/etc/profile"
  sed -i 's/^mesg n /[ ! -t 0 ] || &/' "$tree/root/.profile"
  # Another Debian's files may say it otherwise.
  grep -q 'EUID:-' "$tree/etc/profile" || fail "/etc/profile has no \$(id -u) to be replaced"
}

# What the machine that built the tree left in it, and what a guest is called. Names are looked up
# at servers only when the network's set-up names some.
finish_tree() {
  local tree=$1
  echo cube > "$tree/etc/hostname"
  printf '127.0.0.1 localhost cube\n::1 localhost ip6-localhost ip6-loopback\n' > "$tree/etc/hosts"
  : > "$tree/etc/resolv.conf"
  echo LANG=C.UTF-8 > "$tree/etc/default/locale"
  rm -rf "$tree"/dev/* "$tree"/var/log/{apt,dpkg.log,alternatives.log,bootstrap.log} \
    "$tree"/var/cache/debconf/*-old "$tree"/var/cache/ldconfig/aux-cache "$tree"/var/lib/dpkg/*-old \
    "$tree"/etc/{passwd,group,shadow,gshadow,subuid,subgid}-
}

# Nothing is left to be done at the first mount or by a count of mounts: inode tables and journal
# are written here, and the checks by time are off. Journal: a crash leaves the files consistent.
make_image() {
  local uuid=c0be0000-0000-4000-8000-000000000001 size=2G bytes_an_inode=16384
  [[ $name != code ]] || size=4G bytes_an_inode=32768  # as many inodes, all of them written here
  mke2fs -q -t ext4 -b 4096 -i "$bytes_an_inode" -m 0 -L root -U "$uuid" -e remount-ro -J size=16 \
    -E "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,hash_seed=$uuid" \
    -d "$1" "$2" "$size" > "$3/log" 2>&1 || { tail -n 20 "$3/log" >&2; fail "mke2fs failed"; }
  chmod 0444 "$2"
}

# build OUT: makes OUT/root.ext4.
build() {
  local work=$1/work
  [[ $EUID == 0 ]] || fail "has to be run as root, to install packages into a folder"
  mkdir "$work"
  start_progress megabytes "$work/tree"
  make_tree "$work/tree" "$work"
  if [[ $name == code ]]; then
    set_up_code "$work/tree" > "$work/log" 2>&1 \
      || { tail -n 20 "$work/log" >&2; fail "the image of the code interpreter could not be set up"; }
  fi
  quicken_login "$work/tree"
  finish_tree "$work/tree"
  make_image "$work/tree" "$1/root.ext4" "$work"
}

# For its test: `--key NAME` prints the key.
if [[ ${1-} == --key ]]; then
  name=$2
  cache_key
  exit
fi

[[ $# == 1 && $1 =~ ^(debian|code|bench)$ ]] || fail "usage: build-rootfs.sh debian|code|bench"
name=$1
check_tools
cached rootfs "$(cache_key)" build
echo "$entry/root.ext4"
