#!/usr/bin/env bash
# build_deb.sh OUT VERSION FILE...: the Debian package of the programs, images and texts given.
set -euo pipefail
export LC_ALL=C
out=$(realpath -m "$1")
version=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
declare -A files
for file in "$@"; do files[$(basename "$file")]=$(realpath "$file"); done

# put MODE FOLDER [NAME...]: of the files given, or of all with a pattern.
put() {
  local mode=$1 folder=$root$2 name
  shift 2
  mkdir -p "$folder"
  for name in "$@"; do install -m "$mode" "${files[$name]}" "$folder/$name"; done
}
link() { mkdir -p "$(dirname "$root$2")" && ln -s "$1" "$root$2"; }

programs=(cube cubed cube-vmm cube-jail cube-template)
put 0755 /usr/libexec/cube "${programs[@]}"
for name in "${programs[@]}"; do strip "$root/usr/libexec/cube/$name"; done
for name in cube cubed cube-vmm; do link "../libexec/cube/$name" "/usr/bin/$name"; done
put 0644 /usr/lib/cube/images vmlinux System.map initramfs agent-initramfs
for name in initramfs agent-initramfs; do mv "$root/usr/lib/cube/images/$name"{,.cpio}; done
# Where cube-vmm looks for them.
for name in vmlinux System.map initramfs.cpio agent-initramfs.cpio; do
  link "../../../../usr/lib/cube/images/$name" "/var/lib/cube/images/$name"
done
mkdir -p "$root/var/lib/cube/templates"
put 0644 /lib/systemd/system cubed.service
put 0644 /etc/cube cubed.toml

docs=()
for name in "${!files[@]}"; do [[ $name != *.md && $name != LICENSE ]] || docs+=("$name"); done
put 0644 /usr/share/doc/cube "${docs[@]}"
mv "$root/usr/share/doc/cube/LICENSE" "$root/usr/share/doc/cube/copyright"
cat "${files[xterm-license.txt]}" >> "$root/usr/share/doc/cube/copyright"
for page in cube.1 cubed.8; do
  mkdir -p "$root/usr/share/man/man${page##*.}"
  gzip -9n < "${files[$page]}" > "$root/usr/share/man/man${page##*.}/$page.gz"
done
completion() {
  mkdir -p "$(dirname "$root$2")"
  "${files[cube]}" completion "$1" > "$root$2"
}
completion bash /usr/share/bash-completion/completions/cube
completion zsh /usr/share/zsh/vendor-completions/_cube
completion fish /usr/share/fish/vendor_completions.d/cube.fish

# What the programs are linked with says which packages they need; the other two are static.
mkdir -p "$work/debian"
printf 'Source: cube\n\nPackage: cube\nArchitecture: amd64\n' > "$work/debian/control"
depends=$(cd "$work" && dpkg-shlibdeps -O root/usr/libexec/cube/{cube,cubed,cube-template} 2> log \
  | sed -n 's/^shlibs:Depends=//p')
[[ -n $depends ]] || { cat "$work/log" >&2; exit 1; }
mkdir "$root/DEBIAN"
sed -e "s/@VERSION@/$version/" -e "s/@DEPENDS@/$depends/" \
  -e "s/@SIZE@/$(du -sk "$root" | cut -f 1)/" "${files[control.in]}" > "$root/DEBIAN/control"
echo /etc/cube/cubed.toml > "$root/DEBIAN/conffiles"
put 0755 /DEBIAN postinst prerm
chmod -R u+w "$root"
find "$root" -type d -exec chmod 0755 {} +
chmod 0755 "$root"
(cd "$root" && find usr lib etc -type f -print0 | sort -z | xargs -0 md5sum > DEBIAN/md5sums)
chmod 0644 "$root"/DEBIAN/{control,conffiles,md5sums}
# The same files make the same package.
find "$root" -exec touch -h -d @1700000000 {} +
SOURCE_DATE_EPOCH=1700000000 dpkg-deb --root-owner-group -Zzstd -b "$root" "$out" >&2
