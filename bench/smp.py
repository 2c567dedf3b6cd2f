#!/usr/bin/env python3
"""What several vCPUs cost each other: the guest stress tests that share memory, on one and on four.

    bench/smp.py [--rounds N] [--ring0 auto|kvm|engine]

Prints the machine and, for each test, the median and least time of the guest's program (its start
and end as the agent reports them), and what the engine counted in the last round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

from boot import BIN, machine

TESTS = {"shootdown": 60, "freshness": 100, "synchronisation": 50}
SHOWN = ["interrupts", "steps", "injections", "resynchronisations", "us in KVM_RUN", "us interpreting",
         "us waiting for the lock"]


def run(args, test, cpus):
    out = subprocess.run(
        [args.vmm, "run", "--json", f"--ring0={args.ring0}", "--kernel", args.kernel, "--initrd",
         args.initrd, "--cpus", str(cpus), "--", "/bin/stress", "-n", str(TESTS[test]), test],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False).stdout
    report = json.loads(out.splitlines()[-1])
    if report.get("status") != 0:
        sys.exit(f"{test} on {cpus} vCPUs: {report}")
    return report["milliseconds"]["command"], report["assists"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ring0", default="auto")
    parser.add_argument("--vmm", default=f"{BIN}/vmm/cli/cube-vmm")
    parser.add_argument("--kernel", default=f"{BIN}/guestkernel/vmlinux")
    parser.add_argument("--initrd", default=f"{BIN}/tests/guest/initramfs")
    args = parser.parse_args()
    print(machine())
    print(f"{args.rounds} rounds; load {os.getloadavg()[0]:.1f}\n")
    print("| | vCPUs | ms | " + " | ".join(SHOWN) + " |")
    print("|---" * (3 + len(SHOWN)) + "|")
    for test in TESTS:
        for cpus in (1, 4):
            results = [run(args, test, cpus) for _ in range(args.rounds)]
            times = [time for time, _ in results]
            counts = results[-1][1]
            print(f"| {test} | {cpus} | {statistics.median(times):.0f} ({min(times):.0f}) | "
                  + " | ".join(str(counts.get("ring0 " + name, "")) for name in SHOWN) + " |",
                  flush=True)


if __name__ == "__main__":
    main()
