# For the tests of scripts that build into the cache (cache.sh): sourced.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() {
  echo "FAIL: $*" >&2
  exit 1
}

# expect_error TEXT COMMAND...
expect_error() {
  local text=$1 output
  shift
  output=$("$@" 2>&1) && fail "succeeded: $*"
  [[ $output == *"$text"* ]] || fail "expected '$text', got '$output'"
}

# link_programs FOLDER PROGRAM...: a folder for PATH with these programs of the machine and no others.
link_programs() {
  local folder=$1 program
  shift
  mkdir "$folder"
  for program in "$@"; do ln -s "$(command -v "$program")" "$folder/$program"; done
}

# The entries of the cache of a kind of thing.
entries() {
  ls "$CUBE_HOME/cache/$1" | grep -v '^lock$' || true
}

# expect_builds NUMBER: of lines that the stand-ins have written to $BUILDS.
expect_builds() {
  [[ $(wc -l < "$BUILDS") == "$1" ]] || fail "$(wc -l < "$BUILDS") builds instead of $1"
}
