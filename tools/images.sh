#!/usr/bin/env bash
# Builds the guest kernel, the root file system in memory and the root disks named, and puts them
# where cube-vmm looks for them, $CUBE_HOME/images. What takes minutes is cached in $CUBE_HOME/cache,
# keyed by what it is built from.
#
#   images.sh [debian|code|bench]...
set -euo pipefail
cd "$(dirname "$0")/.."
export CUBE_HOME=${CUBE_HOME:-/var/lib/cube}
bazel build //guestkernel:vmlinux //guestkernel:System.map //guestkernel:initramfs \
  //guestkernel:agent-initramfs >&2
mkdir -p "$CUBE_HOME/images"
put() {
  # By rename: a VM that starts meanwhile sees the old file or the new one.
  cmp -s "$1" "$CUBE_HOME/images/$2" && return
  cp -f --no-preserve=mode "$1" "$CUBE_HOME/images/.$2.$$"
  mv -f "$CUBE_HOME/images/.$2.$$" "$CUBE_HOME/images/$2"
}
put bazel-bin/guestkernel/vmlinux vmlinux
put bazel-bin/guestkernel/System.map System.map
put bazel-bin/guestkernel/initramfs initramfs.cpio
put bazel-bin/guestkernel/agent-initramfs agent-initramfs.cpio
for name in "$@"; do
  # A second name for the file in the cache: one copy on disk and in the page cache.
  disk=$(tools/build-rootfs.sh "$name")
  [ "$disk" -ef "$CUBE_HOME/images/$name.ext4" ] && continue
  ln -f "$disk" "$CUBE_HOME/images/.$name.ext4.$$"
  mv -f "$CUBE_HOME/images/.$name.ext4.$$" "$CUBE_HOME/images/$name.ext4"
done
