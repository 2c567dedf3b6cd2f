#!/usr/bin/env python3
"""What clients of a sandbox wait for: commands and files through vsock, on a clone.

    bench/envd.py [--rounds N] [--clones N] [--mebibytes N] [--memory MIB]

The root is the Debian disk (//guestkernel:debian). First, of so many fresh clones, the first echo, the
second and the tenth. The rest is of one clone. Times are from the request's first byte to the
answer's last, each on a new connection, as the SDK's first request is:
  health          GET /health
  true            process.Process/Start of /bin/true, to the end of its stream
  bash            /bin/bash -c true
  echo            what commands.run('echo hello') sends: /bin/bash -l -c 'echo hello'
  up, down        a file of so many MiB by POST and GET /files
  start           user-mode processor time of the daemon as a program of this host, where user mode is as
                  fast as in a guest, from exec to its first answer
What the agent is resident with is read in the guest, from /proc/1/status, at the end; and before all
else the processor time it has taken so far, which is from its start to the clone's first request, all
warming up included.
"""

import argparse
import base64
import contextlib
import json
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

from boot import BIN, machine

PORT = 49983


def connect(path):
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(path)
    stream.sendall(f"CONNECT {PORT}\n".encode())
    line = b""
    while not line.endswith(b"\n"):
        byte = stream.recv(1)
        if not byte:
            sys.exit("the guest does not answer")
        line += byte
    return stream


def exchange(path, head, body=b""):
    """Sends a request; gives the answer's status and body. The connection ends with it."""
    stream = connect(path)
    start = time.monotonic()
    head += f"\r\nHost: sandbox\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    stream.sendall(head.encode() + body)
    pieces = []
    while piece := stream.recv(1 << 18):
        pieces.append(piece)
    seconds = time.monotonic() - start
    answer = b"".join(pieces)
    return int(answer[9:12]), answer[answer.index(b"\r\n\r\n") + 4:], seconds


def start(path, command, arguments):
    message = json.dumps({"process": {"cmd": command, "args": arguments}, "stdin": False}).encode()
    status, body, seconds = exchange(
        path, "POST /process.Process/Start HTTP/1.1\r\nContent-Type: application/connect+json",
        struct.pack(">BI", 0, len(message)) + message)
    if status != 200 or b'"end"' not in body:
        sys.exit(f"{command}: {status} {body}")
    return body, seconds


def output(body):
    data = [part.split(b'"')[0] for part in body.split(b'"stdout":"')[1:]]
    return b"".join(base64.b64decode(part) for part in data).decode()


def report(name, seconds):
    ms = sorted(second * 1e3 for second in seconds)
    print(f"{name:10} p50 {statistics.median(ms):7.2f} ms   p90 {ms[int(len(ms) * 0.9)]:7.2f}   "
          f"min {ms[0]:7.2f}   max {ms[-1]:7.2f}   n {len(ms)}")


ECHO = ("/bin/bash", ["-l", "-c", "echo hello"])


def measure_start(args):
    times = []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for _ in range(args.clones):
        pid = os.posix_spawn(args.program, [args.program, str(port)], os.environ)
        while True:
            try:
                stream = socket.create_connection(("127.0.0.1", port))
                break
            except ConnectionRefusedError:
                pass
        with stream:
            stream.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            stream.recv(4096)
        os.kill(pid, signal.SIGKILL)
        times.append(os.wait4(pid, 0)[2].ru_utime)
    report("start", times)


def measure_first(args, clone):
    times = []
    for _ in range(args.clones):
        with clone() as path:
            times.append([start(path, *ECHO)[1] for _ in range(10)])
    for name, number in [("1st echo", 0), ("2nd echo", 1), ("10th echo", 9)]:
        report(name, [each[number] for each in times])


# The processor time of another process is a clock (clock_getcpuclockid(3)).
CPU_CLOCK = ("import time; print(time.clock_gettime(((~1) << 3) | 2), "
             "*open('/proc/1/stat').read().split()[13:15])")


def measure(args, path):
    seconds, user, kernel = output(start(path, "/usr/bin/python3", ["-c", CPU_CLOCK])[0]).split()
    print(f"agent: {float(seconds) * 1e3:.1f} ms of processor time since its start, by ticks of 10 ms "
          f"{user} of them in user mode and {kernel} in the kernel")
    start(path, *ECHO)
    report("health", [exchange(path, "GET /health HTTP/1.1")[2] for _ in range(args.rounds)])
    for name, command, arguments in [("true", "/bin/true", []), ("bash", "/bin/bash", ["-c", "true"]),
                                     ("echo", *ECHO)]:
        report(name, [start(path, command, arguments)[1] for _ in range(args.rounds)])
    data = os.urandom(args.mebibytes << 20)
    rates = {"up": [], "down": []}
    for _ in range(3):
        status, _, seconds = exchange(
            path, "POST /files?path=/tmp/file HTTP/1.1\r\nContent-Type: application/octet-stream", data)
        rates["up"].append(args.mebibytes / seconds)
        status, body, seconds = exchange(path, "GET /files?path=/tmp/file HTTP/1.1")
        if body != data:
            sys.exit("what came back is not what was sent")
        rates["down"].append(args.mebibytes / seconds)
    for name, each in rates.items():
        print(f"{name:10} {args.mebibytes} MiB at {', '.join(f'{rate:.0f}' for rate in each)} MiB/s")
    status, _ = start(path, "/bin/cat", ["/proc/1/status"])
    for line in output(status).splitlines():
        if line.startswith(("VmRSS", "RssAnon", "RssFile", "VmHWM")):
            print("agent:", " ".join(line.split()))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vmm", default=os.path.join(BIN, "vmm/cli/cube-vmm"))
    parser.add_argument("--kernel", default=os.path.join(BIN, "guestkernel/vmlinux"))
    parser.add_argument("--initrd", default=os.path.join(BIN, "guestkernel/agent-initramfs"))
    parser.add_argument("--rootfs", default=os.path.join(BIN, "guestkernel/debian.ext4"))
    parser.add_argument("--program", default=os.path.join(BIN, "guestkernel/agent/envd/envd_program"))
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--clones", type=int, default=10)
    parser.add_argument("--mebibytes", type=int, default=32)
    parser.add_argument("--memory", type=int, default=512)
    args = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(prefix="cube-envd-") as home:
        environment = dict(os.environ, CUBE_HOME=home)
        run = lambda *words, **more: subprocess.run([args.vmm, *words], env=environment, check=True,
                                                    **more)
        path = os.path.join(home, "vsock")
        run("template", "build", "bench", "--kernel", args.kernel, "--initrd", args.initrd, "--rootfs",
            os.path.realpath(args.rootfs), "--memory", str(args.memory), "--vsock", path + "-template",
            stdout=subprocess.DEVNULL)

        @contextlib.contextmanager
        def clone():
            process = subprocess.Popen([args.vmm, "clone", "bench", "--vsock", path], env=environment,
                                       stdout=subprocess.PIPE, text=True)
            name = process.stdout.readline().strip()
            try:
                yield path
            finally:
                run("stop", name, stdout=subprocess.DEVNULL)
                process.wait()

        measure_start(args)
        measure_first(args, clone)
        with clone() as served:
            measure(args, served)



if __name__ == "__main__":
    main()
