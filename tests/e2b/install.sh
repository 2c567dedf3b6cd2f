#!/bin/bash
# Prints the folder that has the node_modules of package-lock.json: install.sh.
set -euo pipefail
export LC_ALL=C

readonly program=install-e2b
here=$(dirname "$(readlink -f "$0")")
source "$here/../../tools/lib/cache.sh"
source "$here/../../tools/lib/npm.sh"

npm_packages "$here"
echo "$entry"
