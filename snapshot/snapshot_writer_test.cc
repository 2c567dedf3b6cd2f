// What writers leave beside the snapshots they publish, and who clears it away.
#include "snapshot/snapshot_writer.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <set>
#include <thread>

#include "snapshot/publish.h"
#include "snapshot/test_snapshot.h"

namespace cube::snapshot {
namespace {

namespace fs = std::filesystem;

class SnapshotWriterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "/snapshot-writer";
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  std::string Path(const std::string& name) const { return folder_ + "/" + name; }
  std::set<std::string> Names() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      names.insert(entry.path().filename().string());
    }
    return names;
  }
  // Publishes a snapshot under that name.
  void Publish(const std::string& name) const {
    Status written = WriteTestBase(Path(name), TestMemory());
    EXPECT_TRUE(written.ok()) << (written.ok() ? "" : written.error().message());
  }

  std::string folder_;
};

TEST_F(SnapshotWriterTest, WhatAKilledWriterLeftIsClearedAwayByTheNext) {
  for (int i = 0; i < 3; ++i) {
    pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto writer = SnapshotWriter::Create(Path("killed"), TestManifest());
      if (writer.ok()) (void)writer->WriteBase(TestState(), TestMemory(), {});
      kill(getpid(), SIGKILL);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
    EXPECT_EQ(Names().size(), 1u);
  }
  Publish("next");
  EXPECT_EQ(Names(), std::set<std::string>{"next"});
}

TEST_F(SnapshotWriterTest, WhatALivingOneWritesStays) {
  auto one = SnapshotWriter::Create(Path("one"), TestManifest());
  ASSERT_TRUE(one.ok());
  ASSERT_TRUE(one->WriteBase(TestState(), TestMemory(), {}).ok());
  Publish("two");
  RemoveUnpublished(folder_);
  EXPECT_TRUE(one->Publish(false).ok());
  EXPECT_EQ(Names(), (std::set<std::string>{"one", "two"}));
  EXPECT_TRUE(Snapshot::Open(Path("one")).ok());
}

TEST_F(SnapshotWriterTest, WhatOnlyLooksLikeItStays) {
  fs::create_directories(Path("elsewhere"));
  fs::create_directory_symlink("elsewhere", Path(std::string(kUnpublishedPrefix) + "link"));
  UniqueFd file =
      OpenFile(Path(std::string(kUnpublishedPrefix) + "file"), O_RDWR | O_CREAT).value();
  const std::set<std::string> before = Names();
  Publish("next");
  EXPECT_EQ(Names().size(), before.size() + 1);
}

// Each clears up while others begin: between a folder's making and its locking it looks abandoned.
TEST_F(SnapshotWriterTest, ManyAtOnceDoNotClearEachOtherAway) {
  constexpr int kThreads = 4, kEach = 100;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([this, thread] {
      for (int i = 0; i < kEach; ++i) {
        auto writer = SnapshotWriter::Create(Path(Format("%d-%d", thread, i)), TestManifest());
        ASSERT_TRUE(writer.ok()) << writer.error().message();
        Status written = writer->WriteBase(TestState(), TestMemory(), {});
        ASSERT_TRUE(written.ok()) << written.error().message();
        auto id = writer->Publish(false);
        ASSERT_TRUE(id.ok()) << id.error().message();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Names().size(), static_cast<size_t>(kThreads * kEach));
}

}  // namespace
}  // namespace cube::snapshot
