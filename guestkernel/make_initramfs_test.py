#!/usr/bin/env python3
"""Reads the initramfs as the kernel does; asks make_initramfs.py for what it has to refuse."""

import os
import stat
import subprocess
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPT = os.path.join(HERE, "make_initramfs.py")
ARCHIVE = os.path.join(HERE, "initramfs")


def read_archive(data):
    """{path: (mode, owner, mtime, device, content)} in the order of the archive."""
    entries = {}
    at = 0
    while True:
        assert data[at:at + 6] == b"070701", f"no header at {at}"
        fields = [int(data[at + 6 + 8 * i:at + 14 + 8 * i], 16) for i in range(13)]
        _, mode, owner, _, _, mtime, size, _, _, major, minor, name_size, check = fields
        assert check == 0
        name = data[at + 110:at + 110 + name_size - 1].decode()
        content = (at + 110 + name_size + 3) & ~3
        at = (content + size + 3) & ~3
        if name == "TRAILER!!!":
            assert at == len(data)
            return entries
        assert name not in entries, f"{name} twice"
        entries[name] = (mode, owner, mtime, (major, minor), data[content:content + size])


class InitramfsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with open(ARCHIVE, "rb") as file:
            cls.entries = read_archive(file.read())

    def test_folders_come_before_their_content(self):
        seen = {""}
        for path, (mode, *_) in self.entries.items():
            self.assertIn(os.path.dirname(path), seen, path)
            if stat.S_ISDIR(mode):
                seen.add(path)

    def test_links_lead_to_programs(self):
        links = 0
        for path, (mode, _, _, _, content) in self.entries.items():
            if not stat.S_ISLNK(mode):
                continue
            links += 1
            target = os.path.normpath(os.path.join("/", os.path.dirname(path), content.decode()))
            mode, *_, content = self.entries[target[1:]]
            self.assertTrue(stat.S_ISREG(mode) and mode & 0o111, path)
            self.assertEqual(content[:4], b"\x7fELF")
        self.assertGreater(links, 40)

    def test_what_the_kernel_and_programs_ask_for_is_there(self):
        for path in ("init", "bin/sh", "usr/bin/env", "bin/cat", "etc/passwd", "root", "proc"):
            self.assertIn(path, self.entries)
        mode, _, _, device, _ = self.entries["dev/console"]
        self.assertTrue(stat.S_ISCHR(mode))
        self.assertEqual(device, (5, 1))
        self.assertEqual(stat.S_IMODE(self.entries["tmp"][0]), 0o1777)
        self.assertEqual(self.entries["home/user"][1], 1000)

    def test_boot_is_cheap(self):
        self.assertLess(len(self.entries), 70)
        self.assertLess(len(self.entries["sbin/cube-agent"][4]), 1_600_000)
        self.assertLess(os.path.getsize(ARCHIVE), 3_700_000)

    def test_no_clock(self):
        self.assertEqual({entry[2] for entry in self.entries.values()}, {0})


class AgentOnlyTest(unittest.TestCase):
    def test_it_holds_what_the_agent_needs_to_reach_a_disk(self):
        with open(os.path.join(HERE, "agent-initramfs"), "rb") as file:
            entries = read_archive(file.read())
        self.assertEqual(list(entries), ["dev", "dev/console", "init", "proc"])
        self.assertEqual(entries["init"][0], stat.S_IFREG | 0o755)
        self.assertEqual(entries["init"][4][:4], b"\x7fELF")
        self.assertEqual(entries["dev/console"][3], (5, 1))

    def test_refusals(self):
        for option in ("--add=/bin/busybox=/bin/one", "--tree=/etc"):
            result = subprocess.run(
                [SCRIPT, "--agent", "/bin/busybox", "--agent-only", option, "--output", "/dev/null"],
                capture_output=True, text=True)
            self.assertEqual(result.returncode, 2)
            self.assertIn("--agent-only goes with neither", result.stderr)


class AddedProgramTest(unittest.TestCase):
    def run_with(self, *additions):
        with tempfile.TemporaryDirectory() as folder:
            options = [word for addition in additions for word in ("--add", addition)]
            result = subprocess.run(
                [SCRIPT, "--agent", "/bin/busybox", "--output", f"{folder}/out", *options],
                capture_output=True, text=True)
            if result.returncode != 0:
                return result.stderr, None
            with open(f"{folder}/out", "rb") as file:
                return result.stderr, read_archive(file.read())

    def test_it_is_there_and_can_be_run(self):
        _, entries = self.run_with("/bin/busybox=/bin/one", "/bin/busybox=/usr/bin/two")
        for path in ("bin/one", "usr/bin/two"):
            self.assertEqual(entries[path][0], stat.S_IFREG | 0o755)
            self.assertEqual(entries[path][4], entries["bin/busybox"][4])

    def test_refusals(self):
        for addition, message in (
                ("/bin/ls=/bin/new", "/bin/ls is linked dynamically"),
                ("/no/program=/bin/new", "/no/program is missing"),
                ("/bin/busybox=/bin/cat", "bin/cat is in the archive twice"),
                ("/bin/busybox=/nowhere/new", "is not FILE=/PATH"),
                ("/bin/busybox", "is not FILE=/PATH")):
            error, entries = self.run_with(addition)
            self.assertIsNone(entries, addition)
            self.assertIn(message, error)


class TreeTest(unittest.TestCase):
    def run_with(self, tree, output):
        return subprocess.run(
            [SCRIPT, "--agent", "/bin/busybox", "--tree", tree, "--output", output],
            capture_output=True, text=True)

    def test_files_folders_and_links_are_there(self):
        with tempfile.TemporaryDirectory() as folder:
            os.makedirs(f"{folder}/tree/usr/lib/inner")
            with open(f"{folder}/tree/usr/lib/inner/text", "w") as file:
                file.write("words")
            os.chmod(f"{folder}/tree/usr/lib/inner/text", 0o640)
            os.symlink("inner/text", f"{folder}/tree/usr/lib/link")
            os.symlink("usr/lib", f"{folder}/tree/lib")
            result = self.run_with(f"{folder}/tree", f"{folder}/out")
            self.assertEqual(result.returncode, 0, result.stderr)
            with open(f"{folder}/out", "rb") as file:
                entries = read_archive(file.read())
        self.assertEqual(entries["usr/lib/inner/text"][0], stat.S_IFREG | 0o640)
        self.assertEqual(entries["usr/lib/inner/text"][4], b"words")
        self.assertEqual(entries["usr/lib/link"][0], stat.S_IFLNK | 0o777)
        self.assertEqual(entries["usr/lib/link"][4], b"inner/text")
        self.assertEqual(entries["lib"][4], b"usr/lib")
        self.assertTrue(stat.S_ISDIR(entries["usr/lib"][0]))
        self.assertLess(list(entries).index("usr/lib"), list(entries).index("usr/lib/inner"))

    def test_refusals(self):
        with tempfile.TemporaryDirectory() as folder:
            os.makedirs(f"{folder}/tree/bin")
            os.symlink("nowhere", f"{folder}/tree/bin/busybox")
            self.assertIn("bin/busybox is in the archive twice",
                          self.run_with(f"{folder}/tree", f"{folder}/out").stderr)
            os.remove(f"{folder}/tree/bin/busybox")
            os.mkfifo(f"{folder}/tree/pipe")
            self.assertIn("tree/pipe is neither a file",
                          self.run_with(f"{folder}/tree", f"{folder}/out").stderr)


class RefusalTest(unittest.TestCase):
    def run_with(self, agent, busybox="/bin/busybox"):
        with tempfile.TemporaryDirectory() as folder:
            return subprocess.run(
                [SCRIPT, "--agent", agent, "--busybox", busybox, "--output", f"{folder}/out"],
                capture_output=True, text=True)

    def test_a_program_that_needs_a_dynamic_linker(self):
        result = self.run_with("/bin/ls")
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("/bin/ls is linked dynamically", result.stderr)

    def test_what_is_no_program(self):
        self.assertIn("is not an ELF program", self.run_with("/etc/passwd").stderr)

    def test_no_busybox(self):
        result = self.run_with("/bin/busybox", busybox="/nowhere/busybox")
        self.assertIn("apt-get install busybox-static", result.stderr)

    def test_the_same_programs_give_the_same_bytes(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("a", "b"):
                subprocess.run([SCRIPT, "--agent", "/bin/busybox", "--output", f"{folder}/{name}"],
                               check=True)
            with open(f"{folder}/a", "rb") as a, open(f"{folder}/b", "rb") as b:
                self.assertEqual(a.read(), b.read())


if __name__ == "__main__":
    unittest.main()
