#!/bin/bash
# Builds the guest kernel from Debian's unpatched source package, or takes it from the cache.
#
#   build-kernel.sh CONFIG VMLINUX BZIMAGE SYSTEM_MAP
#
# CONFIG is merged over allnoconfig; the other three are files to write. A build takes minutes, so
# its result is kept outside the checkout, under ${CUBE_HOME:-/var/lib/cube}/cache/kernel/KEY. The
# key covers everything the result depends on: source package, configuration, this script, compiler.
set -euo pipefail
export LC_ALL=C

readonly kSource=/usr/src/linux-source-6.1.tar.xz
readonly kTree=linux-source-6.1  # the tarball's folder

readonly program=build-kernel
source "$(dirname "$(readlink -f "$0")")/../tools/lib/cache.sh"

check_tools() {
  [[ -r $kSource ]] || fail "$kSource is missing: apt-get install linux-source-6.1"
  need gcc gcc
  need ld binutils
  need make make
  need flex flex
  need bison bison
  need bc bc
  need perl perl
  need xz xz-utils
  need lz4 lz4
  need flock util-linux
  local probe='#include <gelf.h>'
  gcc -E -x c - <<< "$probe" > /dev/null 2>&1 \
    || fail "gelf.h is missing: apt-get install libelf-dev"
}

cache_key() {
  {
    # Size and package version stand for the tarball's content: hashing 130 MB takes longer than
    # everything else here.
    dpkg-query -W -f '${Version}\n' linux-source-6.1 2> /dev/null || echo "no package"
    stat -L -c %s "$kSource"
    gcc --version | head -n 1
    ld --version | head -n 1
    cat "$config" "$0"
  } | sha256sum | cut -d ' ' -f 1
}

objects() {
  echo "$(find "$1" -name '*.o' | wc -l) objects"
}

# build OUT: makes the three files in the folder OUT.
build() {
  local work=$1/work
  mkdir "$work"
  start_progress objects "$work"

  tar -C "$work" -xf "$kSource" --exclude="$kTree/tools/testing" --exclude='*.rst' --exclude='*.dts'
  cp "$config" "$work/cube.config"
  cd "$work/$kTree"
  # The same source gives the same bytes, whoever builds it and when.
  export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970'
  export KBUILD_BUILD_USER=cube KBUILD_BUILD_HOST=cube
  make KCONFIG_ALLCONFIG="$work/cube.config" allnoconfig > "$work/log" 2>&1 \
    || { tail -n 20 "$work/log" >&2; fail "allnoconfig failed"; }
  check_config "$work/cube.config" .config
  # GCC compiles __init functions for size and there makes memset a `rep stosb`, which on a host that
  # emulates ring 0 costs as much for a byte as the kernel's own memset does for eight: 1.3 million
  # instructions of a boot.
  make -j"$(nproc)" KCFLAGS=-mstringop-strategy=libcall vmlinux bzImage >> "$work/log" 2>&1 \
    || { grep -E -i -B 5 'error|\*\*\*' "$work/log" | tail -n 40 >&2; fail "make failed"; }
  cd - > /dev/null

  # System.map has the symbols; the file the VMM loads need not.
  strip -s -o "$1/vmlinux" "$work/$kTree/vmlinux"
  cp "$work/$kTree/arch/x86/boot/bzImage" "$work/$kTree/System.map" "$1"
  cp "$work/$kTree/.config" "$1/config"
  chmod 0644 "$1"/{vmlinux,bzImage,System.map,config}
}

# check_config WANTED GOT: a symbol that does not exist, or whose dependencies are not met, is
# dropped by kconfig without a word; here it is an error.
check_config() {
  local line missing=()
  while read -r line; do
    grep -qxF -- "$line" "$2" || missing+=("${line%%=*}")
  done < <(grep -E '^CONFIG_|^# CONFIG_.* is not set$' "$1")
  ((${#missing[@]} == 0)) || fail "not taken by this kernel's Kconfig: ${missing[*]}"
}

# For its test: `--check WANTED GOT` and `--key CONFIG` do these two steps alone.
if [[ ${1-} == --check ]]; then
  check_config "$2" "$3"
  exit
fi
if [[ ${1-} == --key ]]; then
  config=$2
  cache_key
  exit
fi

[[ $# == 4 ]] || fail "usage: build-kernel.sh CONFIG VMLINUX BZIMAGE SYSTEM_MAP"
[[ -r $1 ]] || fail "cannot read $1"
config=$(readlink -f "$1")
check_tools

cached kernel "$(cache_key)" build
cp --sparse=always "$entry/vmlinux" "$2"
cp "$entry/bzImage" "$3"
cp "$entry/System.map" "$4"
