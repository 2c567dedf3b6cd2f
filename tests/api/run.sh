#!/bin/bash
# run.sh NAME: NAME.test.mjs with the programs and images that its variables name (BUILD.bazel). Tests of
# tests/e2b and tests/code_interpreter run from a folder in which machine.mjs is this folder's.
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
tests=$(dirname "$here")
readonly program=tests/api/run.sh
source "$tests/../tools/lib/cache.sh"
source "$tests/../tools/lib/npm.sh"
E2B_PACKAGES=$("$tests/e2b/install.sh")
export E2B_PACKAGES

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp -L "$here"/*.mjs "$tests"/e2b/news.mjs "$scratch"
own=()
case $1 in
  network)
    own=(unshare --net --mount)
    ;;
  sdk_*)
    cp -L "$tests/e2b/${1#sdk_}.test.mjs" "$scratch/$1.test.mjs"
    ;;
  code)
    npm_packages "$tests/code_interpreter"
    ln -s "$entry/node_modules" "$scratch/node_modules"
    mv "$scratch/code_machine.mjs" "$scratch/machine.mjs"
    cp -L "$tests/code_interpreter/code_interpreter_test.mjs" "$scratch/code.test.mjs"
    ;;
  methods)
    npm_packages "$tests/code_interpreter"
    export CODE_PACKAGES=$entry CUBE_TESTS=$tests
    ;;
  tls)
    # node reads what it trusts when it starts.
    "$CUBE" --home "$scratch" tls init --domain sandbox.test >"$scratch/told"
    export NODE_EXTRA_CA_CERTS=$scratch/tls/ca.pem
    ;;
esac
"${own[@]}" node --test "$scratch/$1.test.mjs"
