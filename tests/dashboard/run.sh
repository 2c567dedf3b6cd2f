#!/bin/bash
# dashboard.test.mjs with the programs and images that its variables name (BUILD.bazel).
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
command -v chromium > /dev/null || { echo "chromium is missing: apt-get install chromium" >&2; exit 1; }
E2B_PACKAGES=$("$here/../e2b/install.sh")
export E2B_PACKAGES
exec node --test "$here/dashboard.test.mjs"
