"""What a VMM's devices cost the host, by request: for blk.py and net.py.

A guest runs bench/guest/io_load.cc, which says on its console when a load begins and ends. At these
lines the processor time of each thread of the VMM is read (/proc/PID/task/TID/schedstat, in
nanoseconds; kernel threads that work for it, io_uring's and KVM's, are among its tasks). All but the
vCPUs' count as the host's side. A thread may end within a load: it is looked at every 0.2 s, and
threads that end were idle for seconds before.
"""

import argparse
import collections
import os
import statistics
import subprocess
import sys
import threading

from boot import BIN, machine

# Of a vCPU's thread of QEMU, whose kicks end in the device's own code, only the time in the kernel
# (10 ms ticks, scaled by the kernel to what ran) can be told from that of the guest's instructions.
TICK = 1 / os.sysconf("SC_CLK_TCK")

Load = collections.namedtuple("Load", "requests seconds threads vcpu vcpu_kernel")


class Threads:
    """Processor time of a process's threads, those included that have ended."""

    def __init__(self, pid):
        self._pid = pid
        self._seconds = {}  # (tid, name): seconds
        self._kernel = {}
        self._lock = threading.Lock()

    def look(self):
        with self._lock:
            for tid in os.listdir(f"/proc/{self._pid}/task"):
                folder = f"/proc/{self._pid}/task/{tid}"
                try:
                    name = open(f"{folder}/comm").read().strip()
                    run = int(open(f"{folder}/schedstat").read().split()[0]) / 1e9
                    kernel = int(open(f"{folder}/stat").read().rsplit(")", 1)[1].split()[12]) * TICK
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if int(tid) == self._pid:
                    name = "main"
                self._seconds[(int(tid), name)] = run
                self._kernel[(int(tid), name)] = kernel
            return dict(self._seconds), dict(self._kernel)


def is_vcpu(name):
    # cube-vmm names no thread: what is neither its first nor the kernel's runs a vCPU. QEMU's are
    # named by debug-threads=on.
    return name.startswith("cube-vmm") or (name.startswith("CPU ") and name.endswith(("TCG", "KVM")))


def run_guest(command):
    """Runs a VMM until its load is done; {name of the load: Load}."""
    vmm = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True)
    threads, ended = Threads(vmm.pid), threading.Event()

    def watch():
        while not ended.wait(0.2):
            try:
                threads.look()
            except FileNotFoundError:
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    loads, before, seen = {}, None, []
    try:
        for line in vmm.stdout:
            words = line.split()
            seen.append(line)
            if words[:1] != ["load"] or len(words) < 3:
                continue
            if words[2] == "begin":
                before = threads.look()
            elif words[2] == "end":
                loads[words[1]] = difference(before, threads.look(), int(words[3]), float(words[4]))
            elif words[1:] == ["all", "done"]:
                return loads
        sys.exit(f"{command[0]}: the load did not end: " + "".join(seen[-20:]))
    finally:
        ended.set()
        watcher.join()
        vmm.kill()
        vmm.wait()


def difference(before, after, requests, seconds):
    host, vcpu, kernel = collections.Counter(), 0, 0
    for key, value in after[0].items():
        spent = value - before[0].get(key, 0)
        if is_vcpu(key[1]):
            vcpu += spent
            kernel += after[1][key] - before[1].get(key, 0)
        else:
            name = key[1].rstrip("0123456789").rstrip("-")
            host[name] += spent
    return Load(requests, seconds, host, vcpu, kernel)


def qemu(args, load, devices):
    return ["qemu-system-x86_64", "-name", "bench,debug-threads=on", "-M", "microvm,acpi=off", "-accel",
            "tcg", "-cpu", "max", "-m", str(args.memory), "-nodefaults", "-no-user-config", "-display",
            "none", "-serial", "stdio", "-no-reboot", "-kernel", args.bzimage, "-initrd", args.initrd,
            "-global", "virtio-mmio.force-legacy=false", *devices, "-append",
            "console=ttyS0 quiet reboot=t panic=-1 tsc=reliable no_timer_check noreplace-smp "
            f"percpu_alloc=page rodata=off rdinit=/bin/io_init io_load={':'.join(load)}"]


def cube(args, load, devices):
    """{name of the guest: command}, for each build."""
    builds = {"cube-vmm": args.vmm} | ({"before": args.before} if args.before else {})
    return {name: [vmm, "run", f"--ring0={args.ring0}", "--kernel", args.kernel, "--initrd",
                   args.initrd, "--memory", str(args.memory), *devices, "--", "/bin/io_load", *load]
            for name, vmm in builds.items()}


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="of each load")
    parser.add_argument("--memory", type=int, default=256)
    parser.add_argument("--ring0", default="auto", help="auto, kvm or engine")
    parser.add_argument("--no-qemu", action="store_true")
    parser.add_argument("--before", help="another build of cube-vmm, to compare")
    parser.add_argument("--vmm", default=f"{BIN}/vmm/cli/cube-vmm")
    parser.add_argument("--kernel", default=f"{BIN}/guestkernel/vmlinux")
    parser.add_argument("--bzimage", default=f"{BIN}/guestkernel/bzImage")
    parser.add_argument("--initrd", default=f"{BIN}/bench/guest/io_initramfs")
    return parser


def measure(args, guests):
    """Every guest in every round; {name of the guest: [{load: Load}, ...]}."""
    print(f"{machine()}; {args.rounds} rounds, {args.seconds:g} s a load, guest of {args.memory} MiB "
          f"and 1 vCPU; load {os.getloadavg()[0]:.1f} before", flush=True)
    results = {name: [] for name in guests}
    for number in range(args.rounds):
        print(f"round {number + 1}", file=sys.stderr, flush=True)
        for name, command in guests.items():
            results[name].append(run_guest(command))
    print_tables(results)
    print(f"\nload {os.getloadavg()[0]:.1f} after")


def cell(values, form="{:.1f}"):
    return f"{form.format(statistics.median(values))} ({form.format(min(values))})"


def microseconds(rounds, load, seconds):
    return [seconds(each[load]) / each[load].requests * 1e6 for each in rounds]


def print_tables(results):
    loads = list(next(iter(results.values()))[0])
    columns = list(results)

    def table(title, values, form="{:.1f}"):
        print(f"\n{title}\n\n| | " + " | ".join(columns) + " |\n|---" + "|---" * len(columns) + "|")
        for load in loads:
            print(f"| {load} | " + " | ".join(cell(values(results[name], load), form)
                                              for name in columns) + " |")

    table("Processor time of all threads but the vCPU's, us a request: median (least)",
          lambda rounds, load: microseconds(rounds, load, lambda l: sum(l.threads.values())))
    table("The vCPU's thread in the host's kernel, us a request: median (least)",
          lambda rounds, load: microseconds(rounds, load, lambda l: l.vcpu_kernel))
    table("Requests a second, as the guest counts them: median (least)",
          lambda rounds, load: [each[load].requests / each[load].seconds for each in rounds],
          "{:.0f}")
    print("\nBy thread, us a request, median:\n")
    for name, rounds in results.items():
        for load in loads:
            threads = sorted({thread for each in rounds for thread in each[load].threads})
            medians = {t: statistics.median(microseconds(rounds, load, lambda l, t=t: l.threads[t]))
                       for t in threads}
            print(f"    {name}, {load}: " + ", ".join(
                f"{thread} {value:.1f}" for thread, value in medians.items() if value >= 0.05))
