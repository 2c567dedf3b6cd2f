#!/usr/bin/env bash
# Installs those of tools/packages.txt that are missing. Quick when none is. Needs root only then.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
missing=()
for package in $(sed 's/#.*//' "$top/tools/packages.txt"); do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
echo "installing ${#missing[@]} packages: ${missing[*]}" >&2
log=$(mktemp)
if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
       "${missing[@]}"; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "tools/setup.sh: apt-get could not install: ${missing[*]}" >&2
  exit 1
fi
rm -f "$log"
