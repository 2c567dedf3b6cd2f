#!/usr/bin/env python3
"""The ring-0 engine beside KVM's emulator and QEMU TCG: the same kernel, initrd and program.

    bench/ring0.py [--rounds N] [--seconds S] [--kvm-rounds N] [--no-qemu]
                   [--operation NAME]...

Runs bench/guest/ring0_bench in a guest of each, interleaved. KVM's emulator takes some minutes and
is left out unless asked for. Prints the machine, a table of medians (the least in parentheses), the
ratios to the engine, and what the engine counts for one operation of each kind.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from boot import BIN, machine

# One operation of each, counted: how often it is repeated for that, at least, and at least for a
# second, next to which the differences between two boots are small.
COUNTED = {
    "getpid": 1000, "anonymous write fault": 1024, "zero page fault": 1024,
    "file fault, per page": 4096, "copy on write fault": 1024, "pread 4 KiB": 500,
    "read 1 MiB": 20, "path of 2000": 50, "pipe round trip": 200, "signal": 200, "thread": 50,
    "futex round trip": 200, "mmap and munmap": 200, "fork, exit": 50, "vfork, exec true": 20,
    "fork, exec true": 20, "python print": 3,
}
COLUMNS = {
    "instructions": "ring0 instructions", "takeovers": "ring0 takeovers",
    "syscalls": "ring0 syscalls", "faults": "ring0 faults", "entries": "ring0 user entries",
    "steps": "ring0 steps", "assists": "ring0 assists", "replays": "ring0 replays",
    "us in KVM_RUN": "ring0 us in KVM_RUN", "us interpreting": "ring0 us interpreting",
}


def cube(args, mode, *command):
    """(what the guest printed, the report of its end)."""
    out = subprocess.run(
        [args.vmm, "run", "--boot", "--json", f"--ring0={mode}", "--kernel", args.kernel, "--initrd",
         args.initrd, "--memory", str(args.memory), "--", *command],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False, text=True).stdout
    events = [json.loads(line) for line in out.splitlines()]
    text = "".join(event["text"] for event in events if event["event"] in ("stdout", "stderr"))
    report = events[-1]
    if report.get("status") != 0:
        sys.exit(f"cube-vmm --ring0={mode}: {report}\n{text}")
    return text, report


def run_cube(args, mode):
    text, report = cube(args, mode, "/bin/ring0_bench", "--seconds", str(args.seconds),
                        *args.operation)
    boot = sum(report["milliseconds"][phase] for phase in ("probe", "create", "boot")) * 1e6
    return dict(json.loads(text), **{"boot to agent": {"median": boot, "least": boot}})


def run_qemu(args):
    start = time.monotonic()
    qemu = subprocess.Popen(
        ["qemu-system-x86_64", "-M", "microvm,acpi=off", "-accel", "tcg", "-cpu", "max",
         "-m", str(args.memory), "-nodefaults", "-no-user-config", "-display", "none", "-serial",
         "stdio", "-no-reboot", "-kernel", args.bzimage, "-initrd", args.initrd, "-append",
         "console=ttyS0 quiet reboot=t panic=-1 tsc=reliable no_timer_check noreplace-smp "
         f"percpu_alloc=page rodata=off rdinit=/bin/bench_init bench_seconds={args.seconds}"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    before, inside, boot = [], None, 0
    for line in qemu.stdout:
        if line.startswith("bench: clock") and "tsc" not in line:
            # The guest could not calibrate its TSC, and counts ticks of 10 ms: again.
            qemu.kill()
            qemu.wait()
            return run_qemu(args)
        if line.startswith("bench: start"):
            boot = (time.monotonic() - start) * 1e9
            inside = []
        elif line.startswith("bench: end"):
            qemu.wait()
            return dict(json.loads("".join(inside)), **{"boot to agent": {"median": boot,
                                                                          "least": boot}})
        else:
            (before if inside is None else inside).append(line)
    sys.exit("QEMU: the benchmark did not end: " + "".join((before + (inside or []))[-20:]))


def duration(nanoseconds):
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= scale:
            return f"{nanoseconds / scale:.3g} {unit}"
    return f"{nanoseconds:.0f} ns"


def print_table(results):
    engines = [name for name in ("engine", "qemu", "kvm") if results.get(name)]
    lines = ["boot to agent"] + [name for name in results[engines[0]][0] if name != "boot to agent"]
    ratios = [name for name in engines if name != "engine"] if "engine" in engines else []
    print("\n| | " + " | ".join(engines + [f"{name} / engine" for name in ratios]) + " |")
    print("|---" * (1 + len(engines) + len(ratios)) + "|")
    for line in lines:
        medians, cells = {}, []
        for engine in engines:
            found = [result[line] for result in results[engine] if line in result]
            medians[engine] = statistics.median(value["median"] for value in found)
            least = min(value["least"] for value in found)
            cells.append(f"{duration(medians[engine])} ({duration(least)})")
        cells += [f"{medians[name] / medians['engine']:.2g}" for name in ratios]
        print(f"| {line} | " + " | ".join(cells) + " |")
    return {line: statistics.median(result[line]["median"] for result in results["engine"])
            for line in lines} if "engine" in engines else {}


def count_operation(args, name, nanoseconds):
    """What the engine counts for one operation: the difference of two runs, by the operations."""
    counts = []
    count = max(COUNTED[name], int(1e9 / nanoseconds))
    for repetitions in (0, count):
        _, report = cube(args, "engine", "/bin/ring0_bench", "--repeat", name, str(repetitions))
        counts.append(dict(report["assists"], exits=report["exits"],
                           us=report["milliseconds"]["command"] * 1e3))
    return {key: (value - counts[0].get(key, 0)) / count
            for key, value in counts[1].items()}


def print_counts(args, medians):
    print("\nOne operation, as the engine counts it (the timer's interrupts included). Instructions a "
          "second: of the whole time, of the time outside KVM_RUN, of the interpreter's loop alone:\n")
    print("| | " + " | ".join(["us", "KVM exits", *COLUMNS, "M/s", "M/s outside KVM_RUN",
                               "M/s interpreting", "handed off"]) + " |")
    print("|---" * (len(COLUMNS) + 7) + "|")
    for name in COUNTED:
        if name not in medians:
            continue
        counts = count_operation(args, name, medians[name])
        elapsed = counts["us"]
        instructions = counts["ring0 instructions"]
        outside = max(elapsed - counts["ring0 us in KVM_RUN"], 1e-3)
        rates = [instructions / elapsed, instructions / outside,
                 instructions / max(counts["ring0 us interpreting"], 1e-3)]
        handed = sorted(((value, key.removeprefix("ring0 handed to KVM: ")) for key, value in counts.items()
                         if key.startswith("ring0 handed") and value >= 0.05), reverse=True)
        print(f"| {name} | {elapsed:.1f} | {counts['exits']:.2f} | "
              + " | ".join(f"{counts[key]:.2f}" for key in COLUMNS.values()) + " | "
              + " | ".join(f"{rate:.0f}" for rate in rates)
              + " | " + ", ".join(f"{key} {value:.1f}" for value, key in handed[:6])
              + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.4, help="for each line of a round")
    parser.add_argument("--kvm-rounds", type=int, default=0, help="rounds that KVM's emulator runs")
    parser.add_argument("--no-qemu", action="store_true")
    parser.add_argument("--no-counts", action="store_true")
    parser.add_argument("--operation", action="append", default=[],
                        help="measure only this one of the table's lines; may be repeated")
    parser.add_argument("--memory", type=int, default=256)
    parser.add_argument("--vmm", default=f"{BIN}/vmm/cli/cube-vmm")
    parser.add_argument("--kernel", default=f"{BIN}/guestkernel/vmlinux")
    parser.add_argument("--bzimage", default=f"{BIN}/guestkernel/bzImage")
    parser.add_argument("--initrd", default=f"{BIN}/bench/guest/initramfs")
    args = parser.parse_args()
    if args.operation:
        args.no_qemu = True  # which runs them all
    print(machine())
    print(f"{args.rounds} rounds, {args.memory} MiB, 1 vCPU; load {os.getloadavg()[0]:.1f} before")
    results = {"engine": [], "qemu": [], "kvm": []}
    for number in range(args.rounds):
        print(f"round {number + 1}", file=sys.stderr, flush=True)
        results["engine"].append(run_cube(args, "engine"))
        if not args.no_qemu:
            results["qemu"].append(run_qemu(args))
        if number < args.kvm_rounds:
            results["kvm"].append(run_cube(args, "kvm"))
    medians = print_table(results)
    if not args.no_counts:
        print_counts(args, medians)
    print(f"\nload {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
