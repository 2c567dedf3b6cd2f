#!/usr/bin/env python3
"""Sockets between guest and host: round trips, throughput, and what the VMM spends on a message.

    bench/vsock.py [--messages N] [--mebibytes N] [--ring0 auto|kvm|engine]

A program in the guest (tests/guest/vsock_peer.cc) echoes 64-byte messages, in one stream and in 32,
then takes and sends a long stream. The device's cost is the processor time of cube-vmm's event loop
(its main thread, by schedstat); the vCPU's time is the guest's. QEMU's vsock is the host kernel's
(vhost-vsock): where that is missing, its error is printed. The peer in the same run is socat, which
passes the same messages from one Unix socket to another: what a relay costs without any guest.
"""

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from boot import BIN, machine

PORT = 5000
SIZE = 64
STREAMS = 32


def cpu_seconds(pid, tid):
    return int(open(f"/proc/{pid}/task/{tid}/schedstat").read().split()[0]) / 1e9


def read_exactly(stream, size):
    data = b""
    while len(data) < size:
        piece = stream.recv(size - len(data))
        if not piece:
            sys.exit("a stream ended too early")
        data += piece
    return data


def connect(path, mode):
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(path)
    stream.sendall(f"CONNECT {PORT}\n".encode())
    answer = b""
    while not answer.endswith(b"\n"):
        answer += read_exactly(stream, 1)
    stream.sendall(mode)
    return stream


def round_trips(stream, count):
    times = []
    for i in range(count):
        message = i.to_bytes(8, "little") * (SIZE // 8)
        start = time.monotonic()
        stream.sendall(message)
        if read_exactly(stream, SIZE) != message:
            sys.exit("a message came back changed")
        times.append(time.monotonic() - start)
    return times


def show(name, times, cpu):
    times = sorted(times)
    print(f"| {name} | {statistics.median(times) * 1e6:.0f} | "
          f"{times[int(len(times) * 0.99)] * 1e6:.0f} | {cpu / len(times) * 1e6:.1f} |", flush=True)


def measure(name, cost, streams, count):
    """`count` messages over `streams`, each with a thread of its own; `cost` is seconds so far."""
    before = cost()
    times = []
    threads = [threading.Thread(target=lambda s=s: times.extend(
        round_trips(s, count // len(streams)))) for s in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    show(name, times, cost() - before)


def throughput(path, cost, mebibytes):
    size = mebibytes << 20
    block = bytes(65536)
    for name, down, up in (("host to guest", size, 0), ("guest to host", 0, size)):
        stream = connect(path, f"b{up}\n".encode())
        before, start = cost(), time.monotonic()
        for _ in range(down // len(block)):
            stream.sendall(block)
        stream.shutdown(socket.SHUT_WR)
        got = 0
        while piece := stream.recv(1 << 20):
            got += len(piece)
        seconds = time.monotonic() - start
        if got != up + 16:
            sys.exit(f"{got} bytes came back, not {up + 16}")
        print(f"| {name} | {mebibytes / seconds:.1f} | {(cost() - before) / mebibytes * 1e3:.2f} |",
              flush=True)


def cube(args, folder):
    path = f"{folder}/v"
    vmm = subprocess.Popen(
        [args.vmm, "run", f"--ring0={args.ring0}", "--kernel", args.kernel, "--initrd", args.initrd,
         "--vsock", path, "--", "/bin/vsock_peer", str(PORT)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        if vmm.stdout.readline() != b"ready\n":
            sys.exit("the guest's program did not start")
        cost = lambda: cpu_seconds(vmm.pid, vmm.pid)
        measure("cube-vmm, 1 stream", cost, [connect(path, b"e")], args.messages)
        measure(f"cube-vmm, {STREAMS} streams", cost,
                [connect(path, b"e") for _ in range(STREAMS)], args.messages)
        return vmm, lambda: throughput(path, cost, args.mebibytes)
    except BaseException:
        vmm.kill()
        raise


def relay(args, folder):
    """socat between two sockets, and an echo behind it that is not counted."""
    echo = subprocess.Popen(["socat", f"UNIX-LISTEN:{folder}/echo,fork", "EXEC:cat"])
    passer = subprocess.Popen(["socat", f"UNIX-LISTEN:{folder}/relay", f"UNIX-CONNECT:{folder}/echo"])
    stream = socket.socket(socket.AF_UNIX)
    while not (os.path.exists(f"{folder}/echo") and os.path.exists(f"{folder}/relay")):
        time.sleep(0.01)
    stream.connect(f"{folder}/relay")
    round_trips(stream, 1)
    measure("socat relay, 1 stream", lambda: cpu_seconds(passer.pid, passer.pid), [stream],
            args.messages)
    stream.close()
    passer.wait()
    echo.terminate()
    echo.wait()


def qemu_error():
    run = subprocess.run(
        ["qemu-system-x86_64", "-M", "microvm", "-accel", "tcg", "-nodefaults", "-display", "none",
         "-device", "vhost-vsock-device,guest-cid=9"],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    return run.stderr.strip().splitlines()[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--mebibytes", type=int, default=64)
    parser.add_argument("--ring0", default="auto")
    parser.add_argument("--vmm", default=f"{BIN}/vmm/cli/cube-vmm")
    parser.add_argument("--kernel", default=f"{BIN}/guestkernel/vmlinux")
    parser.add_argument("--initrd", default=f"{BIN}/tests/guest/initramfs")
    args = parser.parse_args()
    print(f"{machine()}; load {os.getloadavg()[0]:.1f}\n")
    print(f"| {SIZE}-byte echo | median, us | p99, us | device's processor time a round trip, us |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="vsock-bench-") as folder:
        vmm, streams = cube(args, folder)
        try:
            relay(args, folder)
            print("\n| stream | MiB/s | device's processor time, ms a MiB |\n|---|---|---|")
            streams()
        finally:
            vmm.send_signal(signal.SIGTERM)
            vmm.wait()
    if not os.path.exists("/dev/vhost-vsock"):
        print(f"\nNo figures of QEMU: {qemu_error()}")


if __name__ == "__main__":
    main()
