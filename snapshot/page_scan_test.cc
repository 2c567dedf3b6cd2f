#include "snapshot/page_scan.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mapping.h"

namespace cube::snapshot {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kPages = 64;

class PageScanTest : public ::testing::TestWithParam<PageScan::Method> {};

TEST_P(PageScanTest, FindsWhatWasWrittenAndNothingElse) {
  UniqueFd file(memfd_create("image", MFD_CLOEXEC));
  ASSERT_EQ(ftruncate(file.get(), kPages * kPage), 0);
  Mapping map =
      Mapping::Map(kPages * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, file.get(), 0, "image")
          .value();
  PageScan scan = PageScan::Open(GetParam()).value();
  std::vector<PageRun> runs;
  ASSERT_TRUE(scan.Find(map.span(), 0, &runs).ok());
  EXPECT_TRUE(runs.empty());
  volatile uint8_t sink = map.data()[5 * kPage];  // only read
  (void)sink;
  for (size_t page : {1, 2, 3, 10, 63}) map.data()[page * kPage] = 1;
  ASSERT_TRUE(scan.Find(map.span(), 1 << 20, &runs).ok());
  ASSERT_EQ(runs.size(), 3u);
  EXPECT_EQ(runs[0].start, (1u << 20) + kPage);
  EXPECT_EQ(runs[0].size, 3 * kPage);
  EXPECT_EQ(runs[1].start, (1u << 20) + 10 * kPage);
  EXPECT_EQ(runs[2].start, (1u << 20) + 63 * kPage);
  // Given back, a page is the image's again.
  madvise(map.data() + 10 * kPage, kPage, MADV_DONTNEED);
  runs.clear();
  ASSERT_TRUE(scan.Find(map.span(), 0, &runs).ok());
  EXPECT_EQ(runs.size(), 2u);
}

TEST_P(PageScanTest, ManyRuns) {
  constexpr size_t kMany = 20000;
  UniqueFd file(memfd_create("image", MFD_CLOEXEC));
  ASSERT_EQ(ftruncate(file.get(), 2 * kMany * kPage), 0);
  Mapping map =
      Mapping::Map(2 * kMany * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, file.get(), 0, "image")
          .value();
  for (size_t i = 0; i < kMany; ++i) map.data()[2 * i * kPage] = 1;
  std::vector<PageRun> runs;
  ASSERT_TRUE(PageScan::Open(GetParam()).value().Find(map.span(), 0, &runs).ok());
  EXPECT_EQ(runs.size(), kMany);
}

INSTANTIATE_TEST_SUITE_P(Methods, PageScanTest,
                         ::testing::Values(PageScan::Method::kBest, PageScan::Method::kPagemap));

}  // namespace
}  // namespace cube::snapshot
