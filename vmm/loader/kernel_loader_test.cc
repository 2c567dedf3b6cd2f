#include "vmm/loader/kernel_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/loader/test_images.h"

namespace cube::vmm {
namespace {

using ::testing::StartsWith;
using testing::Image;
using testing::MakeBzImage;
using testing::MakeVmlinux;
using testing::WithLength;
using testing::WriteTempFile;

class KernelLoader : public ::testing::Test {
 protected:
  std::string ErrorOf(std::span<const uint8_t> file, uint64_t limit = kMaxUnpackedKernel) {
    Result<LoadedKernel> kernel = LoadKernelImage(file, memory_, limit);
    return kernel.ok() ? "no error" : kernel.error().message();
  }
  std::string ErrorOfFile(const std::string& path) {
    Result<LoadedKernel> kernel = LoadKernel(path, memory_);
    return kernel.ok() ? "no error" : kernel.error().message();
  }

  GuestMemory memory_ = GuestMemory::Create(32 * kMiB).value();
};

TEST_F(KernelLoader, LoadsAVmlinuxFile) {
  std::string path = WriteTempFile("vmlinux", MakeVmlinux());
  Result<LoadedKernel> kernel = LoadKernel(path, memory_);
  ASSERT_TRUE(kernel.ok()) << kernel.error().message();
  EXPECT_EQ(kernel->entry, 0x100000u);
  EXPECT_FALSE(kernel->header.has_value());
  EXPECT_EQ(memory_.ReadObject<uint8_t>(0x200000), 0xcc);
}

TEST_F(KernelLoader, LoadsABzImageOfEveryFormat) {
  Image vmlinux = MakeVmlinux();
  for (const Image& payload :
       {WithLength(testing::PackLz4(vmlinux), vmlinux), testing::PackGzip(vmlinux),
        WithLength(testing::PackZstd(vmlinux), vmlinux),
        WithLength(testing::PackXz(vmlinux), vmlinux)}) {
    GuestMemory memory = GuestMemory::Create(32 * kMiB).value();
    Result<LoadedKernel> kernel =
        LoadKernel(WriteTempFile("bzImage", MakeBzImage(payload)), memory);
    ASSERT_TRUE(kernel.ok()) << kernel.error().message();
    EXPECT_EQ(kernel->entry, 0x100000u);
    EXPECT_EQ(kernel->end, 0x200064u);
    ASSERT_TRUE(kernel->header.has_value());
    EXPECT_EQ(kernel->header->version, 0x020f);
    EXPECT_EQ(memory.ReadObject<uint8_t>(0x200000), 0xcc);
  }
}

TEST_F(KernelLoader, OtherFilesAreShownByTheirFirstBytes) {
  Image file(100, 0);
  file[0] = 0x7f;
  std::string path = WriteTempFile("zeros", file);
  EXPECT_EQ(ErrorOfFile(path), "kernel " + path +
                                   ": neither an ELF vmlinux nor a bzImage (begins with "
                                   "7f 00 00 00 00 00 00 00)");
  EXPECT_EQ(ErrorOf(Image{0x7f}), "neither an ELF vmlinux nor a bzImage (begins with 7f)");
}

TEST_F(KernelLoader, FilesThatCannotBeMappedAreNamed) {
  EXPECT_EQ(ErrorOfFile("/nonexistent/kernel"),
            "kernel: cannot open /nonexistent/kernel: No such file or directory");
  EXPECT_EQ(ErrorOfFile("/tmp"), "kernel /tmp is not a regular file");
  std::string path = WriteTempFile("empty", {});
  EXPECT_EQ(ErrorOfFile(path), "kernel " + path + ": the file is empty");
  EXPECT_EQ(ErrorOf({}), "the file is empty");
  path += ".fifo";
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  EXPECT_EQ(ErrorOfFile(path), "kernel " + path + " is not a regular file");
  unlink(path.c_str());
}

TEST_F(KernelLoader, TruncatedFilesAreNamed) {
  Image vmlinux = MakeVmlinux();
  std::string path = WriteTempFile("short", std::span(vmlinux).first(vmlinux.size() - 50));
  EXPECT_THAT(ErrorOfFile(path), StartsWith("kernel " + path + ": truncated: ELF segment 1"));
  Image bz_image = MakeBzImage(testing::PackZstd(vmlinux));
  path = WriteTempFile("short", std::span(bz_image).first(bz_image.size() - 1));
  EXPECT_THAT(ErrorOfFile(path),
              StartsWith("kernel " + path + ": bzImage: truncated: the compressed kernel ends"));
}

TEST_F(KernelLoader, WhatABzImageHoldsIsCheckedToo) {
  EXPECT_EQ(ErrorOf(MakeBzImage(testing::PackGzip(Image(100, 1)))), "bzImage: not an ELF file");
  EXPECT_EQ(ErrorOf(MakeBzImage(Image{'B', 'Z', 'h', '9', 0})),
            "bzImage: compressed with bzip2; lz4, gzip, zstd and xz are supported");
  Image bomb = MakeBzImage(testing::PackZstd(Image(4 * kMiB)));
  EXPECT_EQ(ErrorOf(bomb, kMiB), "bzImage: zstd data gives more than the limit of 1048576 bytes");
}

}  // namespace
}  // namespace cube::vmm
