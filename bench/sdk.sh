#!/bin/bash
# sdk.sh [ROUNDS]: E2B's own SDK against a cubed of its own: Sandbox.create, and a first command in it.
# Needs what `bazel build //guestkernel:agent-initramfs //guestkernel:vmlinux //guestkernel:debian
# //pool:cubed //pool:cube //vmm/cli:cube-vmm` makes, and npm.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
bin=$(readlink -f "$here/../bazel-bin")
E2B_PACKAGES=$("$here/../tests/e2b/install.sh")
export E2B_PACKAGES CUBE=$bin/pool/cube CUBE_VMM=$bin/vmm/cli/cube-vmm
export CUBE_KERNEL=$bin/guestkernel/vmlinux CUBE_INITRD=$bin/guestkernel/agent-initramfs
export CUBE_ROOTFS=$bin/guestkernel/debian.ext4
exec node "$here/sdk.mjs" "${1:-40}"
