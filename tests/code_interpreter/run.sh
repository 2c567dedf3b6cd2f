#!/bin/bash
# Runs a test of this folder, NAME_test.mjs, with node, and the packages of package-lock.json, which are
# kept in ${CUBE_HOME:-/var/lib/cube}/cache/npm.
#
#   run.sh NAME_test.mjs
set -euo pipefail
readonly program=code_interpreter/run.sh
here=$(cd "$(dirname "$0")" && pwd)
for name in CUBE_VMM CUBE_KERNEL CUBE_INITRD CUBE_ROOTFS; do
  export "$name=$(realpath "${!name}")"
done
source "$here/../../tools/lib/cache.sh"
source "$here/../../tools/lib/npm.sh"

npm_packages "$here"
# Packages are looked for beside the test's file.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp -L "$here"/*.mjs "$scratch"
ln -s "$entry/node_modules" "$scratch/node_modules"
# A template of its own: the machine's are others'.
mkdir "$scratch/home"
CUBE_HOME=$scratch/home node --test "$scratch/$1"
