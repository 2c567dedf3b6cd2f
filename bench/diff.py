#!/usr/bin/env python3
"""Diff benchmark: snapshots of a running clone as diffs, against the memory it has written.

    bench/diff.py [--rounds N] [--memory MiB] [--dirty MiB ...] [--sizes MiB ...] [--restore MiB ...]
                  [--idle SECONDS]

First what the disk can do: that many MiB written in order past the page cache, one write at a time and
several in flight, then fsync. Then, for each amount of memory written in a guest of --memory: the
guest's pause, the writing of the snapshot while it runs on, the wait until it is on the disk, and its
publishing, which the answer to the request waits for; and rollbacks to the template. The same in guests
of other sizes with the same amount written. Each has been idle for --idle seconds before. Then what a restore of such a diff takes to READY, with the
memory in the page cache as the writer leaves it, and with none of it there. Medians, in ms; the load is
that at the start of each table.
"""

import argparse
import glob
import json
import mmap
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from boot import BIN, machine
from clone import ask, run, start_clone, template


def write_part(fd, offsets, buffer):
    for offset in offsets:
        os.pwrite(fd, buffer, offset)


def disk(home, mib, rounds):
    """Throughput of the disk under `home`: MiB/s, the median of some rounds."""
    buffer = mmap.mmap(-1, 1 << 20)
    buffer.write(os.urandom(1 << 20))
    print(f"\nthe disk: {mib} MiB in order, O_DIRECT, 1 MiB a write, load {os.getloadavg()[0]:.1f}\n\n"
          "| in flight | written, ms | fsync, ms | MiB/s |\n|---|---|---|---|")
    for depth in (1, 2, 4, 8):
        written, synced = [], []
        for _ in range(rounds):
            path = f"{home}/disk"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT)
            os.posix_fallocate(fd, 0, mib << 20)
            parts = [threading.Thread(target=write_part, args=(
                fd, range(part << 20, mib << 20, depth << 20), buffer)) for part in range(depth)]
            start = time.monotonic()
            for part in parts:
                part.start()
            for part in parts:
                part.join()
            middle = time.monotonic()
            os.fsync(fd)
            synced.append((time.monotonic() - middle) * 1e3)
            written.append((middle - start) * 1e3)
            os.close(fd)
            os.unlink(path)
        whole = statistics.median(a + b for a, b in zip(written, synced))
        print(f"| {depth} | {statistics.median(written):.1f} | {statistics.median(synced):.1f} | "
              f"{mib / whole * 1e3:.0f} |")


class Sandbox:
    """A running clone that has written so much."""

    def __init__(self, args, home, memory, dirty):
        # /root is in memory: what is written there is the guest's own.
        script = (f"head -c {dirty << 20} /dev/zero | tr '\\0' x > /root/f; " if dirty else "") + \
            "echo up; sleep 100000"
        self.args = args
        self.vmm, said = start_clone(args, template(home, memory), ["/bin/sh", "-c", script])
        if said != "up":
            sys.exit("the sandbox did not start")
        self.socket = max(glob.glob(home + "/run/*.sock"), key=os.path.getmtime)
        time.sleep(args.idle)

    def snapshot(self, out):
        shutil.rmtree(out, ignore_errors=True)
        return ask(self.args, "snapshot", self.socket, out, "--diff")

    def close(self):
        self.vmm.kill()
        self.vmm.wait()


def diffs(args, home, cases):
    print(f"\ndiffs, {args.rounds} each, load {os.getloadavg()[0]:.1f}, ms\n\n"
          "| guest, MiB | written, MiB | file, MiB | paused | written | synced | published | all, "
          "least to most | rollback: first, next |\n|---|---|---|---|---|---|---|---|---|")
    for memory, dirty in cases:
        sandbox = Sandbox(args, home, memory, dirty)
        figures = {"paused_ms": [], "write_ms": [], "sync_ms": [], "publish_ms": [], "total_ms": []}
        out = f"{home}/snapshot"
        for _ in range(args.rounds):
            answer = sandbox.snapshot(out)
            for name, values in figures.items():
                values.append(answer.get(name, 0))
        shutil.rmtree(out)
        # To what was there before it was written, and no more than a few pages from then on.
        back = [ask(args, "rollback", sandbox.socket, template(home, memory))["ms"] for _ in range(5)]
        total = sorted(figures.pop("total_ms"))
        print(f"| {memory} | {dirty} | {answer['memory_file_bytes'] / 2**20:.1f} | " +
              " | ".join(f"{statistics.median(values):.1f}" for values in figures.values()) +
              f" | {statistics.median(total):.1f} ({total[0]:.1f} to {total[-1]:.1f}) | "
              f"{back[0]:.1f}, {statistics.median(back[1:]):.1f} |", flush=True)
        sandbox.close()


def restore(args, path):
    """Milliseconds from exec to READY as the process reports them."""
    before = set(glob.glob(os.environ["CUBE_HOME"] + "/run/*.sock"))
    vmm = subprocess.Popen([args.vmm, "restore", path, "--json"], stdin=subprocess.PIPE,
                           stdout=subprocess.PIPE)
    while not (found := set(glob.glob(os.environ["CUBE_HOME"] + "/run/*.sock")) - before):
        time.sleep(0.005)
    time.sleep(0.5)
    ask(args, "stop", found.pop())
    report = json.loads(vmm.communicate()[0].splitlines()[-1])
    phases = report["milliseconds"]
    if "agent" not in phases:
        sys.exit(f"not ready in half a second: {report}")
    return phases["create"], phases["agent"], phases["probe"] + phases["create"] + phases["agent"]


def restores(args, home, memory):
    print(f"\nrestored, {args.rounds} each, guest of {memory} MiB, load {os.getloadavg()[0]:.1f}, ms\n\n"
          "| written, MiB | file, MiB | restored, READY after: as the writer leaves it | all, to READY "
          "| from the disk | all, to READY |\n|---|---|---|---|---|---|")
    for dirty in args.restore:
        sandbox = Sandbox(args, home, memory, dirty)
        warm, cold = [], []
        out = f"{home}/snapshot"
        for _ in range(args.rounds):
            size = sandbox.snapshot(out)["memory_file_bytes"]
            warm.append(restore(args, out))
            fd = os.open(out + "/memory", os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
            cold.append(restore(args, out))
        sandbox.close()
        show = lambda rows: " | ".join((", ".join(f"{statistics.median(r[i] for r in rows):.1f}"
                                                  for i in (0, 1)),
                                        f"{statistics.median(r[2] for r in rows):.1f}"))
        print(f"| {dirty} | {size / 2**20:.1f} | {show(warm)} | {show(cold)} |", flush=True)
        shutil.rmtree(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--memory", type=int, default=1280)
    parser.add_argument("--idle", type=float, default=5)
    parser.add_argument("--dirty", type=int, nargs="*", default=[0, 10, 50, 100, 200, 500])
    parser.add_argument("--sizes", type=int, nargs="*", default=[256, 512, 2048],
                        help="guests that have 0 and 100 MiB written")
    parser.add_argument("--restore", type=int, nargs="*", default=[7, 100, 500, 1024])
    parser.add_argument("--restore-memory", type=int, default=2304)
    parser.add_argument("--disk", type=int, default=100, help="MiB; 0: not")
    parser.add_argument("--vmm", default=BIN + "/vmm/cli/cube-vmm")
    parser.add_argument("--kernel", default=BIN + "/guestkernel/vmlinux")
    parser.add_argument("--initrd", default=BIN + "/guestkernel/initramfs")
    args = parser.parse_args()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    home = tempfile.mkdtemp(prefix="cube-bench-")
    os.environ["CUBE_HOME"] = home
    try:
        print(machine())
        if args.disk:
            disk(home, args.disk, args.rounds)
        cases = [(args.memory, dirty) for dirty in args.dirty]
        cases += [(memory, dirty) for memory in args.sizes for dirty in (0, 100)]
        for memory in sorted({memory for memory, _ in cases} |
                             ({args.restore_memory} if args.restore else set())):
            run(args, memory, ["/bin/true"])  # makes the template
        if cases:
            diffs(args, home, cases)
        if args.restore:
            restores(args, home, args.restore_memory)
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
