#!/usr/bin/env python3
"""Boot benchmark: cube-vmm beside QEMU TCG, the same kernel and initrd, interleaved in one run.

    bench/boot.py [--rounds N] [--memory MiB] [--cpus N] [--ring0 auto|kvm|engine]
                  [--rootfs FILE [--command WORDS]]

For cube-vmm: each phase of its report, the instructions KVM emulated, and, in runs of their own, the
process's private memory with an idle guest, guest memory apart, alone and as one of three. For QEMU (machine microvm, -accel
tcg): from its start to the moment the guest's agent runs, which without a mailbox resets the VM.
With --rootfs, cube-vmm boots from that disk (no QEMU) and runs the command, by default a Python
that prints.
Prints the machine, then a table: median, least and most of each figure.
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BIN = os.path.join(TOP, "bazel-bin")


def machine():
    model = "unknown"
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = int(open("/proc/meminfo").readline().split()[1]) // 1024
    return f"{model}, {os.cpu_count()} CPUs, {memory} MiB, Linux {platform.release()}"


def rootfs(args):
    return ["--rootfs", args.rootfs] if args.rootfs else []


def cube_boot(args, figures):
    out = subprocess.run(
        [args.vmm, "run", "--boot", "--json", f"--ring0={args.ring0}", "--kernel", args.kernel, "--initrd", args.initrd,
         "--memory", str(args.memory), "--cpus", str(args.cpus), *rootfs(args), "--",
         *shlex.split(args.command)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False).stdout
    report = json.loads(out.splitlines()[-1])
    if report["status"] != 0:
        sys.exit(f"cube-vmm: {report.get('reason', report['status'])}")
    for phase, value in report["milliseconds"].items():
        figures.setdefault(f"cube-vmm: {phase}, ms", []).append(value)
    to_agent = sum(report["milliseconds"][k] for k in ("probe", "create", "boot"))
    figures.setdefault("cube-vmm: start to agent, ms", []).append(to_agent)
    figures.setdefault("cube-vmm: instructions emulated, million", []).append(
        report["emulated_instructions"] / 1e6)
    figures.setdefault("cube-vmm: assists", []).append(sum(report["assists"].values()))


def qemu_boot(args, figures):
    start = time.monotonic()
    run = subprocess.run(
        ["qemu-system-x86_64", "-M", "microvm,acpi=off", "-accel", "tcg", "-cpu", "max",
         "-m", str(args.memory), "-smp", str(args.cpus), "-nodefaults", "-no-user-config",
         "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", args.bzimage,
         "-initrd", args.initrd, "-append",
         "console=ttyS0 quiet reboot=t panic=-1 tsc=reliable no_timer_check noreplace-smp "
         "percpu_alloc=page rodata=off"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300,
        check=False)
    seconds = time.monotonic() - start
    # Without a mailbox the agent says so: proof that it was reached.
    if b"cube-agent" not in run.stdout:
        sys.exit("QEMU did not reach the agent: " + run.stdout[-400:].decode(errors="replace"))
    figures.setdefault("QEMU TCG: start to agent, ms", []).append(seconds * 1e3)


def idle_vmm(args):
    vmm = subprocess.Popen(
        [args.vmm, "run", "--boot", f"--ring0={args.ring0}", "--kernel", args.kernel, "--initrd",
         args.initrd, "--memory", str(args.memory), *rootfs(args), "--", "/bin/sh", "-c", "echo up; sleep 1000"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    if vmm.stdout.readline() != b"up\n":
        vmm.kill()
        sys.exit("the guest did not come up")
    return vmm


def private_memory(args, instances):
    """KiB of private resident memory of one of some idle cube-vmms, without its guest's own."""
    vmms = []
    try:
        for _ in range(instances):
            vmms.append(idle_vmm(args))
        vmm = vmms[0]
        # Idle for a while: memory that only the start needed is given back after a second or two.
        time.sleep(5)
        # The program's own pages count as dirty while its file is: right after it was linked.
        private = {"Private_Clean": 0, "Private_Dirty": 0, "Anonymous": 0}
        guest = False
        for line in open(f"/proc/{vmm.pid}/smaps"):
            fields = line.split()
            if "-" in fields[0] and not fields[0].endswith(":"):
                low, high = (int(x, 16) for x in fields[0].split("-"))
                # The guest's is one mapping, or several once parts of it became huge pages.
                guest = "w" in fields[1] and high - low >= 2 << 20
            elif fields[0].rstrip(":") in private and not guest:
                private[fields[0].rstrip(":")] += int(fields[1])
        return private
    finally:
        for vmm in vmms:
            vmm.kill()
            vmm.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, default=128)
    parser.add_argument("--ring0", default="auto", help="auto, kvm or engine")
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--no-qemu", action="store_true")
    parser.add_argument("--vmm", default=f"{BIN}/vmm/cli/cube-vmm")
    parser.add_argument("--kernel", default=f"{BIN}/guestkernel/vmlinux")
    parser.add_argument("--bzimage", default=f"{BIN}/guestkernel/bzImage")
    parser.add_argument("--initrd")
    parser.add_argument("--rootfs", help="root disk, as cube-vmm run takes it")
    parser.add_argument("--command", help="what cube-vmm runs in the guest")
    args = parser.parse_args()
    initrd = "agent-initramfs" if args.rootfs else "initramfs"
    args.initrd = args.initrd or f"{BIN}/guestkernel/{initrd}"
    args.command = args.command or ("python3 -c 'print(1)'" if args.rootfs else "/bin/true")
    args.no_qemu = args.no_qemu or args.rootfs is not None
    print(machine())
    print(f"{args.rounds} rounds, guest of {args.memory} MiB and {args.cpus} vCPU")
    figures = {}
    for number in range(args.rounds):
        print(f"round {number + 1}", file=sys.stderr)
        cube_boot(args, figures)
        if not args.no_qemu:
            qemu_boot(args, figures)
    # The pages of the program's file are its own only while no other VM runs.
    for instances, among in ((1, "alone"), (3, "one of three")):
        private = private_memory(args, instances)
        figures[f"cube-vmm {among}: private memory, KiB"] = [
            private["Private_Clean"] + private["Private_Dirty"]]
        figures[f"cube-vmm {among}: private anonymous memory, KiB"] = [private["Anonymous"]]
    print(f"\n{'':52} {'median':>12} {'least':>12} {'most':>12}")
    for name, values in figures.items():
        print(f"{name:52} {statistics.median(values):12.1f} {min(values):12.1f} {max(values):12.1f}")


if __name__ == "__main__":
    main()
