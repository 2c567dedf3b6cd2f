#!/usr/bin/env bash
# The whole product, from a checkout: installs what is missing, builds, makes the template of the code
# interpreter, starts cubed on a loopback address, and lets E2B's own SDK make a sandbox, run code in it, use its
# files, and end it. Prints what that takes beside the two claims. The first time takes half an hour, most of it
# for the guest's kernel and the root disk; after that, a minute. Everything is kept in $CUBE_HOME.
set -euo pipefail
cd "$(dirname "$0")/.."
export CUBE_HOME=${CUBE_HOME:-/var/lib/cube} LC_ALL=C
readonly program=demo.sh
readonly template=code-interpreter-v1  # what the SDK asks for

source tools/lib/cache.sh
source tools/lib/npm.sh
say() { echo "== $*" >&2; }
say "packages"
tools/setup.sh
say "building"
bazel build //pool:cubed //pool:cube //vmm/cli:cube-vmm >&2
bin=$(realpath bazel-bin)
cube() { "$bin/pool/cube" --home "$CUBE_HOME" "$@"; }
if [[ ! -d $CUBE_HOME/templates/$template ]]; then
  say "the guest's kernel and root disk (the first time: many minutes)"
  tools/images.sh code
  say "the template $template"
  cube template build --vmm "$bin/vmm/cli/cube-vmm" "$template" --rootfs code \
    --initrd "$CUBE_HOME/images/agent-initramfs.cpio" --memory 512 >&2
fi
npm_packages tests/code_interpreter

ours=
if ! cube status > /dev/null 2>&1; then
  say "cubed"
  cube up --vmm "$bin/vmm/cli/cube-vmm" --listen 127.0.0.1:0 > /dev/null
  ours=yes
fi
end() {
  [[ -z $ours ]] || cube down
  rm -rf "$scratch"
}
scratch=$(mktemp -d)
trap end EXIT
# Modules look for packages beside themselves.
ln -s "$entry/node_modules" "$scratch/node_modules"
cp tools/demo.mjs "$scratch"
say "E2B's SDK"
CUBE=$bin/pool/cube node "$scratch/demo.mjs" "$template"
