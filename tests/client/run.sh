#!/bin/bash
# client.test.mjs with the programs and images that its variables name (BUILD.bazel).
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
E2B_PACKAGES=$("$here/../e2b/install.sh")
export E2B_PACKAGES
exec node --test "$here/client.test.mjs"
