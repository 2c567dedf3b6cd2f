#!/usr/bin/env python3
"""What a request costs the block device: cube-vmm beside QEMU, the same kernel, initrd and disk.

    bench/blk.py [--rounds N] [--seconds S] [--disk FOLDER] [--mebibytes N] [--no-qemu]

The disk is a raw file whose content is in the host's page cache; QEMU opens it with cache=writeback
and, in guests of their own, aio=io_uring and aio=threads. The guest reads and writes with O_DIRECT,
4 KiB at random (alone and from 16 threads) and 128 KiB in a row; the last load computes a digest of
what it reads, as a program would whose time is its own. Figures are of processor time on the host;
see io_cost.py.

QEMU's microvm without KVM has no ioeventfd: a kick is carried out by the vCPU's thread, submission
to the host's kernel included. So the time of that thread in the kernel is given too; for QEMU, whose
guest runs in user mode, that is nearly all device work. (cube-vmm's vCPU is in KVM all the time.)
"""

import os
import tempfile

import io_cost


def main():
    parser = io_cost.arguments(__doc__.splitlines()[0])
    parser.add_argument("--disk", default="/var/tmp", help="folder for the disk's file")
    parser.add_argument("--mebibytes", type=int, default=128)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="blk-bench-", dir=args.disk) as folder:
        disk = os.path.join(folder, "disk")
        with open(disk, "wb") as file:
            for _ in range(args.mebibytes):
                file.write(b"\x5a" * (1 << 20))
            os.fsync(file.fileno())
        load = ["blk", "/dev/vda", str(args.seconds)]
        guests = io_cost.cube(args, load, ["--disk", disk])
        for aio in () if args.no_qemu else ("io_uring", "threads"):
            drive = f"if=none,id=disk,file={disk},format=raw,cache=writeback,aio={aio}"
            guests[f"QEMU, {aio}"] = io_cost.qemu(
                args, load, ["-drive", drive, "-device", "virtio-blk-device,drive=disk"])
        io_cost.measure(args, guests)


if __name__ == "__main__":
    main()
