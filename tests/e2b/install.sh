#!/bin/bash
# Installs the packages of package-lock.json, or takes them from the cache, and prints the folder that
# has their node_modules: install.sh. Packages' own scripts are not run.
set -euo pipefail
export LC_ALL=C

readonly program=install-e2b
here=$(dirname "$(readlink -f "$0")")
source "$here/../../tools/lib/cache.sh"

build() {
  cp "$here/package.json" "$here/package-lock.json" "$1"
  npm ci --prefix "$1" --ignore-scripts --no-audit --no-fund > "$1/npm.log" 2>&1 \
    || { tail -n 20 "$1/npm.log" >&2; fail "npm ci failed"; }
}

need node nodejs
need npm npm
cached npm "$(cat "$here/package.json" "$here/package-lock.json" | sha256sum | cut -d ' ' -f 1)" build
echo "$entry"
