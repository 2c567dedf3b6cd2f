#!/usr/bin/env python3
"""Writes the initramfs of the minimal guest: the agent, busybox, and what programs expect in /etc;
or, with --agent-only, of a guest whose root is a disk.

The archive is a newc cpio (Linux, driver-api/early-userspace/buffer-format.rst), not compressed: a
copy costs the booting kernel less than any unpacking. It is made without root and
without looking at the clock, so the same programs give the same bytes.

Measured, an entry costs a boot 21,000 kernel instructions and a MiB of content 940,000. So there
are links for the 41 applets that hosts, scripts and other programs run most, not for all 270 of
busybox: its shell runs the others by name without a link; `busybox --install -s` makes the rest.
"""

import argparse
import os
import stat
import struct
import subprocess
import sys

APPLETS = """
    awk cat chmod cp date dd df dmesg echo env false find free grep head hostname id ip kill ls
    md5sum mkdir mount mv nproc ping ps pwd rm sed seq sh sha256sum sleep tail test touch true uname
    wc yes
""".split()

FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n"
                  "user:x:1000:1000:user:/home/user:/bin/sh\n"
                  "nobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\ntty:x:5:\nuser:x:1000:\nnogroup:x:65534:\n",
    "etc/hostname": "cube\n",
    "etc/hosts": "127.0.0.1 localhost cube\n::1 localhost ip6-localhost ip6-loopback\n",
}

# path: (permissions, owner). The folders that are empty here are mount points.
FOLDERS = {
    "bin": (0o755, 0),
    "dev": (0o755, 0),
    "etc": (0o755, 0),
    "home": (0o755, 0),
    "home/user": (0o755, 1000),
    "proc": (0o555, 0),
    "root": (0o700, 0),
    "run": (0o755, 0),
    "sbin": (0o755, 0),
    "sys": (0o555, 0),
    "tmp": (0o1777, 0),
    "usr": (0o755, 0),
    "usr/bin": (0o755, 0),
    "usr/sbin": (0o755, 0),
}


class Archive:
    """Entries of a newc cpio archive, written in the order of their paths."""

    def __init__(self):
        self._entries = {}

    def add(self, path, mode, data=b"", owner=0, device=(0, 0)):
        if path in self._entries:
            raise ValueError(f"{path} is in the archive twice")
        self._entries[path] = (mode, data, owner, device)

    def add_tree(self, folder):
        """What is in a folder of the host's, with its permissions, as root's."""
        for parent, folders, files in os.walk(folder):
            for name in folders + files:
                source = os.path.join(parent, name)
                path = os.path.relpath(source, folder)
                mode = os.lstat(source).st_mode
                if stat.S_ISLNK(mode):
                    self.add(path, stat.S_IFLNK | 0o777, os.readlink(source).encode())
                elif stat.S_ISREG(mode):
                    with open(source, "rb") as file:
                        self.add(path, mode, file.read())
                elif not stat.S_ISDIR(mode):
                    raise ValueError(f"{source} is neither a file nor a folder nor a link")
                elif path not in self._entries:
                    self.add(path, mode)

    def write(self, out):
        # By path: a folder comes before what is in it, as the kernel needs it.
        for number, (path, entry) in enumerate(sorted(self._entries.items()), start=1):
            self._write_entry(out, number, path, *entry)
        self._write_entry(out, 0, "TRAILER!!!", 0, b"", 0, (0, 0))

    @staticmethod
    def _write_entry(out, number, path, mode, data, owner, device):
        name = path.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        fields = (number, mode, owner, owner, links, 0, len(data), 0, 0, *device, len(name), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        # Name and content each end at a multiple of four bytes.
        out.write(header + name + bytes(-(len(header) + len(name)) % 4))
        out.write(data + bytes(-len(data) % 4))


def read_static_program(path):
    """The bytes of an ELF program that needs no dynamic linker, for there is none in the guest."""
    with open(path, "rb") as file:
        data = file.read()
    if data[:4] != b"\x7fELF":
        sys.exit(f"make_initramfs: {path} is not an ELF program")
    table, = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    for i in range(count):
        kind, = struct.unpack_from("<I", data, table + i * size)
        if kind == 3:  # PT_INTERP
            sys.exit(f"make_initramfs: {path} is linked dynamically; link it with -static "
                     "(busybox: that of Debian's busybox-static)")
    return data


def applet_paths(busybox):
    """Where busybox wants to be linked, by applet: {"ls": "bin/ls", ...}."""
    command = [busybox, "--list-full"]
    paths = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return {path.rsplit("/", 1)[-1]: path for path in paths}


def add_folders(archive, paths):
    for path in paths:
        permissions, owner = FOLDERS[path]
        archive.add(path, stat.S_IFDIR | permissions, owner=owner)


def add_console(archive):
    # The kernel opens it for init before anything could be mounted on /dev.
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))


def build_agent_only(agent):
    """What it takes to start the agent and let it mount a root disk."""
    archive = Archive()
    add_folders(archive, ("dev", "proc"))
    add_console(archive)
    archive.add("init", stat.S_IFREG | 0o755, read_static_program(agent))
    return archive


def build(agent, busybox, programs, trees):
    archive = Archive()
    add_folders(archive, FOLDERS)
    for path, text in FILES.items():
        archive.add(path, stat.S_IFREG | 0o644, text.encode())
    add_console(archive)
    archive.add("sbin/cube-agent", stat.S_IFREG | 0o755, read_static_program(agent))
    archive.add("init", stat.S_IFLNK | 0o777, b"sbin/cube-agent")
    archive.add("bin/busybox", stat.S_IFREG | 0o755, read_static_program(busybox))
    paths = applet_paths(busybox)
    missing = [name for name in APPLETS if name not in paths]
    if missing:
        sys.exit(f"make_initramfs: {busybox} has no {', '.join(missing)}")
    for name in APPLETS:
        archive.add(paths[name], stat.S_IFLNK | 0o777, b"/bin/busybox")
    for source, path in programs:
        archive.add(path, stat.S_IFREG | 0o755, read_static_program(source))
    for tree in trees:
        archive.add_tree(tree)
    return archive


def program_argument(text):
    """FILE=/PATH, where PATH is in a folder of the guest's."""
    source, separator, path = text.partition("=/")
    if not (source and separator) or path.rpartition("/")[0] not in FOLDERS:
        raise argparse.ArgumentTypeError(f"'{text}' is not FILE=/PATH with a folder of the guest's")
    return source, path


def main():
    parser = argparse.ArgumentParser(description="Writes the initramfs of the minimal guest.")
    parser.add_argument("--agent", required=True)
    parser.add_argument("--busybox", default="/bin/busybox")
    parser.add_argument("--add", action="append", default=[], type=program_argument,
                        metavar="FILE=/PATH", help="one more program, and where it goes")
    parser.add_argument("--tree", action="append", default=[], metavar="FOLDER",
                        help="a folder whose content is added to the root; its programs may be "
                             "dynamic, if it has their libraries")
    parser.add_argument("--agent-only", action="store_true",
                        help="nothing but the agent, for a guest whose root is a disk")
    parser.add_argument("--output", required=True)
    options = parser.parse_args()
    if options.agent_only and (options.add or options.tree):
        parser.error("--agent-only goes with neither --add nor --tree")
    try:
        if options.agent_only:
            archive = build_agent_only(options.agent)
        else:
            archive = build(options.agent, options.busybox, options.add, options.tree)
    except FileNotFoundError as error:
        sys.exit(f"make_initramfs: {error.filename} is missing; busybox comes from apt-get install "
                 "busybox-static")
    except ValueError as error:
        sys.exit(f"make_initramfs: {error}")
    with open(options.output, "wb") as out:
        archive.write(out)


if __name__ == "__main__":
    main()
