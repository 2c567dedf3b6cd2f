#include "snapshot/huge_pages.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "snapshot/page_scan.h"
#include "snapshot/snapshot.h"
#include "snapshot/test_snapshot.h"

namespace cube::snapshot {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kMib = 1 << 20;

void Fill(const vmm::GuestMemory& memory, uint64_t start, uint64_t size, int byte) {
  auto slice = memory.ImageSlice(start, size);
  for (uint64_t at = 0; at < size; at += kPage) {
    memset(slice->data() + at, byte + static_cast<int>(at / kPage % 50), kPage);
  }
}

bool SameRuns(const std::vector<PageRun>& a, const std::vector<PageRun>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const PageRun& x, const PageRun& y) {
    return x.start == y.start && x.size == y.size;
  });
}

// Before Linux 6.7 nothing is done.
bool IsKnownHere() { return PageScan::Open().value().uses_ioctl(); }

TEST(CollapsePrivate, MemoryAndWhatIsPrivateStayAsTheyWere) {
  vmm::GuestMemory memory = TestMemory();
  Fill(memory, 3 * kPage, 9 * kMib, 'a');
  Fill(memory, 20 * kMib, kMib, 'b');
  const std::vector<uint8_t> before = ImageOf(memory);
  const std::vector<PageRun> runs = PrivateRuns(memory).value();
  // The run has three or four whole ones, however it lies in the host's memory.
  const PageRun all = {0, before.size()};
  Collapsed first = CollapsePrivate(memory, {&all, 1}, 2 * kMib).value();
  EXPECT_EQ(first.done, IsKnownHere() ? 2 * kMib : 0);
  EXPECT_GE(first.left, IsKnownHere() ? 4 * kMib : 0);
  Collapsed rest = CollapsePrivate(memory, {&all, 1}, 64 * kMib).value();
  EXPECT_EQ(rest.done, first.left);
  EXPECT_EQ(rest.left, 0u);
  EXPECT_TRUE(ImageOf(memory) == before);
  EXPECT_TRUE(SameRuns(PrivateRuns(memory).value(), runs));
  // What is a huge page by now is not looked at again.
  EXPECT_EQ(CollapsePrivate(memory, {&all, 1}, 64 * kMib).value().done, 0u);
}

TEST(CollapsePrivate, OnlyWhereThereIsNoFile) {
  std::string path = ::testing::TempDir() + "/huge-base";
  std::filesystem::remove_all(path);
  {
    vmm::GuestMemory first = TestMemory();
    Fill(first, 0, 8 * kMib, 'x');
    Fill(first, 9 * kMib, kPage, 'x');
    ASSERT_TRUE(WriteTestBase(path, first).ok());
  }
  Snapshot base = Snapshot::Open(path).value();
  std::vector<PageRun> anonymous = base.AnonymousRuns();
  ASSERT_EQ(anonymous.size(), 1u);
  EXPECT_EQ(anonymous[0].start, 9 * kMib + kPage);
  EXPECT_EQ(anonymous[0].start + anonymous[0].size, base.image_bytes());
  vmm::GuestMemory memory = base.MapMemory().value();
  Fill(memory, 0, 16 * kMib, 'y');
  const std::vector<uint8_t> before = ImageOf(memory);
  Collapsed collapsed = CollapsePrivate(memory, anonymous, 64 * kMib).value();
  EXPECT_GE(collapsed.done, IsKnownHere() ? 4 * kMib : 0);
  EXPECT_LE(collapsed.done, 6 * kMib);
  EXPECT_TRUE(ImageOf(memory) == before);
  // What is given back is the base's again, with and without a file.
  const std::vector<PageRun> runs = PrivateRuns(memory).value();
  for (const PageRun& run : runs) {
    auto slice = memory.ImageSlice(run.start, run.size);
    EXPECT_TRUE(slice && memory.Discard(*slice));
  }
  EXPECT_TRUE(ImageOf(memory) == ImageOf(base));
  std::filesystem::remove_all(path);
}

}  // namespace
}  // namespace cube::snapshot
