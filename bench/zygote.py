#!/usr/bin/env python3
"""Zygote benchmark: clones forked from one process, parked, and started.

    bench/zygote.py [--memory MiB ...] [--rounds N] [--many N ...]

For each guest memory size: N clones one after another (request to parked, and start to READY, each
with what the clone itself reports), and N asked for at once: until all are parked, and until all that
were started at once are READY. Then the host's MemAvailable and the process's own memory for the
largest number, idle. Prints the machine, then tables: median, p90, p99, least and most in ms.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from boot import BIN, machine
from clone import meminfo, template


class Peer:
    """A control socket, line by line."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile("r")

    def send(self, request):
        self.socket.sendall((json.dumps(request) + "\n").encode())

    def receive(self):
        answer = json.loads(self.lines.readline())
        if not answer["ok"]:
            sys.exit(answer["error"])
        return answer

    def ask(self, request):
        self.send(request)
        return self.receive()


class Zygote:
    def __init__(self, args, home, memory):
        subprocess.run([args.vmm, "run", "--kernel", args.kernel, "--initrd", args.initrd, "--memory",
                        str(memory), "--", "/bin/true"], check=True)
        self.home = home
        self.path = f"{home}/zygote.sock"
        self.process = subprocess.Popen(
            [args.vmm, "zygote", template(home, memory), "--socket", self.path],
            stdout=subprocess.PIPE)
        self.process.stdout.readline()

    def sandbox(self, answer):
        return Peer(f"{self.home}/run/{answer['id']}.sock")

    def close(self):
        Peer(self.path).ask({"op": "stop"})
        self.process.wait()


def row(name, values):
    values = sorted(values)
    at = lambda share: values[min(len(values) - 1, int(len(values) * share))]
    print(f"| {name} | {statistics.median(values):.2f} | {at(.9):.2f} | {at(.99):.2f} | "
          f"{values[0]:.2f} | {values[-1]:.2f} |")


def one_by_one(zygote, rounds):
    figures = {}
    peer = Peer(zygote.path)
    for _ in range(rounds):
        begin = time.monotonic()
        answer = peer.ask({"op": "clone"})
        parked = time.monotonic()
        sandbox = zygote.sandbox(answer)
        connected = time.monotonic()
        ready = sandbox.ask({"op": "start"})
        end = time.monotonic()
        figures.setdefault("clone: request to parked", []).append((parked - begin) * 1e3)
        for name, value in answer["ms"].items():
            figures.setdefault(f"of it: {name}", []).append(value)
        figures.setdefault("start to READY, as the client sees it", []).append(
            (end - connected) * 1e3)
        figures.setdefault("start to READY, as the clone sees it", []).append(ready["ready_ms"])
        figures.setdefault("clone to READY", []).append((end - begin) * 1e3)
        sandbox.ask({"op": "stop"})
    print("\n| | median | p90 | p99 | least | most |\n|---|---|---|---|---|---|")
    for name, values in figures.items():
        row(name, values)


def at_once(zygote, count, measure_memory):
    before = meminfo()
    begin = time.monotonic()
    peers = [Peer(zygote.path) for _ in range(count)]
    for peer in peers:
        peer.send({"op": "clone"})
    answers = [peer.receive() for peer in peers]
    parked = time.monotonic()
    warm = meminfo()
    sandboxes = [zygote.sandbox(answer) for answer in answers]
    begin_start = time.monotonic()
    for sandbox in sandboxes:
        sandbox.send({"op": "start"})
    for sandbox in sandboxes:
        sandbox.receive()
    ready = time.monotonic()
    print(f"\n{count} at once: parked {(parked - begin) * 1e3:.0f} ms, then READY "
          f"{(ready - begin_start) * 1e3:.0f} ms, together {(ready - begin) * 1e3:.0f} ms")
    if measure_memory:
        time.sleep(5)
        after = meminfo()
        share = lambda one, key: (one[key] - before[key]) / count
        private = []
        for answer in answers:
            fields = dict(line.split()[:2] for line in open(f"/proc/{answer['pid']}/smaps_rollup")
                          if line.split()[0] in ("Pss:", "Anonymous:"))
            private.append((int(fields["Pss:"]), int(fields["Anonymous:"])))
        print(f"each of {count}, KiB: MemAvailable {-share(warm, 'MemAvailable'):.0f} parked, "
              f"{-share(after, 'MemAvailable'):.0f} idle for 5 s; "
              f"PSS {statistics.median(p for p, _ in private):.0f}, "
              f"Anonymous {statistics.median(a for _, a in private):.0f}; "
              + ", ".join(f"{key} {share(after, key):.0f}" for key in
                          ("Slab", "PageTables", "SecPageTables", "VmallocUsed", "KernelStack")
                          if key in after))
    for sandbox in sandboxes:
        sandbox.ask({"op": "stop"})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--memory", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--many", type=int, nargs="+", default=[10, 50, 100])
    parser.add_argument("--vmm", default=BIN + "/vmm/cli/cube-vmm")
    parser.add_argument("--kernel", default=BIN + "/guestkernel/vmlinux")
    parser.add_argument("--initrd", default=BIN + "/guestkernel/initramfs")
    args = parser.parse_args()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    home = tempfile.mkdtemp(prefix="cube-bench-")
    os.environ["CUBE_HOME"] = home
    try:
        print(machine() + f", load {os.getloadavg()[0]:.1f}")
        for memory in args.memory:
            print(f"\n## {memory} MiB")
            zygote = Zygote(args, home, memory)
            one_by_one(zygote, args.rounds)
            for count in args.many:
                at_once(zygote, count, count == args.many[-1])
            zygote.close()
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
