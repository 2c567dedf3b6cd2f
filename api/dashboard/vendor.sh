#!/bin/bash
# vendor.sh PACKAGE-LOCK FOLDER: puts what the page needs of npm's packages in FOLDER. They come from npm's
# registry the first time, then from the cache.
set -euo pipefail
export LC_ALL=C

readonly program=vendor-dashboard
here=$(dirname "$(readlink -f "$0")")
source "$here/../../tools/lib/cache.sh"
source "$here/../../tools/lib/npm.sh"

npm_packages "$(dirname "$(readlink -f "$1")")"
xterm=$entry/node_modules/@xterm
cp "$xterm/xterm/lib/xterm.mjs" "$xterm/xterm/css/xterm.css" "$xterm/addon-fit/lib/addon-fit.mjs" "$2"
cat "$xterm/xterm/LICENSE" "$xterm/addon-fit/LICENSE" > "$2/xterm-license.txt"
