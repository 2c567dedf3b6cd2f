#!/usr/bin/env bash
# Runs clang-tidy (.clang-tidy) over the files named, or over every .cc file; fails on any finding.
# Files that are fuzzers need clang's headers, which clang-tidy brings along. About ten seconds a
# file.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v clang-tidy >/dev/null || { echo "tools/tidy.sh: apt-get install clang-tidy" >&2; exit 1; }
if [ $# -eq 0 ]; then mapfile -t files < <(git ls-files '*.cc'); else files=("$@"); fi
printf '%s\0' "${files[@]}" | nice xargs -0 -n 1 -P "${TIDY_JOBS:-1}" sh -c '
  clang-tidy --quiet "$0" -- -std=c++20 -I. -Wall -Wextra -Wno-missing-field-initializers 2>/dev/null'
echo "${#files[@]} files, no finding" >&2
