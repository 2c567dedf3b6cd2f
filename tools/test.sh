#!/usr/bin/env bash
# Installs what is missing, builds everything, runs every test. The last line counts them.
set -uo pipefail
cd "$(dirname "$0")/.."
export CUBE_HOME=${CUBE_HOME:-/var/lib/cube}
passed=0
failed=0

step() { echo "== $*" >&2; }
finish() {
  echo "$passed passed, $failed failed, 0 skipped"
  [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
  exit $?
}
fail() {
  echo "FAILED: $*" >&2
  failed=$((failed + 1))
}

# Runs a set of test targets and counts them by bazel's own summary lines. A target that did not
# build or did not run has no such line saying PASSED, and counts as failed.
run_tests() {
  local what=$1
  shift
  step "$what"
  local log
  log=$(mktemp)
  bazel test --keep_going "$@" 2>&1 | tee "$log" | grep -v '^INFO' >&2
  local ok bad
  ok=$(grep -cE '^//[^ ]+ +(\(cached\) )?PASSED' "$log")
  bad=$(grep -cE '^//[^ ]+ +(\(cached\) )?(FAILED|TIMEOUT|NO STATUS|FLAKY)' "$log")
  passed=$((passed + ok))
  failed=$((failed + bad))
  [ "$ok" -gt 0 ] || fail "$what: no test ran"
  if [ "$bad" -eq 0 ] && grep -qE '^ERROR' "$log"; then fail "$what: did not build"; fi
  rm -f "$log"
}

step "packages"
tools/setup.sh || { fail "packages"; finish; }
step "build (guest kernel included: several minutes the first time)"
bazel build //... >&2 || fail "build"
run_tests "tests" //...
run_tests "tests under AddressSanitizer and UBSan" --config=asan \
  --test_tag_filters=-vm,-no-sanitizer --build_tests_only //...
# Nothing in them waits for a VM: two at a time.
run_tests "fuzzers" --config=fuzz --local_test_jobs=2 $(bazel query 'attr(tags, "fuzz", //...)' 2>/dev/null)
finish
