#!/usr/bin/env python3
"""A machine from a file to its first word: cube-vmm's clones beside QEMU's -incoming, one run.

    bench/incoming.py [--rounds N] [--memory MiB ...]

The same kernel and initrd. QEMU (machine microvm, -accel tcg, which is the accelerator that runs such a
guest here) has booted the guest to a shell that waits for a line on its console, and has written it to a
file by migration; it is started with `-incoming` and the line, and the guest answers READY. cube-vmm's
guest is its template; `cube-vmm clone` starts a process that says the sandbox's id once its agent is
READY, and a zygote forks one on request. Times from the start of the process, or the request, until that
word has arrived, interleaved. Prints the machine, then a table: median, p90, p99, least and most, ms.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from boot import BIN, machine
from clone import template
from zygote import Zygote, Peer, row


def qemu(args, memory, *more):
    return subprocess.Popen(
        ["qemu-system-x86_64", "-M", "microvm,acpi=off", "-accel", "tcg", "-cpu", "max", "-m",
         str(memory), "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio",
         "-no-reboot", "-kernel", args.bzimage, "-initrd", args.initrd, "-append",
         "console=ttyS0 quiet reboot=t panic=-1 tsc=reliable no_timer_check noreplace-smp "
         'percpu_alloc=page rodata=off rdinit=/bin/sh -- -c '
         '"echo WAITING; while read x; do echo READY; done"', *more],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def wait_for(process, word):
    seen = b""
    while True:
        line = process.stdout.readline()
        if not line:
            sys.exit(f"QEMU ended without {word}: " + seen[-400:].decode(errors="replace"))
        seen += line
        if word in line.split():
            return


class Monitor:
    """QEMU's machine protocol."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile("r")
        self.lines.readline()
        self.ask("qmp_capabilities")

    def ask(self, command, **arguments):
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        while True:
            answer = json.loads(self.lines.readline())
            if "error" in answer:
                sys.exit(f"QEMU: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]


def migrate(args, memory, folder):
    path = f"{folder}/qemu-{memory}"
    process = qemu(args, memory, "-qmp", f"unix:{folder}/qmp,server=on,wait=off")
    wait_for(process, b"WAITING")
    monitor = Monitor(f"{folder}/qmp")
    monitor.ask("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
    monitor.ask("migrate", uri=f"exec:cat > {path}")
    while True:
        status = monitor.ask("query-migrate").get("status")
        if status == "completed":
            break
        if status == "failed":
            sys.exit("QEMU's migration failed")
        time.sleep(0.05)
    process.kill()
    process.wait()
    return path


def incoming(args, memory, path):
    begin = time.monotonic()
    process = qemu(args, memory, "-incoming", f"exec:cat {path}")
    process.stdin.write(b"go\n")
    process.stdin.flush()
    wait_for(process, b"READY")
    seconds = time.monotonic() - begin
    process.kill()
    process.wait()
    return seconds * 1e3


def clone(args, home, memory):
    begin = time.monotonic()
    process = subprocess.Popen([args.vmm, "clone", template(home, memory)], stdout=subprocess.PIPE)
    if not process.stdout.readline():
        sys.exit("cube-vmm: no clone")
    seconds = time.monotonic() - begin
    process.terminate()
    process.wait()
    return seconds * 1e3


def from_zygote(zygote, peer):
    begin = time.monotonic()
    sandbox = zygote.sandbox(peer.ask({"op": "clone"}))
    sandbox.ask({"op": "start"})
    seconds = time.monotonic() - begin
    sandbox.ask({"op": "stop"})
    return seconds * 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--memory", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--vmm", default=BIN + "/vmm/cli/cube-vmm")
    parser.add_argument("--kernel", default=BIN + "/guestkernel/vmlinux")
    parser.add_argument("--bzimage", default=BIN + "/guestkernel/bzImage")
    parser.add_argument("--initrd", default=BIN + "/guestkernel/initramfs")
    args = parser.parse_args()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    home = tempfile.mkdtemp(prefix="cube-bench-")
    os.environ["CUBE_HOME"] = home
    print(machine())
    try:
        for memory in args.memory:
            zygote = Zygote(args, home, memory)
            peer = Peer(zygote.path)
            path = migrate(args, memory, home)
            figures = {}
            for _ in range(args.rounds):
                for name, value in (
                        ("QEMU TCG, -incoming", lambda: incoming(args, memory, path)),
                        ("cube-vmm clone, a process of its own", lambda: clone(args, home, memory)),
                        ("cube-vmm zygote", lambda: from_zygote(zygote, peer))):
                    figures.setdefault(name, []).append(value())
            print(f"\n{memory} MiB, {args.rounds} rounds; QEMU's file "
                  f"{os.stat(path).st_blocks // 2048} MiB\n\n"
                  "| ms | median | p90 | p99 | least | most |\n|---|---|---|---|---|---|")
            for name, values in figures.items():
                row(name, values)
            zygote.close()
            os.remove(path)
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
