#!/bin/bash
# Runs the tests of this folder with the programs and images that their variables name (BUILD.bazel).
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
E2B_PACKAGES=$("$here/install.sh")
export E2B_PACKAGES
exec node --test --test-concurrency=1 "$here"/*.test.mjs
