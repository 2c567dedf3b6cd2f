#include "vmm/loader/initrd_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "vmm/loader/test_images.h"
#include "vmm/memory_map.h"

namespace cube::vmm {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;
using testing::Image;
using testing::WriteTempFile;

constexpr LoadedKernel kKernel = {.entry = 16 * kMiB, .start = 16 * kMiB, .end = 20 * kMiB + 5};

class InitrdLoader : public ::testing::Test {
 protected:
  std::string ErrorOf(const std::string& path, const LoadedKernel& kernel = kKernel) {
    Result<Initrd> initrd = LoadInitrd(path, memory_, kernel);
    return initrd.ok() ? "no error" : initrd.error().message();
  }
  // A sparse file.
  std::string FileOfSize(uint64_t size) {
    std::string path = WriteTempFile("initrd_large", {});
    EXPECT_EQ(truncate(path.c_str(), static_cast<off_t>(size)), 0);
    return path;
  }

  GuestMemory memory_ = GuestMemory::Create(32 * kMiB).value();
};

TEST_F(InitrdLoader, LiesBelowTheLastLargePageOfASmallGuest) {
  Image content(10000);
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<uint8_t>(i * 13);
  Result<Initrd> initrd = LoadInitrd(WriteTempFile("initrd", content), memory_, kKernel);
  ASSERT_TRUE(initrd.ok()) << initrd.error().message();
  EXPECT_EQ(initrd->address, 30 * kMiB - 3 * kPageSize);
  EXPECT_EQ(initrd->size, content.size());
  std::span<uint8_t> loaded = *memory_.Slice(initrd->address, initrd->size);
  EXPECT_TRUE(std::equal(content.begin(), content.end(), loaded.begin()));
}

TEST_F(InitrdLoader, StaysBelowTheAddressLimitOfALargeGuest) {
  GuestMemory large = GuestMemory::Create(5 * kGiB).value();
  Result<Initrd> initrd = LoadInitrd(WriteTempFile("initrd", Image(4097, 1)), large, kKernel);
  ASSERT_TRUE(initrd.ok()) << initrd.error().message();
  EXPECT_EQ(initrd->address, 0x37dfe000u);
}

TEST_F(InitrdLoader, MayFillWhatIsLeftAboveTheKernelButNoMore) {
  const uint64_t left = 32 * kMiB - 20 * kMiB - kPageSize;
  LoadedKernel low = kKernel;
  low.start = 1 * kMiB;
  Result<Initrd> initrd = LoadInitrd(FileOfSize(left), memory_, low);
  ASSERT_TRUE(initrd.ok()) << initrd.error().message();
  EXPECT_EQ(initrd->address, 20 * kMiB + kPageSize);
  std::string path = FileOfSize(left + 1);
  EXPECT_EQ(ErrorOf(path, low), "initrd " + path +
                                    ": 12578817 bytes do not fit in the guest, which has 12578816 "
                                    "left for it");
}

TEST_F(InitrdLoader, GoesBelowTheKernelIfItDoesNotFitAbove) {
  Result<Initrd> initrd = LoadInitrd(FileOfSize(14 * kMiB), memory_, kKernel);
  ASSERT_TRUE(initrd.ok()) << initrd.error().message();
  EXPECT_EQ(initrd->address, 2 * kMiB);
  // A kernel up to the end of RAM, and one above all that an initrd may use.
  LoadedKernel high = {.entry = 0, .start = 16 * kMiB, .end = 32 * kMiB};
  initrd = LoadInitrd(FileOfSize(1), memory_, high);
  ASSERT_TRUE(initrd.ok()) << initrd.error().message();
  EXPECT_EQ(initrd->address, 16 * kMiB - kPageSize);
}

TEST_F(InitrdLoader, SizesThatFitNowhereAreErrors) {
  for (uint64_t size : {15 * kMiB + 1, 32 * kMiB, 5 * kGiB, uint64_t{1} << 43}) {
    EXPECT_THAT(ErrorOf(FileOfSize(size)),
                HasSubstr(Format("%llu bytes do not fit in the guest, which has 15728640 left",
                                 static_cast<unsigned long long>(size))));
  }
  LoadedKernel whole = {.entry = 0, .start = 1 * kMiB, .end = 32 * kMiB};
  EXPECT_THAT(ErrorOf(FileOfSize(1), whole), HasSubstr("1 bytes do not fit in the guest, which "
                                                       "has 0 left"));
}

TEST_F(InitrdLoader, FilesThatCannotBeReadAreNamed) {
  EXPECT_EQ(ErrorOf("/nonexistent/initrd"),
            "initrd: cannot open /nonexistent/initrd: No such file or directory");
  EXPECT_EQ(ErrorOf("/tmp"), "initrd /tmp is not a regular file");
  EXPECT_EQ(ErrorOf("/dev/zero"), "initrd /dev/zero is not a regular file");
  std::string path = WriteTempFile("initrd_empty", {});
  EXPECT_EQ(ErrorOf(path), "initrd " + path + ": the file is empty");
}

TEST_F(InitrdLoader, FileThatEndsEarlyIsAnError) {
  // Files of sysfs say they have a page but give less.
  const std::string path = "/sys/kernel/uevent_seqnum";
  struct stat st = {};
  ASSERT_EQ(stat(path.c_str(), &st), 0);
  ASSERT_EQ(st.st_size, 4096);
  EXPECT_THAT(ErrorOf(path), StartsWith("initrd " + path + " ends after "));
  EXPECT_THAT(ErrorOf(path), HasSubstr("4096 are needed"));
}

}  // namespace
}  // namespace cube::vmm
