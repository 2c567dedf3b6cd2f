#!/usr/bin/env python3
"""What a message costs the NIC: cube-vmm beside QEMU, the same kernel, initrd and kind of TAP.

    bench/net.py [--rounds N] [--seconds S] [--no-qemu]

Each VMM has a TAP in a network namespace made for this run (so it has to be root); QEMU's is opened
with vhost=off. The peer's services are a process of its own there, which is not counted. The guest
sends 64-byte messages and waits for their echo by UDP (from one thread and from 16) and TCP, and
sends and receives a TCP stream, 128 KiB a request; the last load computes a digest of what it gets,
as a program would whose time is its own. Figures are of processor time on the host; see io_cost.py.
"""

import os
import socket
import subprocess
import sys
import threading

import io_cost

PEER, OWN = "10.78.0.1", "10.78.0.2"
UDP_ECHO, TCP_ECHO, TCP_SINK, TCP_SOURCE = range(7001, 7005)


def echo_datagrams():
    service = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    service.bind((PEER, UDP_ECHO))
    while True:
        message, sender = service.recvfrom(65536)
        service.sendto(message, sender)


def echo(stream):
    while data := stream.recv(65536):
        stream.sendall(data)


def swallow(stream):
    while stream.recv(1 << 20):
        pass


def pour(stream):
    block = b"\x5a" * (1 << 20)
    while True:
        stream.sendall(block)


def serve(port, service):
    def one(stream):
        try:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            service(stream)
        except OSError:
            pass  # the guest has gone
        stream.close()

    listener = socket.create_server((PEER, port))
    while True:
        threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()


def peer():
    for port, service in ((TCP_ECHO, echo), (TCP_SINK, swallow), (TCP_SOURCE, pour)):
        threading.Thread(target=serve, args=(port, service), daemon=True).start()
    print("ready", flush=True)
    echo_datagrams()


def main():
    if sys.argv[1:] == ["--peer"]:
        return peer()
    args = io_cost.arguments(__doc__.splitlines()[0]).parse_args()
    space = f"cube-bench-{os.getpid()}"
    inside = ["ip", "netns", "exec", space]
    run = lambda *command: subprocess.run(command, check=True)
    run("ip", "netns", "add", space)
    services = None
    try:
        run(*inside, "ip", "tuntap", "add", "tap0", "mode", "tap", "vnet_hdr")
        run(*inside, "ip", "address", "add", f"{PEER}/24", "dev", "tap0")
        run(*inside, "ip", "link", "set", "tap0", "up")
        services = subprocess.Popen([*inside, sys.executable, __file__, "--peer"],
                                    stdout=subprocess.PIPE)
        if services.stdout.readline() != b"ready\n":
            sys.exit("the peer's services did not start")
        load = ["net", OWN, PEER, str(args.seconds)]
        # `ip netns exec` becomes the VMM: its process is the one that is counted.
        guests = {name: inside + command for name, command in
                  io_cost.cube(args, load, ["--net", "tap=tap0"]).items()}
        if not args.no_qemu:
            guests["QEMU, vhost=off"] = inside + io_cost.qemu(
                args, load, ["-netdev", "tap,id=net,ifname=tap0,script=no,downscript=no,vhost=off",
                             "-device", "virtio-net-device,netdev=net"])
        io_cost.measure(args, guests)
    finally:
        if services is not None:
            services.kill()
            services.wait()
        run("ip", "netns", "delete", space)


if __name__ == "__main__":
    main()
