#!/usr/bin/env bash
# Cube as it is installed, on a host this machine may not be: KVM with SVM and nested paging, Linux 6.1, cgroups
# of version 2 alone, systemd. The host is a Debian 12 in QEMU, which emulates the processor: what it proves is
# that things work, and nothing of how long they take. Prints a line for each check (lib/hardware_checks.sh);
# exits with 0 if all have passed. docs/host.md has what was seen.
#
#   hardware-host.sh [FOLDER]    FOLDER: where the logs go; else a temporary one
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
readonly program=hardware-host.sh
source tools/lib/cache.sh

readonly kPackages=(linux-image-amd64 systemd-sysv udev dbus iproute2 procps kmod jq)
# Of a host that only tests: nothing that waits, asks or tidies.
readonly kMasked=(apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer
  e2scrub_reap.service fstrim.timer systemd-timesyncd.service getty@tty1.service serial-getty@ttyS0.service)
readonly kSeconds=900  # until it is given up

need mmdebstrap mmdebstrap
need mke2fs e2fsprogs
need qemu-system-x86_64 qemu-system-x86
[[ $EUID == 0 ]] || fail "files of the disk have owners: needs root"

bazel build //packaging:deb >&2
deb=$(realpath bazel-bin/packaging/cube.deb)
depends=$(dpkg-deb -f "$deb" Depends | sed -E 's/\([^)]*\)//g; s/ //g')
packages=$(IFS=,; echo "${kPackages[*]},$depends")

build_system() {
  mmdebstrap --quiet --variant=minbase --include="$packages" bookworm "$1/root.tar" >&2
}
key=$({ echo "$packages"; dpkg-query -W -f '${Version}\n' base-files; } | sha256sum | cut -d ' ' -f 1)
cached hardware-host "$key" build_system

work=$(mktemp -d /tmp/cube-hardware-XXXXXX)
qemu=
end() {
  [[ -z $qemu ]] || kill "$qemu" 2> /dev/null || true
  rm -rf --one-file-system "$work"
}
trap end EXIT
logs=${1:-$work}
mkdir -p "$logs"
log=$logs/console.log checks=$logs/checks.log
rm -f "$log" "$checks"

root=$work/root
mkdir "$root"
tar -xf "$entry/root.tar" -C "$root" --numeric-owner
cp "$deb" "$root/root/cube.deb"
chroot "$root" dpkg --force-unsafe-io -i /root/cube.deb >&2
rm "$root/root/cube.deb"
for unit in "${kMasked[@]}"; do ln -sf /dev/null "$root/etc/systemd/system/$unit"; done
printf 'kvm_amd\ntun\n' >> "$root/etc/modules"
echo '/dev/vda / ext4 defaults 0 0' > "$root/etc/fstab"
echo 'nameserver 10.0.2.3' > "$root/etc/resolv.conf"
printf '[Match]\nName=en*\n[Network]\nDHCP=ipv4\n' > "$root/etc/systemd/network/uplink.network"
wants=$root/etc/systemd/system/multi-user.target.wants
ln -sf /lib/systemd/system/systemd-networkd.service "$wants/"
install -m 0755 tools/lib/hardware_checks.sh "$root/root/checks.sh"
cat > "$root/etc/systemd/system/checks.service" <<'UNIT'
[Unit]
After=network-online.target
Wants=network-online.target
[Service]
ExecStart=/bin/bash /root/checks.sh
ExecStopPost=/bin/systemctl --no-block poweroff
StandardOutput=file:/dev/ttyS1
StandardError=file:/dev/ttyS1
UNIT
ln -sf ../checks.service "$wants/checks.service"
ln -sf /lib/systemd/system/systemd-networkd-wait-online.service "$wants/"
cp "$root"/boot/vmlinuz-* "$work/vmlinuz"
cp "$root"/boot/initrd.img-* "$work/initrd"
truncate -s 6G "$work/disk"
mke2fs -q -t ext4 -E lazy_itable_init=1,lazy_journal_init=1 -d "$root" "$work/disk"
rm -rf --one-file-system "$root"

# What the world is to a sandbox: an address that answers every connection with one page.
printf 'HTTP/1.0 200 OK\r\nContent-Length: 15\r\n\r\nfrom the world\n' > "$work/page"
qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 4096 -display none -no-reboot \
  -kernel "$work/vmlinuz" -initrd "$work/initrd" -append "console=ttyS0 root=/dev/vda rw mitigations=off" \
  -drive "file=$work/disk,format=raw,if=virtio,cache=unsafe" -device virtio-rng-pci \
  -netdev "user,id=world,guestfwd=tcp:10.0.2.100:80-cmd:cat $work/page" -device virtio-net-pci,netdev=world \
  -serial "file:$log" -serial "file:$checks" -monitor none &
qemu=$!
: >> "$checks"
tail -f --pid="$qemu" -n +1 "$checks" | sed -u 's/\r//' &
timeout "$kSeconds" tail --pid="$qemu" -f /dev/null || echo "FAIL the whole took longer than $kSeconds s"
wait %2 2> /dev/null || true
grep -q '^all checks were made' "$checks" || { tail -n 30 "$log"; fail "the checks did not end"; }
! grep -q '^FAIL' "$checks"
