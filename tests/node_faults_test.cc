// A host that has run out of what a node needs: each request says so in a line, nothing that was
// acknowledged is lost, and all goes on once there is some again.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "pool/client_connection.h"
#include "tests/await.h"
#include "tests/node_daemon.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

// A file system of its own, of 256 MiB.
class SmallDisk {
 public:
  SmallDisk() {
    char folder[] = "/tmp/small-disk-XXXXXX";
    EXPECT_NE(mkdtemp(folder), nullptr);
    path_ = folder;
    EXPECT_EQ(mount("small", folder, "tmpfs", 0, "size=256m,mode=0755"), 0) << strerror(errno);
    EXPECT_EQ(mkdir(home().c_str(), 0755), 0);
  }
  ~SmallDisk() {
    EXPECT_EQ(umount2(path_.c_str(), MNT_DETACH), 0);
    rmdir(path_.c_str());
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  std::string home() const { return path_ + "/h"; }

  // To the last byte.
  void Fill() const {
    UniqueFd file(open(filler().c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    const std::string much(1 << 20, 'x');
    for (size_t size = much.size(); size >= 1;) {
      if (write(file.get(), much.data(), size) < 0) size /= 2;
    }
    EXPECT_EQ(errno, ENOSPC);
  }
  void Free() const { EXPECT_EQ(unlink(filler().c_str()), 0); }

 private:
  std::string filler() const { return path_ + "/filler"; }

  std::string path_;
};

void ExpectOk(const json::object& answer) { EXPECT_TRUE(IsOk(answer)) << json::serialize(answer); }

TEST(NodeFaultsTest, ADiskThatIsFull) {
  SmallDisk disk;
  NodeDaemon node("[pool]\nsize = 0\n", {}, disk.home());
  node.Start();
  const std::string running = node.Create(), paused = node.Create(), third = node.Create();
  ExpectOk(node.Ask("sandbox.pause", paused));
  disk.Fill();

  auto no_space = ::testing::AnyOf(::testing::HasSubstr("No space left on device"),
                                   ::testing::HasSubstr("database or disk is full"));
  auto expect_refused = [&](const json::object& request) {
    json::object answer = node.Ask(request);
    EXPECT_FALSE(IsOk(answer)) << json::serialize(request);
    EXPECT_THAT(Text(answer, "error"), no_space);
    EXPECT_EQ(Text(answer, "error").find('\n'), std::string::npos);
  };
  for (const char* op : {"sandbox.pause", "sandbox.snapshot", "sandbox.fork"}) {
    json::object request = {{"op", op}, {"id", running}};
    if (std::string_view(op) == "sandbox.fork") request["count"] = 1;
    expect_refused(request);
    EXPECT_EQ(node.State(running), "running")
        << op << json::serialize(node.Ask("sandbox.info", running));
  }
  expect_refused({{"op", "sandbox.create"}, {"template", "t"}});
  expect_refused({{"op", "sandbox.resume"}, {"id", paused}});
  EXPECT_EQ(node.State(paused), "paused");
  // What is to go can go.
  ExpectOk(node.Ask("sandbox.kill", third));
  EXPECT_EQ(node.State(third), "");

  disk.Fill();
  node.Crash();
  disk.Free();
  node.Start();
  EXPECT_EQ(node.State(running), "running");
  EXPECT_EQ(node.State(paused), "paused");
  // That it was killed could not be written: its process is gone, and that is what is found.
  EXPECT_THAT(node.State(third), ::testing::AnyOf("", "dead"));
  ExpectOk(node.Ask("sandbox.resume", paused));
  ExpectOk(node.Ask("sandbox.pause", running));
  ExpectOk(node.Ask("sandbox.resume", running));
  ExpectOk(node.Ask("sandbox.snapshot", running));
  EXPECT_NE(node.Create(), "");
}

TEST(NodeFaultsTest, ADiskThatWasFullForAWhile) {
  SmallDisk disk;
  NodeDaemon node("[pool]\nsize = 0\n", {}, disk.home());
  node.Start();
  const std::string id = node.Create();
  for (int round = 0; round < 3; ++round) {
    SCOPED_TRACE(round);
    disk.Fill();
    EXPECT_FALSE(IsOk(node.Ask("sandbox.pause", id)));
    EXPECT_FALSE(IsOk(node.Ask("sandbox.snapshot", id)));
    EXPECT_FALSE(IsOk(node.Ask({{"op", "sandbox.create"}, {"template", "t"}})));
    EXPECT_EQ(node.State(id), "running");
    disk.Free();
    ExpectOk(node.Ask("sandbox.pause", id));
    ExpectOk(node.Ask("sandbox.resume", id));
    const std::string other = node.Create();
    ASSERT_NE(other, "");
    ExpectOk(node.Ask("sandbox.kill", other));
  }
  ExpectOk(node.Ask("sandbox.kill", id));
  // Nothing of what came to nothing is left.
  AwaitChange(node.home() + "/snapshots", [&] { return fs::is_empty(node.home() + "/snapshots"); });
  node.AwaitMachines(1);
  EXPECT_EQ(node.Ask("sandbox.list").at("sandboxes").as_array().size(), 0u);
}

void LimitDescriptors(pid_t pid, rlim_t most) {
  const rlimit limit = {most, most};
  ASSERT_EQ(prlimit(pid, RLIMIT_NOFILE, &limit, nullptr), 0);
}

TEST(NodeFaultsTest, SandboxesTakeAllDescriptorsButTheLast) {
  NodeDaemon node("[pool]\nsize = 0\n");
  node.Start();
  LimitDescriptors(node.pid(), 256);
  std::vector<std::string> ids;
  json::object answer;
  for (;;) {
    answer = node.Ask({{"op", "sandbox.create"}, {"template", "t"}});
    if (!IsOk(answer)) break;
    ids.push_back(Text(Inner(answer, "sandbox"), "id"));
    ASSERT_LT(ids.size(), 100u);
  }
  EXPECT_EQ(Text(answer, "code"), "no_capacity");
  EXPECT_EQ(Text(answer, "error"),
            "no capacity: of the 256 descriptors that cubed may have, no more than the 64 that are "
            "for what runs are left");
  ASSERT_GT(ids.size(), 2u);
  // All else goes on.
  ExpectOk(node.Ask("sandbox.pause", ids[0]));
  ExpectOk(node.Ask("sandbox.resume", ids[0]));
  ExpectOk(node.Ask("sandbox.snapshot", ids[0]));
  ExpectOk(node.Ask("sandbox.kill", ids[1]));
  ExpectOk(node.Ask("sandbox.kill", ids[2]));
  EXPECT_NE(node.Create(), "");
}

TEST(NodeFaultsTest, ClientsTakeAllDescriptors) {
  NodeDaemon node("[pool]\nsize = 0\n");
  node.Start();
  const std::string id = node.Create(), other = node.Create();
  ExpectOk(node.Ask("sandbox.pause", other));
  LimitDescriptors(node.pid(), 256);
  auto own = pool::ClientConnection::Open(node.home() + "/cubed.sock");
  ASSERT_TRUE(own.ok());
  auto ask = [&](const json::object& request) {
    auto answer = own->Ask(json::serialize(request));
    EXPECT_TRUE(answer.ok());
    return json::parse(*answer).as_object();
  };
  ExpectOk(ask({{"op", "node.status"}}));
  {
    // Each is accepted, or waits to be.
    std::vector<pool::ClientConnection> clients;
    for (int i = 0; i < 300; ++i) {
      auto one = pool::ClientConnection::Open(node.home() + "/cubed.sock");
      ASSERT_TRUE(one.ok());
      clients.push_back(std::move(*one));
    }
    // Until the last of them is there. The first one that comes to nothing may have been let in
    // before.
    for (std::string code; code != "no_capacity";) {
      json::object created = ask({{"op", "sandbox.create"}, {"template", "t"}});
      code = Text(created, "code");
      if (IsOk(created)) {
        ExpectOk(ask({{"op", "sandbox.kill"}, {"id", Text(Inner(created, "sandbox"), "id")}}));
      } else if (code != "no_capacity") {
        EXPECT_THAT(Text(created, "error"), ::testing::HasSubstr("Too many open files"));
      }
    }
    json::object resumed = ask({{"op", "sandbox.resume"}, {"id", other}});
    if (!IsOk(resumed)) {
      EXPECT_THAT(Text(resumed, "error"), ::testing::HasSubstr("Too many open files"));
      EXPECT_EQ(Text(Inner(ask({{"op", "sandbox.info"}, {"id", other}}), "sandbox"), "state"),
                "paused");
    }
    EXPECT_EQ(Text(Inner(ask({{"op", "sandbox.info"}, {"id", id}}), "sandbox"), "state"),
              "running");
  }
  ExpectOk(node.Ask("sandbox.connect", other));
  ExpectOk(node.Ask("sandbox.pause", id));
  ExpectOk(node.Ask("sandbox.resume", id));
  EXPECT_NE(node.Create(), "");
}

}  // namespace
}  // namespace cube::testing
