#!/bin/bash
# build-kernel.sh without its minutes: what it refuses, the cache, and a build with a stand-in for
# make.
set -euo pipefail
cd "$(dirname "$0")"
script=$PWD/build-kernel.sh
source ../tools/lib/script_test.sh

expect_error "usage:" "$script"
expect_error "cannot read /nowhere/config" "$script" /nowhere/config a b c

# A machine without flex: every other program the script calls, and no more.
link_programs "$scratch/bin" bash readlink dirname gcc ld make bison bc perl xz lz4 flock
expect_error "flex is missing: apt-get install flex" \
  env PATH="$scratch/bin" "$script" cube.config a b c

expect_error "set CUBE_HOME to a folder you may write to" \
  env CUBE_HOME=/dev/null "$script" cube.config a b c

# An entry of the cache is used as it is; what it is called, the script says.
key=$(CUBE_HOME=$scratch "$script" --key cube.config)
[[ $key =~ ^[0-9a-f]{64}$ ]] || fail "key '$key'"
entry=$scratch/cache/kernel/$key
mkdir -p "$entry"
for file in vmlinux bzImage System.map; do echo "$file" > "$entry/$file"; done
CUBE_HOME=$scratch "$script" cube.config "$scratch/v" "$scratch/b" "$scratch/s"
[[ $(cat "$scratch/v" "$scratch/b" "$scratch/s") == $'vmlinux\nbzImage\nSystem.map' ]] \
  || fail "the cached files were not copied"

# Another configuration is another kernel.
{ cat cube.config; echo "# more"; } > "$scratch/other"
[[ $("$script" --key "$scratch/other") != "$key" ]] || fail "the configuration is not in the key"

# The check for symbols that kconfig drops.
printf 'CONFIG_A=y\nCONFIG_B=3\n# CONFIG_C is not set\n' > "$scratch/got"
printf '# A comment\nCONFIG_A=y\n\nCONFIG_B=4\nCONFIG_D=y\n' > "$scratch/wanted"
expect_error "not taken by this kernel's Kconfig: CONFIG_B CONFIG_D" \
  "$script" --check "$scratch/wanted" "$scratch/got"
"$script" --check "$scratch/got" "$scratch/got" || fail "a config does not agree with itself"

# A build with a stand-in for what takes minutes: two builders at once make one kernel, a failure
# leaves nothing behind.
# A folder of their own: the other holds links to the machine's programs.
stand_ins=$scratch/stand-ins
mkdir "$stand_ins"
cat > "$stand_ins/tar" <<'EOF'
#!/bin/bash
mkdir -p "$2/linux-source-6.1/arch/x86/boot"
EOF
cat > "$stand_ins/make" <<'EOF'
#!/bin/bash
if [[ $* == *allnoconfig ]]; then
  cp ../cube.config .config
else
  echo built >> "$BUILDS"
  [[ -z ${BREAK-} ]] || { echo "error: broken"; exit 2; }
  sleep 1
  touch vmlinux System.map arch/x86/boot/bzImage
fi
EOF
cat > "$stand_ins/strip" <<'EOF'
#!/bin/bash
cp "$4" "$3"
EOF
chmod +x "$stand_ins"/{tar,make,strip}
export BUILDS=$scratch/builds CUBE_HOME=$scratch/home
: > "$BUILDS"
PATH=$stand_ins:$PATH
command -v tar | grep -q "$stand_ins" || fail "the stand-ins are not used"

expect_error "make failed" env BREAK=1 "$script" cube.config "$scratch/v" "$scratch/b" "$scratch/s"
[[ -z $(entries kernel) ]] || fail "a failed build left something"

: > "$BUILDS"
"$script" cube.config "$scratch/v1" "$scratch/b1" "$scratch/s1" 2> /dev/null &
"$script" cube.config "$scratch/v2" "$scratch/b2" "$scratch/s2" 2> /dev/null
wait $!
expect_builds 1
[[ -e $scratch/s1 && -e $scratch/s2 ]] || fail "a builder has no result"
[[ $(entries kernel | wc -l) == 1 ]] || fail "a build left something"
