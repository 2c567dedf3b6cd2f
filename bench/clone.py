#!/usr/bin/env python3
"""Clone benchmark: what a clone of a template takes, phase by phase, and what it costs in memory.

    bench/clone.py [--rounds N] [--memory MiB ...] [--idle N] [--dirty MiB ...]

For each guest memory size: N clones one after another by `cube-vmm run --json` (a process each, with
exec and the parsing of the snapshot), each phase of its report; the same with a root disk and python
(--rootfs), and booted; then the host's MemAvailable before
and after N idle clones of the largest size, with their Anonymous and PSS and the kernel's slab and
page tables; then, of a running clone, snapshots as diffs with that much memory written since, and
rollbacks. Prints the machine, then tables: median, p90, least and most.
"""

import argparse
import glob
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from boot import BIN, machine


def row(name, values):
    values = sorted(values)
    p90 = values[min(len(values) - 1, int(len(values) * 0.9))]
    print(f"| {name} | {statistics.median(values):.2f} | {p90:.2f} | {values[0]:.2f} | {values[-1]:.2f} |")


def run(args, memory, command, options=()):
    initrd = args.agent_initrd if "--rootfs" in options else args.initrd
    out = subprocess.run(
        [args.vmm, "run", "--json", "--kernel", args.kernel, "--initrd", initrd, "--memory",
         str(memory), *options, "--", *command],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout
    report = json.loads(out.splitlines()[-1])
    if report["status"] != 0:
        sys.exit(f"cube-vmm: {report.get('reason', report['status'])}")
    return report["milliseconds"]


def clones(args, memory, command=("/bin/true",), options=()):
    run(args, memory, command, options)  # makes the template
    figures = {}
    for _ in range(args.rounds):
        phases = run(args, memory, command, options)
        if "boot" in phases:
            sys.exit("a run was not a clone")
        figures.setdefault("restore, parked", []).append(phases["create"])
        figures.setdefault("parked to READY", []).append(phases["agent"])
        figures.setdefault("READY to command started", []).append(phases["start"])
        figures.setdefault("command", []).append(phases["command"])
        figures.setdefault("host probe", []).append(phases["probe"])
        figures.setdefault("all, exec to exit", []).append(phases["total"])
    print(f"\n{' '.join((*options, *command))}, {memory} MiB, {args.rounds} clones, ms\n\n| | median | p90 | least | most |\n|---|---|---|---|---|")
    for name, values in figures.items():
        row(name, values)


def with_root_disk(args, home):
    options = ("--rootfs", os.path.realpath(args.rootfs), "--vsock", f"{home}/vsock")
    command = ("python3", "-c", "print(1)")
    clones(args, 256, command, options)
    booted = [run(args, 256, command, (*options, "--boot"))["total"] for _ in range(args.boots)]
    print(f"\nthe same with --boot: {statistics.median(booted):.0f} ms (median of {args.boots})")


def meminfo():
    lines = (line.split() for line in open("/proc/meminfo"))
    return {fields[0].rstrip(":"): int(fields[1]) for fields in lines}


def template(home, memory):
    for path in glob.glob(home + "/templates/run-*"):
        manifest = json.load(open(path + "/manifest.json"))
        if manifest["memory_bytes"] == memory << 20:
            return path
    sys.exit("no template was made")


def start_clone(args, path, command=()):
    vmm = subprocess.Popen([args.vmm, "clone", path, *(["--", *command] if command else [])],
                           stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    return vmm, vmm.stdout.readline().decode().strip()


def idle(args, home, memory):
    path = template(home, memory)
    warm, _ = start_clone(args, path)  # the program's and the image's pages are in the cache
    time.sleep(1)
    before = meminfo()
    started = [start_clone(args, path)[0] for _ in range(args.idle)]
    time.sleep(5)  # idle guests give memory back
    after = meminfo()
    print(f"\nidle clones of {memory} MiB: {args.idle}, KiB each\n\n| | |\n|---|---|")
    share = lambda key: (after[key] - before[key]) / args.idle
    print(f"| host MemAvailable | {-share('MemAvailable'):.0f} |")
    for key in ("Slab", "PageTables", "SecPageTables", "VmallocUsed", "KernelStack", "Percpu"):
        if key in after:
            print(f"| {key} | {share(key):.0f} |")
    for key in ("Pss", "Anonymous"):
        values = []
        for vmm in started:
            for line in open(f"/proc/{vmm.pid}/smaps_rollup"):
                if line.startswith(key + ":"):
                    values.append(int(line.split()[1]))
        print(f"| {key} (median) | {statistics.median(values):.0f} |")
    for vmm in [warm, *started]:
        vmm.kill()
        vmm.wait()


def ask(args, *words):
    answer = subprocess.run([args.vmm, *words, "--json"], stdout=subprocess.PIPE).stdout
    parsed = json.loads(answer)
    if not parsed["ok"]:
        sys.exit(parsed["error"])
    return parsed


def snapshots(args, home, memory):
    path = template(home, memory)
    print(f"\nsnapshots of a running clone of {memory} MiB as diffs, ms (median of 5)\n\n"
          "| written, MiB | file, MiB | guest paused | pages written | published, on disk | rollback: first, next |\n|---|---|---|---|---|---|")
    for dirty in args.dirty:
        # /root is in memory: what is written there is the guest's own.
        script = f"head -c {dirty << 20} /dev/zero | tr '\\0' x > /root/f; echo up; sleep 1000"
        vmm, _ = start_clone(args, path, ["/bin/sh", "-c", script])
        socket = max(glob.glob(home + "/run/*.sock"), key=os.path.getmtime)
        figures = {"paused": [], "write": [], "publish": [], "rollback": []}
        for i in range(5):
            out = f"{home}/snapshot"
            shutil.rmtree(out, ignore_errors=True)
            answer = ask(args, "snapshot", socket, out, "--diff")
            figures["paused"].append(answer["paused_ms"])
            figures["write"].append(answer["write_ms"])
            figures["publish"].append(answer["sync_ms"] + answer["publish_ms"])
        size = answer["memory_file_bytes"] / 2**20
        # To what was there before it was written, and no more than a few pages from then on.
        for _ in range(5):
            figures["rollback"].append(ask(args, "rollback", socket, path)["ms"])
        print(f"| {dirty} | {size:.1f} | " + " | ".join(
            f"{statistics.median(values):.1f}" for values in list(figures.values())[:3]) +
            f" | {figures['rollback'][0]:.1f}, {statistics.median(figures['rollback'][1:]):.1f} |")
        vmm.kill()
        vmm.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--memory", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--idle", type=int, default=20)
    parser.add_argument("--dirty", type=int, nargs="+", default=[0, 10, 50, 100, 200])
    parser.add_argument("--rootfs", default=BIN + "/guestkernel/debian.ext4",
                        help="an image with python3; '' for none")
    parser.add_argument("--boots", type=int, default=5)
    parser.add_argument("--agent-initrd", default=BIN + "/guestkernel/agent-initramfs")
    parser.add_argument("--vmm", default=BIN + "/vmm/cli/cube-vmm")
    parser.add_argument("--kernel", default=BIN + "/guestkernel/vmlinux")
    parser.add_argument("--initrd", default=BIN + "/guestkernel/initramfs")
    args = parser.parse_args()
    home = tempfile.mkdtemp(prefix="cube-bench-")
    os.environ["CUBE_HOME"] = home
    try:
        print(machine() + f", load {os.getloadavg()[0]:.1f}")
        for memory in args.memory:
            clones(args, memory)
        if args.rootfs:
            with_root_disk(args, home)
        idle(args, home, args.memory[-1])
        snapshots(args, home, args.memory[-1])
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
