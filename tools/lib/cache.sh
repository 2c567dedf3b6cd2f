# Results of builds that take minutes, kept outside the checkout in ${CUBE_HOME:-/var/lib/cube}/cache.
# To be sourced by a bash script that has set -euo pipefail and `program`, its name in messages.

fail() {
  echo "$program: $*" >&2
  exit 1
}

# need COMMAND PACKAGE
need() {
  command -v "$1" > /dev/null || fail "$1 is missing: apt-get install $2"
}

# cached KIND KEY BUILD: sets `entry` to the folder cache/KIND/KEY. If there is none, `BUILD FOLDER`
# fills it; it may use a subfolder `work`, which is removed. KEY has to cover all the result depends on.
#
# An entry appears by one rename, so whoever sees the folder sees all of it; the lock only saves a
# second builder the work.
cached() {
  local cache=${CUBE_HOME:-/var/lib/cube}/cache/$1
  entry=$cache/$2
  mkdir -p "$cache" 2> /dev/null \
    || fail "cannot make $cache; set CUBE_HOME to a folder you may write to"
  [[ ! -d $entry ]] || return 0
  exec 9> "$cache/lock" || fail "cannot write $cache/lock"
  flock -n 9 || { echo "$program: waiting for another build" >&2; flock 9; }
  if [[ ! -d $entry ]]; then
    rm -rf --one-file-system "$cache"/building.*  # of builders that died; they held the lock
    building=$(mktemp -d "$cache/building.XXXXXX")
    trap 'end_progress; rm -rf --one-file-system "$building"' EXIT
    "$3" "$building"
    end_progress
    rm -rf "$building/work"
    chmod 0755 "$building"
    mv -T "$building" "$entry"
  fi
  exec 9>&-
}

progress=  # the process that reports, while there is one

# start_progress COMMAND...: says every ten seconds how long the build has taken and what COMMAND
# prints, until end_progress.
start_progress() {
  report_progress "$@" &
  progress=$!
}

report_progress() {
  local started=$SECONDS
  # The sleep outlives the loop by up to ten seconds; it may hold neither stderr nor the lock.
  while sleep 10 > /dev/null 2>&1 9>&-; do
    echo "$program: $((SECONDS - started)) s, $("$@")" >&2
  done
}

# Also after a failure nothing may go on writing to stderr, which the caller may wait to be closed.
end_progress() {
  if [[ -n $progress ]]; then
    kill "$progress" 2> /dev/null || true
    wait "$progress" 2> /dev/null || true
    progress=
  fi
}
