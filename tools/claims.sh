#!/usr/bin/env bash
# From a checkout to this machine's figures: prepares all that is needed (the first time a quarter of an
# hour), then runs `cube-bench claims` with the arguments given. Reports are written to the current folder.
set -euo pipefail
here=$PWD
cd "$(dirname "$0")/.."
export CUBE_HOME=${CUBE_HOME:-/var/lib/cube}
tools/setup.sh
tools/images.sh code
bazel build //bench:cube-bench //bench:fabric //pool:cubed //pool:cube //vmm/cli:cube-vmm //guestkernel:bzImage >&2
bin=$(realpath bazel-bin)
cd "$here"
exec "$bin/bench/cube-bench" claims --vmm "$bin/vmm/cli/cube-vmm" --cubed "$bin/pool/cubed" \
  --bzimage "$bin/guestkernel/bzImage" "$@"
