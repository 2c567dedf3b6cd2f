#!/usr/bin/env python3
"""What fio's and iperf3's requests cost the host: cube-vmm beside QEMU, the same kernel and root disk.

    bench/tools.py blk|net [--rounds N] [--seconds S] [--disk FOLDER] [--mebibytes N] [--no-qemu]
                       [--rate N] [--before OLD]

The guest's root is the image of tools/build-rootfs.sh bench, read-only. blk: fio by io_uring, past the
guest's page cache, 4 KiB at random and 128 KiB in a row, 1 and 16 at a time, on a raw file in the
host's page cache (blk.py has how QEMU is given it). net: iperf3 to and from a server in a network
namespace of its own (net.py has how; needs root and the host's iperf3). What is counted is the same as
there: processor time on the host but the vCPU's; see io_cost.py. Streams count 128 KiB as a request.

--rate limits fio to so many requests a second. What a request costs depends on how many share a
wake-up, and writes on how many find their page dirty: at one rate, two VMMs can be compared.
"""

import os
import subprocess
import sys
import tempfile

import io_cost
from boot import TOP

PEER, OWN = "10.78.0.1", "10.78.0.2"
LOAD = os.path.join(TOP, "bench", "guest", "tools_load.py")


def script_disk(folder):
    """The guest's program as a disk, filled up with empty lines to whole sectors."""
    text = open(LOAD, "rb").read()
    path = os.path.join(folder, "script")
    with open(path, "wb") as file:
        file.write(text.ljust(-(-len(text) // 4096) * 4096, b"\n"))
    return path


def cube(args, load, root, script, devices):
    """{name of the guest: command}, for each build."""
    builds = {"cube-vmm": args.vmm} | ({"before": args.before} if args.before else {})
    return {name: cube_command(vmm, args, load, root, script, devices)
            for name, vmm in builds.items()}


def cube_command(vmm, args, load, root, script, devices):
    return [vmm, "run", "--boot", f"--ring0={args.ring0}", "--kernel", args.kernel, "--initrd",
            args.agent_initrd, "--rootfs", f"{root}:ro", "--disk", f"{script}:ro", "--memory",
            str(args.memory), *devices, "--", "/usr/bin/python3", "/dev/vdb", *load]


def qemu(args, load, root, script, devices):
    disk = lambda name, path: ["-drive", f"if=none,id={name},file={path},format=raw,readonly=on",
                               "-device", f"virtio-blk-device,drive={name}"]
    command = io_cost.qemu(args, load, [*disk("root", root), *disk("script", script), *devices])
    command[-1] = command[-1].replace("rdinit=/bin/io_init io_load=",
                                      "rdinit=/bin/tools_init tools_load=")
    return command


def blk(args, root, script, folder):
    disk = os.path.join(folder, "disk")
    with open(disk, "wb") as file:
        for _ in range(args.mebibytes):
            file.write(b"\x5a" * (1 << 20))
        os.fsync(file.fileno())
    load = [str(args.seconds), "blk", "/dev/vdc", str(args.rate)]
    guests = cube(args, load, root, script, ["--disk", disk])
    for aio in () if args.no_qemu else ("io_uring", "threads"):
        drive = f"if=none,id=disk,file={disk},format=raw,cache=writeback,aio={aio}"
        guests[f"QEMU, {aio}"] = qemu(args, load, root, script, [
            "-drive", drive, "-device", "virtio-blk-device,drive=disk"])
    io_cost.measure(args, guests)


def net(args, root, script):
    space = f"cube-bench-{os.getpid()}"
    inside = ["ip", "netns", "exec", space]
    run = lambda *command: subprocess.run(command, check=True)
    run("ip", "netns", "add", space)
    server = None
    try:
        run(*inside, "ip", "tuntap", "add", "tap0", "mode", "tap", "vnet_hdr")
        run(*inside, "ip", "address", "add", f"{PEER}/24", "dev", "tap0")
        run(*inside, "ip", "link", "set", "tap0", "up")
        server = subprocess.Popen([*inside, "iperf3", "-s", "-B", PEER, "--forceflush"],
                                  stdout=subprocess.PIPE, text=True)
        while "listening" not in server.stdout.readline():
            if server.poll() is not None:
                sys.exit("iperf3 did not start")
        server.stdout.close()
        load = [str(args.seconds), "net", OWN, PEER]
        # `ip netns exec` becomes the VMM: its process is the one that is counted.
        guests = {name: inside + command for name, command in
                  cube(args, load, root, script, ["--net", "tap=tap0"]).items()}
        if not args.no_qemu:
            guests["QEMU, vhost=off"] = inside + qemu(args, load, root, script, [
                "-netdev", "tap,id=net,ifname=tap0,script=no,downscript=no,vhost=off", "-device",
                "virtio-net-device,netdev=net"])
        io_cost.measure(args, guests)
    finally:
        if server is not None:
            server.kill()
            server.wait()
        run("ip", "netns", "delete", space)


def main():
    parser = io_cost.arguments(__doc__.splitlines()[0])
    parser.add_argument("kind", choices=["blk", "net"])
    parser.add_argument("--disk", default="/var/tmp", help="folder for the disk's file")
    parser.add_argument("--mebibytes", type=int, default=128)
    parser.add_argument("--rate", type=int, default=0, help="of fio, requests a second at most")
    parser.add_argument("--agent-initrd", default=f"{io_cost.BIN}/guestkernel/agent-initramfs")
    parser.set_defaults(seconds=2)
    args = parser.parse_args()
    args.seconds = int(args.seconds)
    root = subprocess.run([os.path.join(TOP, "tools", "build-rootfs.sh"), "bench"], check=True,
                          stdout=subprocess.PIPE, text=True).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="tools-bench-", dir=args.disk) as folder:
        script = script_disk(folder)
        if args.kind == "blk":
            blk(args, root, script, folder)
        else:
            net(args, root, script)


if __name__ == "__main__":
    main()
