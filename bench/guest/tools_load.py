"""fio and iperf3 in a guest, for bench/tools.py: one load after the other, each announced on the console.

    python3 tools_load.py SECONDS blk DEVICE [RATE]     requests a second at most
    python3 tools_load.py SECONDS net OWN PEER

"load NAME begin", "load NAME end REQUESTS SECONDS", as io_load.cc says it. Runs as PID 1 too.
"""

import json
import subprocess
import sys

LARGE = 128 << 10


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def say(*words):
    print("load", *words, flush=True)


def fio(seconds, device, rate, kind, size, depth):
    limit = [f"--rate_iops={rate}"] if int(rate) else []
    report = json.loads(run(
        "fio", "--name=load", f"--filename={device}", "--direct=1", "--ioengine=io_uring",
        f"--rw={kind}", f"--bs={size}", f"--iodepth={depth}", "--time_based", f"--runtime={seconds}",
        "--thread", "--output-format=json", *limit))["jobs"][0]
    way = report["write" if "write" in kind else "read"]
    return way["total_ios"], way["runtime"] / 1000


def iperf(seconds, peer, *options):
    report = json.loads(run("iperf3", "-J", "-c", peer, "-t", str(seconds), *options))["end"]
    total = report.get("sum") or report["sum_received"]
    return total.get("packets") or total["bytes"] // LARGE, total["seconds"]


def blk(seconds, device, rate="0"):
    for kind, size in (("randread", "4k"), ("randwrite", "4k"), ("read", "128k"), ("write", "128k")):
        for depth in (1, 16):
            yield f"{kind}-{size}-{depth}", lambda *load: fio(seconds, device, rate, *load), (kind, size, depth)


def net(seconds, own, peer):
    run("ip", "address", "add", f"{own}/24", "dev", "eth0")
    run("ip", "link", "set", "eth0", "up")
    run("ip", "link", "set", "lo", "up")
    for name, options in (("tcp-out", ()), ("tcp-in", ("-R",)), ("tcp-out-4", ("-P", "4")),
                          ("udp-out", ("-u", "-b", "0", "-l", "1400"))):
        yield name, lambda *load: iperf(seconds, peer, *load), options


def main():
    seconds, kind, *rest = int(sys.argv[1]), *sys.argv[2:]
    loads = {"blk": blk, "net": net}[kind]
    # The programs come into the guest's memory first.
    for program in ("fio", "iperf3"):
        run(program, "--version")
    for name, load, arguments in loads(seconds, *rest):
        say(name, "begin")
        requests, took = load(*arguments)
        say(name, "end", requests, took)
    say("all", "done")


if __name__ == "__main__":
    main()
