#!/usr/bin/env python3
"""Fork benchmark: what running clones of a running sandbox take.

    bench/fork.py [--rounds N] [--memory MiB] [--count N ...] [--dirty MiB ...]

For each count and amount of memory written before the fork: N forks of one sandbox, each clone ended
before the next fork. Times as `cube-vmm fork --json` reports them: the pause of the parent's guest,
each clone's time from the request to its machine being made and to its agent being READY, and all of
them. Then, of the largest fork without writes, what a clone takes of the host's MemAvailable.
Prints the machine, then tables: median, p90, least and most, in ms.
"""

import argparse
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import time

from boot import BIN, machine
from clone import ask, meminfo, row, run, start_clone, template


def wait_gone(home, ids):
    while any(os.path.exists(f"{home}/run/{one}.sock") for one in ids):
        time.sleep(0.005)


def stop(args, home, clones):
    ids = [clone["id"] for clone in clones]
    for one in ids:
        ask(args, "stop", one)
    wait_gone(home, ids)


def forks(args, home, path, dirty):
    # /root is in memory: what is written there is the guest's own.
    script = (f"head -c {dirty << 20} /dev/zero | tr '\\0' x > /root/f; " if dirty else "") + \
        "echo up; sleep 100000"
    vmm, said = start_clone(args, path, ["/bin/sh", "-c", script])
    if said != "up":
        sys.exit("the sandbox did not start")
    sandbox = max(glob.glob(home + "/run/*.sock"), key=os.path.getmtime)
    for count in args.count:
        figures = {"guest paused": [], "clone made": [], "clone READY": [], "all READY": []}
        for _ in range(max(1, min(args.rounds, 200 // count))):
            answer = ask(args, "fork", sandbox, "-n", str(count))
            figures["guest paused"].append(answer["pause_ms"])
            figures["clone made"] += [clone["made_ms"] for clone in answer["clones"]]
            figures["clone READY"] += [clone["ready_ms"] for clone in answer["clones"]]
            figures["all READY"].append(answer["total_ms"])
            stop(args, home, answer["clones"])
        print(f"\n{count} clones, {dirty} MiB written, {len(figures['all READY'])} forks\n\n"
              "| | median | p90 | least | most |\n|---|---|---|---|---|")
        for name, values in figures.items():
            row(name, values)
    if dirty == 0:
        time.sleep(5)
        before = meminfo()["MemAvailable"]
        answer = ask(args, "fork", sandbox, "-n", str(args.count[-1]))
        time.sleep(5)  # idle guests give memory back
        share = (before - meminfo()["MemAvailable"]) / args.count[-1]
        print(f"\n{args.count[-1]} idle clones: {share:.0f} KiB of the host's MemAvailable each")
        stop(args, home, answer["clones"])
    vmm.kill()
    vmm.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--memory", type=int, default=512)
    parser.add_argument("--count", type=int, nargs="+", default=[1, 10, 50, 100])
    parser.add_argument("--dirty", type=int, nargs="+", default=[0, 100])
    parser.add_argument("--vmm", default=BIN + "/vmm/cli/cube-vmm")
    parser.add_argument("--kernel", default=BIN + "/guestkernel/vmlinux")
    parser.add_argument("--initrd", default=BIN + "/guestkernel/initramfs")
    args = parser.parse_args()
    home = tempfile.mkdtemp(prefix="cube-bench-")
    os.environ["CUBE_HOME"] = home
    try:
        print(machine() + f", load {os.getloadavg()[0]:.1f}, {args.memory} MiB")
        run(args, args.memory, ["/bin/true"])  # makes the template
        for dirty in args.dirty:
            forks(args, home, template(home, args.memory), dirty)
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
