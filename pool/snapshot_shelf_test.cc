#include "pool/snapshot_shelf.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "snapshot/snapshot.h"
#include "snapshot/test_snapshot.h"

namespace cube::pool {
namespace {

namespace fs = std::filesystem;

class SnapshotShelfTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    store_.emplace(Store::Open(folder_ + "/node.db").value());
    shelf_.emplace(&*store_, folder_ + "/snapshots");
    ASSERT_TRUE(shelf_->Open().ok());
  }
  std::string Path(const std::string& name) const { return folder_ + "/snapshots/" + name; }
  void WriteBase(const std::string& name) {
    Status written = snapshot::WriteTestBase(Path(name), memory_);
    ASSERT_TRUE(written.ok()) << written.error().message();
  }
  void WriteDiff(const std::string& name, const std::string& parent) {
    auto base = snapshot::Snapshot::Open(Path(parent));
    ASSERT_TRUE(base.ok()) << base.error().message();
    Status written = snapshot::WriteTestDiff(Path(name), memory_, *base);
    ASSERT_TRUE(written.ok()) << written.error().message();
  }
  bool Has(const std::string& name) const { return fs::exists(Path(name)); }

  std::string folder_ = ::testing::TempDir() + "/shelf";
  vmm::GuestMemory memory_ = snapshot::TestMemory();
  std::optional<Store> store_;
  std::optional<SnapshotShelf> shelf_;
};

TEST_F(SnapshotShelfTest, ChainsAreKeptWhole) {
  WriteBase("a");
  WriteDiff("b", "a");
  WriteDiff("c", "b");
  WriteBase("other");
  EXPECT_EQ(shelf_->Depth(Path("c")), 2u);
  shelf_->Collect({Path("c")});
  EXPECT_TRUE(Has("a") && Has("b") && Has("c"));
  EXPECT_FALSE(Has("other"));
  shelf_->Collect({Path("a")});
  EXPECT_TRUE(Has("a"));
  EXPECT_FALSE(Has("b") || Has("c"));
}

// What is being written builds on what it will say once it is there, not on nothing.
TEST_F(SnapshotShelfTest, OneThatWasAskedForBeforeItWasThere) {
  WriteBase("a");
  shelf_->Collect({Path("a"), Path("b")});
  WriteDiff("b", "a");
  shelf_->Collect({Path("b")});
  EXPECT_TRUE(Has("a"));
}

TEST_F(SnapshotShelfTest, AFolderThatIsALink) {
  WriteBase("a");
  WriteDiff("b", "a");
  const std::string link = folder_ + "/link";
  fs::create_directory_symlink(folder_ + "/snapshots", link);
  SnapshotShelf other(&*store_, link + "//");
  ASSERT_TRUE(other.Open().ok());
  other.Collect({link + "/b/"});
  EXPECT_TRUE(Has("a") && Has("b"));
}

TEST_F(SnapshotShelfTest, OneThatCannotBeReadKeepsAll) {
  WriteBase("a");
  WriteDiff("b", "a");
  std::ofstream(Path("b") + "/manifest.json") << "{";
  shelf_->Collect({Path("b")});
  EXPECT_TRUE(Has("a") && Has("b"));
  EXPECT_EQ(shelf_->Depth(Path("b")), 0u);
}

}  // namespace
}  // namespace cube::pool
