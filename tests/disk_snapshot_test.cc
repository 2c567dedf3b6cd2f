// The disks of snapshots, clones, forks and rollbacks: each has its own, and each is sound.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "tests/await.h"
#include "tests/device_sandbox.h"
#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;

using DiskSnapshotTest = DeviceSandboxTest;

constexpr char kOwnAddress[] = "import socket; print(socket.gethostbyname(socket.gethostname()))";

TEST_F(DiskSnapshotTest, DisksAreTheClonesOwn) {
  Process* one = Clone({"--vsock", Vsock("one")});
  Process* two = Clone({"--vsock", Vsock("two")});
  EXPECT_EQ(Do(one, WriteSynced("one")), "done");
  EXPECT_EQ(Do(two, kReadUncached), "nothing");
  EXPECT_EQ(Do(two, WriteSynced("two")), "done");
  EXPECT_EQ(Do(one, kReadUncached), "one");
  Snapshot(one, "diff");
  Snapshot(one, "full", false);
  // What the parent writes later is not the snapshots', what they write is not the parent's.
  EXPECT_EQ(Do(one, WriteSynced("later")), "done");
  Process* restored = Restore("diff", {"--vsock", Vsock("three")});
  EXPECT_EQ(Do(restored, kReadUncached), "one");
  EXPECT_EQ(Do(restored, WriteSynced("restored")), "done");
  Process* full = Restore("full", {"--vsock", Vsock("four")});
  EXPECT_EQ(Do(full, kReadUncached), "one");
  EXPECT_EQ(Do(one, kReadUncached), "later");
  EXPECT_EQ(Do(two, kReadUncached), "two");
  EXPECT_EQ(Do(restored, kReadUncached), "restored");
  // Back, and back to where it came from.
  Rollback(one, work_ + "/diff");
  EXPECT_EQ(Do(one, kReadUncached), "one");
  EXPECT_EQ(Do(one, WriteSynced("again")), "done");
  Rollback(one, work_ + "/diff");
  EXPECT_EQ(Do(one, kReadUncached), "one");
  // Snapshots of what was written after snapshots.
  for (int i = 0; i < 4; ++i) {
    SCOPED_TRACE(i);
    const std::string text = "round " + std::to_string(i);
    EXPECT_EQ(Do(restored, WriteSynced(text)), "done");
    Snapshot(restored, std::to_string(i));
    Process* next = Restore(std::to_string(i), {"--vsock", Vsock("next")});
    EXPECT_EQ(Do(next, kReadUncached), text);
    Stop(next);
  }
}

TEST_F(DiskSnapshotTest, TheFileSystemOfASnapshotIsSound) {
  Process* guest = Clone({"--vsock", Vsock("one")});
  EXPECT_EQ(
      Do(guest,
         "import os\nfor i in range(200):\n"
         " os.makedirs(f'/root/d/{i}'); open(f'/root/d/{i}/f', 'wb').write(os.urandom(9000))\n"
         "os.sync()\nfor i in range(0, 200, 2): os.remove(f'/root/d/{i}/f')\nprint('done')"),
      "done");
  Snapshot(guest, "diff");
  Stop(guest);
  std::vector<std::string> files = {"disk", "flatten", fs::canonical(Env("CUBE_ROOTFS"))};
  for (const std::string& layer : {template_ + "/disk-vda", work_ + "/diff/disk-vda"}) {
    if (fs::exists(layer)) files.push_back(layer);
  }
  files.push_back(work_ + "/image");
  Finished flattened = Ask(files);
  ASSERT_EQ(flattened.status, 0) << flattened.err;
  // As after a power failure: the journal is replayed, and then nothing is wrong.
  Finished replayed = RunProcess({"/sbin/e2fsck", "-p", work_ + "/image"});
  EXPECT_LE(replayed.status, 1) << replayed.out << replayed.err;
  Finished checked = RunProcess({"/sbin/e2fsck", "-fn", work_ + "/image"});
  EXPECT_EQ(checked.status, 0) << checked.out << checked.err;
}

TEST_F(DiskSnapshotTest, ForksHaveDisksAndSocketsOfTheirOwn) {
  Process* guest = Clone({"--vsock", Vsock("one")});
  EXPECT_EQ(Do(guest, kServe), "serving");
  EXPECT_EQ(Do(guest, WriteSynced("parent")), "done");
  std::set<std::string> before;
  for (const auto& entry : fs::directory_iterator(home_ + "/run")) before.insert(entry.path());
  Finished forked = Ask({"fork", Socket(*guest), "-n", "2"});
  ASSERT_EQ(forked.status, 0) << forked.err;
  EXPECT_EQ(Do(guest, WriteSynced("later")), "done");
  EXPECT_EQ(Do(guest, kOwnAddress), "127.0.1.1");
  std::vector<std::string> sockets, controls;
  for (const auto& entry : fs::directory_iterator(home_ + "/run")) {
    if (before.contains(entry.path())) continue;
    if (entry.path().extension() == ".vsock") sockets.push_back(entry.path());
    if (entry.path().extension() == ".sock") controls.push_back(entry.path());
  }
  ASSERT_EQ(sockets.size(), 2u);
  for (const std::string& socket : sockets) {
    EXPECT_EQ(AskGuest(socket, kReadUncached), "parent\n");
    EXPECT_EQ(AskGuest(socket, WriteSynced(socket)), "done\n");
    EXPECT_EQ(AskGuest(socket, "print(open('/sys/class/net/eth0/carrier').read().strip())"), "0\n");
    EXPECT_EQ(AskGuest(socket, kOwnAddress), "127.0.1.1\n");
  }
  for (const std::string& socket : sockets) {
    EXPECT_EQ(AskGuest(socket, kReadUncached), socket + "\n");
  }
  EXPECT_EQ(Do(guest, kReadUncached), "later");
  for (const std::string& control : controls) EXPECT_EQ(Ask({"stop", control}).status, 0);
  for (const std::string& socket : sockets) {
    AwaitGone(socket);
  }
}

TEST_F(DiskSnapshotTest, WhatCannotBeFrozenBootsOrIsRefused) {
  const std::string raw = work_ + "/raw";
  std::ofstream(raw).close();
  fs::resize_file(raw, 1 << 20);
  auto run = [&](std::vector<std::string> options) {
    options.insert(options.begin(), {"--json", "--rootfs", Env("CUBE_ROOTFS"), "--memory", "256"});
    return RunProcess(CloneVmm(options, {"/bin/true"}));
  };
  auto cloned = [](const Finished& run) {
    EXPECT_EQ(run.status, 0) << run.err << run.out;
    return run.out.find("\"boot\":") == std::string::npos;
  };
  // A disk that keeps what is written to it: the next guest would not find it as this one did.
  EXPECT_FALSE(cloned(run({"--disk", raw})));
  EXPECT_FALSE(cloned(run({"--disk", raw})));
  EXPECT_FALSE(cloned(run({"--disk", raw + ":ro"})));
  EXPECT_TRUE(cloned(run({"--disk", raw + ":ro"})));
  // Another content is another machine.
  std::ofstream(raw, std::ios::app) << std::string(1 << 20, 'x');
  EXPECT_FALSE(cloned(run({"--disk", raw + ":ro"})));
  Process booted(Vmm({"--rootfs", Env("CUBE_ROOTFS"), "--memory", "256", "--disk", raw},
                     {"/bin/sh", "-c", "echo up; cat"}));
  EXPECT_EQ(booted.ReadLine(), "up");
  Finished refused = Ask({"snapshot", Socket(booted), work_ + "/refused"});
  EXPECT_NE(refused.err.find("disk vdb: the disk's image is written itself"), std::string::npos)
      << refused.err;
  // It goes on.
  EXPECT_EQ(booted.Finish("end\n").out, "end\n");
}

}  // namespace
}  // namespace cube::testing
