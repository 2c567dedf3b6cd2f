// `cube-vmm run --rootfs`: guests whose root is the Debian disk.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

// The image, as the options' last part; `suffix` is what follows its path.
Finished RunOnDisk(const std::vector<std::string>& command, const std::string& suffix = "",
                   const std::string& image = Env("CUBE_ROOTFS")) {
  return RunProcess(Vmm({"--rootfs", image + suffix, "--memory", "256"}, command));
}

// Of what is written in a sparse file, and of when it was: most of the image is a hole.
std::string Checksum(const std::string& file) {
  Finished sum =
      RunProcess({"/bin/sh", "-c", "tar -chf - --sparse \"$0\" 2>/dev/null | sha256sum", file});
  EXPECT_EQ(sum.out.size(), 64 + sizeof("  -"));
  return sum.out;
}

TEST(Rootfs, RunsPython) {
  Finished run = RunOnDisk({"python3", "-c", "print(1)"});
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_EQ(run.out, "1\n");
  EXPECT_EQ(run.err, "");
}

struct Check {
  const char* what;
  const char* command;
  const char* output;
};

// Each is run by a shell of its own; its output is its stdout and stderr.
constexpr Check kChecks[] = {
    {"packages are whole", "dpkg --audit", ""},
    {"dependencies are met", "apt-get check >/dev/null && echo yes", "yes"},
    {"libraries and byte code of Python",
     "python3 -c 'import ssl, json, sqlite3; print(ssl.HAS_TLSv1_3)'", "True"},
    {"Python compiles nothing anew",
     "python3 -c 'import json; print(json.__spec__.cached)' | xargs test -e && "
     "python3 -v -c 'import json' 2>&1 | grep -c 'wrote '",
     "0"},
    {"an ordinary user", "id user; stat -c %u:%a /home/user",
     "uid=1000(user) gid=1000(user) groups=1000(user)\n1000:755"},
    {"the user's shell", "su -l user -c 'pwd; echo x > file; cat file; cat /root/.profile 2>&1'",
     "/home/user\nx\ncat: /root/.profile: Permission denied"},
    {"/tmp", "su user -c 'echo x > /tmp/file && cat /tmp/file'; stat -c %a /tmp", "x\n1777"},
    {"the host's name",
     "hostname; getent hosts $(hostname) localhost | tr -s ' ' | cut -d ' ' -f 1",
     "cube\n127.0.1.1\n::1"},
    {"the locale", "locale | grep -c C.UTF-8; python3 -c 'print(\"\\u00e9\")'", "13\n\xc3\xa9"},
    {"file systems",
     "for f in / /proc /sys /sys/fs/cgroup /dev /dev/pts /dev/shm /run; do findmnt -n -o FSTYPE "
     "$f; done",
     "ext4\nproc\nsysfs\ncgroup2\ndevtmpfs\ndevpts\ntmpfs\ntmpfs"},
    {"nothing is left of the initramfs",
     "grep -c -v -e ' /proc' -e ' /sys' -e ' /dev' -e ' /run' /proc/self/mounts", "1"},
    {"terminals and devices",
     "python3 -c 'import pty; print(len(pty.openpty()))'; ls -l /dev/fd/0 | wc -l", "2\n1"},
    {"PID 1 is the agent of the initramfs", "readlink /proc/1/exe; test -e /init || echo gone",
     "/init (deleted)\ngone"},
    {"room", "test $(df --output=avail -m / | tail -n 1) -gt 1500 && echo yes", "yes"},
    {"tools", "for t in curl ip ping ps free python3; do command -v $t; done | wc -l", "6"},
    {"no key and no identity is in the image", "ls /etc/machine-id /etc/ssh 2>/dev/null | wc -l",
     "0"},
};

TEST(Rootfs, IsADebianServer) {
  std::string script;
  for (const Check& check : kChecks)
    script += std::string("(") + check.command + ") 2>&1; echo ----\n";
  Finished run = RunOnDisk({"/bin/bash", "-c", script});
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_EQ(run.err, "");
  size_t at = 0;
  for (const Check& check : kChecks) {
    size_t end = run.out.find("----\n", at);
    ASSERT_NE(end, std::string::npos) << check.what << ": " << run.out;
    std::string output = run.out.substr(at, end - at);
    if (!output.empty() && output.back() == '\n') output.pop_back();
    EXPECT_EQ(output, check.output) << check.what;
    at = end + 5;
  }
}

TEST(Rootfs, WritesAreGoneWithTheVmAndTheImageIsAsItWas) {
  const std::string before = Checksum(Env("CUBE_ROOTFS"));
  const std::vector<std::string> write = {
      "/bin/sh", "-c", "test ! -e /root/mark && echo x > /root/mark && sync && cat /root/mark"};
  for (int i = 0; i < 2; ++i) {
    Finished run = RunOnDisk(write);
    EXPECT_EQ(run.status, 0) << run.err;
    EXPECT_EQ(run.out, "x\n");
  }
  EXPECT_EQ(Checksum(Env("CUBE_ROOTFS")), before);
}

TEST(Rootfs, AReadOnlyRootHasAPlaceForTemporaryFiles) {
  Finished run = RunOnDisk(
      {"/bin/sh", "-c",
       "echo x > /tmp/file && cat /tmp/file; touch /root/file 2>&1; python3 -c 'print(1)'"},
      ":ro");
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_EQ(run.out, "x\ntouch: cannot touch '/root/file': Read-only file system\n1\n");
}

TEST(Rootfs, AnOverlayKeepsWhatWasWritten) {
  const std::string overlay = Env("TEST_TMPDIR") + "/kept";
  Finished run = RunOnDisk({"/bin/sh", "-c", "echo x > /root/mark; sync"}, ":overlay=" + overlay);
  EXPECT_EQ(run.status, 0) << run.err;
  run = RunOnDisk({"/bin/cat", "/root/mark"}, ":overlay=" + overlay);
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_EQ(run.out, "x\n");
}

// The VMM is killed while the guest writes. The next guest repairs the journal and finds nothing
// else to repair.
TEST(Rootfs, AKilledVmmLeavesACleanFileSystem) {
  const std::string overlay = Env("TEST_TMPDIR") + "/killed";
  {
    Process process(
        Vmm({"--rootfs", Env("CUBE_ROOTFS") + ":overlay=" + overlay, "--memory", "256"},
            {"/bin/bash", "-c",
             "mkdir /root/d; for i in {1..50}; do echo $i > /root/d/$i; sync; done; echo up; "
             "while :; do for i in {1..50}; do mv /root/d/$i /root/d/new; "
             "echo more > /root/d/$i; sync -f /root/d/$i; rm /root/d/new; done; done"}));
    EXPECT_EQ(process.WaitForOutput(), "up\n");
    kill(process.pid(), SIGKILL);
    EXPECT_EQ(process.Finish().status, 128 + SIGKILL);
  }
  Finished run =
      RunProcess(Vmm({"--rootfs", Env("CUBE_ROOTFS"), "--disk",
                      Env("CUBE_ROOTFS") + ":overlay=" + overlay, "--memory", "256"},
                     {"/bin/sh", "-c",
                      "e2fsck -E journal_only -p /dev/vdb > /dev/null; e2fsck -fn /dev/vdb 2>&1"}));
  EXPECT_EQ(run.status, 0) << run.out << run.err;
}

TEST(Rootfs, WhatCannotBeTheRootIsOneLine) {
  struct Bad {
    const char* what;
    std::vector<std::string> options;
    std::string message;
  };
  const std::string text = Env("TEST_TMPDIR") + "/text";
  std::ofstream(text) << std::string(1 << 20, 'x');
  const Bad cases[] = {
      {"no such image", {"--rootfs", "nonesuch"}, "'tools/images.sh nonesuch' builds it"},
      {"no such file", {"--rootfs", "/nowhere/disk"}, "/nowhere/disk"},
      {"no file system", {"--rootfs", text}, "cannot mount /dev/vda as the root, ext4"},
      {"no disk", {"--append", "cube.root=/dev/vda"}, "there is no disk /dev/vda to be the root"},
      {"not a disk", {"--append", "cube.root=/etc"}, "'cube.root=/etc' is not cube.root=/dev/NAME"},
  };
  for (const Bad& bad : cases) {
    SCOPED_TRACE(bad.what);
    Finished run = RunProcess(Vmm(bad.options, {"/bin/true"}));
    EXPECT_EQ(run.status, 125);
    EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1) << run.err;
    EXPECT_NE(run.err.find(bad.message), std::string::npos) << run.err;
  }
}

}  // namespace
}  // namespace cube::testing
