#include "vmm/ring0/table_tracker.h"

#include <gtest/gtest.h>

#include <vector>

#include "vmm/paging.h"
#include "vmm/ring0/test_machine.h"

namespace cube::vmm::ring0 {
namespace {

constexpr uint64_t kTable = kEntryPresent | kEntryWritable | kEntryUser;
constexpr uint64_t kShadowed = kTable | kEntryAccessed;
// Physical pages, all of tables.
constexpr uint64_t kRootA = 0x80000, kRootB = 0x81000, kDirectoryPointers = 0x82000,
                   kDirectory = 0x83000, kLeaves = 0x84000, kData = 0x85000;

class TableTrackerTest : public testing::Test {
 protected:
  // What a store of the guest's does.
  void Set(uint64_t table, size_t index, uint64_t value) {
    uint64_t& entry = machine_.Quad(table + index * 8);
    uint64_t old = entry;
    entry = value;
    tracker().Changed(table + index * 8, old, value);
  }
  void Chain(uint64_t root) {
    Set(root, 1, kDirectoryPointers | kTable);
    Set(kDirectoryPointers, 2, kDirectory | kTable);
    Set(kDirectory, 3, kLeaves | kTable);
    Set(kLeaves, 4, kData | kTable);
  }
  std::vector<uint64_t> Tables() {
    std::vector<uint64_t> pages;
    for (uint64_t page = kRootA; page <= kData; page += kPageSize) {
      if (tracker().IsTable(page)) pages.push_back(page);
    }
    EXPECT_EQ(pages.size(), tracker().tables());
    return pages;
  }
  TableTracker& tracker() { return machine_.tables(); }

  TestMachine machine_;
};

using Pages = std::vector<uint64_t>;

TEST_F(TableTrackerTest, FindsTablesFromTheRoot) {
  Chain(kRootA);
  EXPECT_EQ(Tables(), Pages{});
  tracker().Rebuild({kRootA});
  EXPECT_EQ(Tables(), (Pages{kRootA, kDirectoryPointers, kDirectory, kLeaves}));
}

TEST_F(TableTrackerTest, FindsTablesAsTheyAreLinked) {
  tracker().Rebuild({kRootA});
  EXPECT_EQ(Tables(), Pages{kRootA});
  Chain(kRootA);
  EXPECT_EQ(Tables(), (Pages{kRootA, kDirectoryPointers, kDirectory, kLeaves}));
  // Filled before it is linked.
  Set(kRootA, 1, 0);
  EXPECT_EQ(Tables(), Pages{kRootA});
  Set(kRootA, 7, kDirectoryPointers | kTable);
  EXPECT_EQ(Tables(), (Pages{kRootA, kDirectoryPointers, kDirectory, kLeaves}));
}

TEST_F(TableTrackerTest, CountsLinks) {
  tracker().Rebuild({kRootA});
  Chain(kRootA);
  Set(kDirectoryPointers, 9, kDirectory | kTable);
  Set(kDirectoryPointers, 2, 0);
  EXPECT_TRUE(tracker().IsTable(kLeaves));
  Set(kDirectoryPointers, 9, 0);
  EXPECT_EQ(Tables(), (Pages{kRootA, kDirectoryPointers}));
}

TEST_F(TableTrackerTest, SupervisorAndLargeEntriesLinkNothing) {
  tracker().Rebuild({kRootA});
  Set(kRootA, 256, kDirectoryPointers | (kTable & ~kEntryUser));
  EXPECT_EQ(Tables(), Pages{kRootA});
  Set(kRootA, 1, kDirectoryPointers | kTable);
  Set(kDirectoryPointers, 2, kDirectory | kTable | kEntryLarge);
  EXPECT_EQ(Tables(), (Pages{kRootA, kDirectoryPointers}));
  // The same page, split.
  Set(kDirectoryPointers, 2, kDirectory | kTable);
  EXPECT_EQ(Tables(), (Pages{kRootA, kDirectoryPointers, kDirectory}));
}

TEST_F(TableTrackerTest, ReplacedLink) {
  tracker().Rebuild({kRootA});
  Chain(kRootA);
  Set(kRootA, 1, kData | kTable);
  EXPECT_EQ(Tables(), (Pages{kRootA, kData}));
  // Only its flags.
  Set(kRootA, 1, kData | kTable | kEntryAccessed);
  EXPECT_EQ(Tables(), (Pages{kRootA, kData}));
}

TEST_F(TableTrackerTest, TableThatMapsItself) {
  tracker().Rebuild({kRootA});
  Set(kRootA, 5, kRootA | kTable);
  EXPECT_EQ(Tables(), Pages{kRootA});
  Chain(kRootA);
  EXPECT_EQ(Tables(), (Pages{kRootA, kDirectoryPointers, kDirectory, kLeaves}));
  Set(kRootA, 5, 0);
  EXPECT_EQ(Tables(), (Pages{kRootA, kDirectoryPointers, kDirectory, kLeaves}));
  Set(kRootA, 5, kRootA | kTable);
  Set(kRootA, 1, 0);
  EXPECT_EQ(Tables(), Pages{kRootA});
}

TEST_F(TableTrackerTest, RootsComeAndGo) {
  tracker().Rebuild({kRootA});
  tracker().SwitchRoot(kRootA, kRootB);
  EXPECT_EQ(Tables(), Pages{kRootB});  // it mapped nothing
  Chain(kRootB);
  tracker().SwitchRoot(kRootB, kRootA);
  EXPECT_TRUE(tracker().IsTable(kLeaves));  // its process will run again
  // It is torn down while nobody runs it.
  Set(kRootB, 1, 0);
  EXPECT_EQ(Tables(), Pages{kRootA});
}

TEST_F(TableTrackerTest, RootHeldByTwoCpus) {
  tracker().Rebuild({kRootA, kRootA});
  tracker().SwitchRoot(kRootA, kRootB);
  EXPECT_EQ(Tables(), (Pages{kRootA, kRootB}));
  tracker().SwitchRoot(kRootA, kRootB);
  EXPECT_EQ(Tables(), Pages{kRootB});
}

TEST_F(TableTrackerTest, SameRootAgain) {
  tracker().SwitchRoot(kRootA, kRootA);
  EXPECT_EQ(Tables(), Pages{kRootA});
  tracker().SwitchRoot(kRootA, kRootA | 0x18);  // with cache bits
  EXPECT_EQ(Tables(), Pages{kRootA});
  Chain(kRootA);
  EXPECT_TRUE(tracker().IsTable(kLeaves));
  tracker().SwitchRoot(kRootA, kRootB);
  tracker().SwitchRoot(kRootB, kRootA);
  EXPECT_EQ(Tables(), (Pages{kRootA, kDirectoryPointers, kDirectory, kLeaves}));
}

TEST_F(TableTrackerTest, QueuesWhatTheShadowMayHold) {
  tracker().Rebuild({kRootA});
  Chain(kRootA);
  EXPECT_TRUE(tracker().replay_queue().empty());
  Set(kLeaves, 4, kData | kShadowed);  // over one that was not accessed
  EXPECT_TRUE(tracker().replay_queue().empty());
  Set(kLeaves, 4, kData | kShadowed);  // no change
  EXPECT_TRUE(tracker().replay_queue().empty());
  Set(kLeaves, 4, 0);
  EXPECT_EQ(tracker().replay_queue(), Pages{kLeaves + 4 * 8});
  Set(kLeaves, 4, kData | kShadowed);  // over an absent one
  EXPECT_EQ(tracker().replay_queue().size(), 1u);
  Set(kLeaves, 5, kData | (kShadowed & ~kEntryUser));
  Set(kLeaves, 5, 0);
  EXPECT_EQ(tracker().replay_queue().size(), 1u);
  Set(kDirectory, 3, kLeaves | kShadowed);
  Set(kDirectory, 3, 0);
  // And what the table held.
  EXPECT_EQ(tracker().replay_queue(),
            (Pages{kLeaves + 4 * 8, kDirectory + 3 * 8, kLeaves + 4 * 8}));
}

// The page may be written unseen before it is a table again.
TEST_F(TableTrackerTest, QueuesWhatATableHoldsWhenItIsUnlinked) {
  tracker().Rebuild({kRootA});
  Chain(kRootA);
  Set(kLeaves, 4, kData | kShadowed);
  Set(kLeaves, 5, kData | kTable);  // never used
  Set(kLeaves, 511, kData | kShadowed);
  Set(kDirectory, 3, kLeaves | kShadowed);
  Set(kDirectoryPointers, 7, kDirectory | kTable);
  Set(kDirectoryPointers, 7, 0);  // not the last link
  EXPECT_TRUE(tracker().replay_queue().empty());
  Set(kDirectoryPointers, 2, 0);
  EXPECT_EQ(tracker().replay_queue(),
            (Pages{kDirectory + 3 * 8, kLeaves + 4 * 8, kLeaves + 511 * 8}));
}

TEST_F(TableTrackerTest, LinksOutsideMemory) {
  tracker().Rebuild({kRootA});
  Set(kRootA, 1, 0x7ffff000 | kTable);
  EXPECT_EQ(Tables(), Pages{kRootA});
  Set(kRootA, 1, 0);
  tracker().SwitchRoot(kRootA, 0x7ffff000);
  EXPECT_EQ(Tables(), Pages{});
}

}  // namespace
}  // namespace cube::vmm::ring0
