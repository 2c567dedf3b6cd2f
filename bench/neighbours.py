#!/usr/bin/env python3
"""Neighbours benchmark: what clients of a node notice of guests that take what they can get.

    bench/neighbours.py --rootfs IMAGE [--rounds N] [--pool N] [--limit-cpus N] [--bin FOLDER]

A node of its own, with a template of 512 MiB. N times: a create (a parked clone is there), and a
command in a sandbox that was there before. Alone first; then beside each kind of guest by itself and
beside all of them: one that fills its memory again and again, one that forks without end, one that
writes to its disk, one that floods its serial port, one that floods its client, and one that
computes. Prints the machine, then a table: median and p90 in ms, and how many times those alone.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import struct
import subprocess
import tempfile
import threading
import time

from boot import BIN, machine

BAD = {
    "memory": "while :; do dd if=/dev/zero of=/dev/shm/x bs=1M count=400; rm -f /dev/shm/x; done",
    "forks": "forks() { forks & forks; }; forks",
    "disk": "while :; do dd if=/dev/zero of=/root/x bs=1M count=64 oflag=direct; done",
    "serial port": "yes > /dev/ttyS0",
    "its client": "yes",
    "computing": "while :; do :; done",
}


class Node:
    def __init__(self, args, home):
        self.path = f"{home}/cubed.sock"
        environment = dict(os.environ, CUBE_HOME=home)
        vmm = f"{args.bin}/vmm/cli/cube-vmm"
        subprocess.run(
            [vmm, "template", "build", "t", "--kernel", f"{args.bin}/guestkernel/vmlinux", "--initrd",
             f"{args.bin}/guestkernel/agent-initramfs", "--rootfs", os.path.realpath(args.rootfs),
             "--memory", "512", "--vsock", f"{home}/build.vsock"],
            env=environment, check=True, stdout=subprocess.DEVNULL)
        with open(f"{home}/cubed.toml", "w") as config:
            config.write(f"[pool]\nsize = {args.pool}\n[api]\nlisten = \"off\"\n")
        self.daemon = subprocess.Popen(
            [f"{args.bin}/pool/cubed", "--home", home, "--vmm", vmm, "--config",
             f"{home}/cubed.toml"],
            stdout=subprocess.PIPE, stderr=open(f"{home}/log", "w"))
        self.daemon.stdout.readline()

    def ask(self, **request):
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(self.path)
            link.sendall((json.dumps(request) + "\n").encode())
            answer = json.loads(link.makefile("r").readline())
        if not answer["ok"]:
            raise SystemExit(f"{request}: {answer['error']}")
        return answer

    def create(self, **more):
        return self.ask(op="sandbox.create", template="t", timeout_seconds=3600, **more)["sandbox"]

    def await_pool(self, size):
        while self.ask(op="node.status")["parked"] < size:
            time.sleep(0.02)


def command(path, script):
    """Runs it in the guest to its end; what it says is thrown away."""
    message = json.dumps({"process": {"cmd": "/bin/sh", "args": ["-c", script]},
                          "stdin": False}).encode()
    message = struct.pack(">BI", 0, len(message)) + message
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(path)
        link.sendall(b"CONNECT 49983\n")
        stream = link.makefile("rb")
        if not stream.readline().startswith(b"OK"):
            raise ConnectionError("the agent does not listen")
        link.sendall(b"POST /process.Process/Start HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n"
                     b"Authorization: Basic cm9vdDo=\r\n"
                     b"Content-Type: application/connect+json\r\nContent-Length: %d\r\n\r\n"
                     % len(message) + message)
        answered = False
        while stream.read1(65536):
            answered = True
        if not answered:
            raise ConnectionError("no answer")


def quietly(path, script):
    try:
        command(path, script)
    except OSError:
        pass  # it is killed in the end


def measure(args, node, there):
    creates, commands = [], []
    for _ in range(args.rounds):
        node.await_pool(args.pool)
        start = time.monotonic()
        one = node.create()
        creates.append((time.monotonic() - start) * 1000)
        start = time.monotonic()
        command(there["vsock"], "echo here")
        commands.append((time.monotonic() - start) * 1000)
        node.ask(op="sandbox.kill", id=one["id"])
    return creates, commands


def quantiles(times):
    return statistics.median(times), statistics.quantiles(times, n=10)[8]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rootfs", required=True)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--pool", type=int, default=2)
    parser.add_argument("--limit-cpus", type=float, help="of each of those guests")
    parser.add_argument("--bin", default=BIN)
    args = parser.parse_args()
    limits = {"limit_cpus": args.limit_cpus} if args.limit_cpus else {}
    print(machine() + (f", load {os.getloadavg()[0]:.1f}"))
    home = tempfile.mkdtemp(prefix="nb", dir="/var/tmp")
    node = Node(args, home)
    try:
        there = node.create()
        command(there["vsock"], "echo warm")
        print("\n| beside | create, median | p90 | times | command, median | p90 | times |\n"
              "|---|---|---|---|---|---|---|")
        alone = None
        kinds = [[]] + [[kind] for kind in BAD] + [list(BAD)]
        for names in kinds:
            guests = [node.create(**limits) for _ in names]
            clients = [threading.Thread(target=quietly, args=(guest["vsock"], BAD[name]))
                       for guest, name in zip(guests, names)]
            for client in clients:
                client.start()
            if names:
                time.sleep(1)  # until it has got going
            creates, commands = (quantiles(times) for times in measure(args, node, there))
            alone = alone or (creates, commands)
            print(f"| {'nobody' if not names else names[0] if len(names) == 1 else 'all of them'} | "
                  f"{creates[0]:.1f} | {creates[1]:.1f} | {creates[0] / alone[0][0]:.1f}, "
                  f"{creates[1] / alone[0][1]:.1f} | {commands[0]:.1f} | {commands[1]:.1f} | "
                  f"{commands[0] / alone[1][0]:.1f}, {commands[1] / alone[1][1]:.1f} |", flush=True)
            for guest in guests:
                node.ask(op="sandbox.kill", id=guest["id"])
            for client in clients:
                client.join()
        assert node.ask(op="sandbox.info", id=there["id"])["sandbox"]["state"] == "running"
    finally:
        for one in node.ask(op="sandbox.list")["sandboxes"]:
            node.ask(op="sandbox.kill", id=one["id"])
        node.ask(op="node.drain", mode="pause")
        node.daemon.wait()
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
