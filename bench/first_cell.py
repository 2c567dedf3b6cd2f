#!/usr/bin/env python3
"""First cell benchmark: what a fresh clone takes for print(1) through the code interpreter's port.

    bench/first_cell.py [--rounds N] --rootfs IMAGE

For each of N clones of one template: the time of the restore up to READY as `cube-vmm run --json`
reports it, of the first POST /execute of print(1) from connect to the end of the response, of the
second one, of a first figure, and the clone's own memory (Anonymous of cube-vmm) before and after
the first cell. Prints the machine, then a table: median, p90, least and most.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import tempfile
import time

from boot import BIN, machine

FIGURE = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"


def execute(path, code):
    """Milliseconds of one execution."""
    body = json.dumps({"code": code}).encode()
    start = time.monotonic()
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(60)
        link.connect(path)
        link.sendall(b"CONNECT 49999\n")
        stream = link.makefile("rb")
        if not stream.readline().startswith(b"OK"):
            raise SystemExit("the interpreter's port is closed")
        link.sendall(b"POST /execute HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n"
                     b"Content-Length: %d\r\n\r\n" % len(body) + body)
        answer = stream.read()
    if b" 200 " not in answer or b'"type":"error"' in answer:
        raise SystemExit(answer.decode())
    return (time.monotonic() - start) * 1000


def anonymous_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return sum(int(line.split()[1]) for line in rollup if line.startswith("Anonymous:"))


def one(args, home, figures):
    path = f"{home}/vsock"
    command = [args.vmm, "run", "--kernel", args.kernel, "--initrd", args.initrd, "--memory", "512",
               "--rootfs", os.path.realpath(args.rootfs), "--vsock", path, "--", "/bin/sh", "-c",
               "echo up; exec cat"]
    clone = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    if clone.stdout.readline() != b"up\n":
        raise SystemExit("the clone did not start")
    before = anonymous_kib(clone.pid)
    first = execute(path, "print(1)")
    after = anonymous_kib(clone.pid)
    row = {"first print(1), ms": first, "second print(2), ms": execute(path, "print(2)"),
           "first figure, ms": execute(path, FIGURE), "own memory before, KiB": before,
           "own memory after the first cell, KiB": after,
           "own memory after the figure, KiB": anonymous_kib(clone.pid)}
    clone.stdin.close()
    clone.wait()
    if figures is not None:
        for name, value in row.items():
            figures.setdefault(name, []).append(value)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--vmm", default=f"{BIN}/vmm/cli/cube-vmm")
    parser.add_argument("--kernel", default=f"{BIN}/guestkernel/vmlinux")
    parser.add_argument("--initrd", default=f"{BIN}/guestkernel/agent-initramfs")
    parser.add_argument("--rootfs", required=True, help="what tools/build-rootfs.sh code prints")
    args = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory(prefix="cube-first-cell-") as home:
        os.environ["CUBE_HOME"] = home
        one(args, home, None)  # makes the template
        for _ in range(args.rounds):
            one(args, home, figures)
    print(machine())
    print(f"\n{args.rounds} clones\n\n| | median | p90 | least | most |\n|---|---|---|---|---|")
    for name, values in figures.items():
        values.sort()
        p90 = values[min(len(values) - 1, int(len(values) * 0.9))]
        print(f"| {name} | {statistics.median(values):.1f} | {p90:.1f} | {values[0]:.1f} | {values[-1]:.1f} |")


main()
