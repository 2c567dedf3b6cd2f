#!/usr/bin/env bash
# Installs those of tools/packages.txt that are missing. Quick when none is. Needs root only then.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)

install_packages() {
  echo "installing $# packages: $*" >&2
  local log
  log=$(mktemp)
  if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y \
         --no-install-recommends "$@"; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "tools/setup.sh: apt-get could not install: $*" >&2
    exit 1
  fi
  rm -f "$log"
}

missing=()
for package in $(sed 's/#.*//' "$top/tools/packages.txt"); do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
# Some builds of nodejs bring it and refuse Debian's package of it; Debian's own is without.
command -v npm >/dev/null || install_packages npm
