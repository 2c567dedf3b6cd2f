#include "devices/blk/disk.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "base/byte_io.h"
#include "devices/blk/overlay_format.h"
#include "devices/blk/testing/scratch.h"

namespace cube::devices::blk {
namespace {

using testing::Pattern;
using testing::Scratch;

constexpr uint64_t kSize = 1 << 20;
constexpr uint64_t kBlock = OverlayFile::kDefaultBlockSize;

std::vector<uint8_t> ReadDisk(const Disk& disk, uint64_t offset, uint64_t size) {
  std::vector<Disk::Extent> extents;
  disk.Map(offset, size, &extents);
  std::vector<uint8_t> bytes(size);
  uint64_t at = 0;
  for (const Disk::Extent& extent : extents) {
    EXPECT_TRUE(ReadExactAt(extent.fd, std::span(bytes).subspan(at, extent.size),
                            extent.file_offset, "disk")
                    .ok());
    at += extent.size;
  }
  EXPECT_EQ(at, size);
  return bytes;
}

// Whole blocks, as DiskQueue does it.
void WriteBlocks(Disk* disk, uint64_t first, const std::vector<uint8_t>& bytes) {
  ASSERT_EQ(pwrite(disk->write_fd(), bytes.data(), bytes.size(),
                   static_cast<off_t>(disk->WriteOffset(first * kBlock))),
            static_cast<ssize_t>(bytes.size()));
  disk->overlay()->SetPresent(first, bytes.size() / kBlock);
}

class DiskTest : public ::testing::Test {
 protected:
  std::string ErrorOf(const DiskFiles& files) {
    auto disk = Disk::Open(files);
    return disk.ok() ? "" : disk.error().message();
  }
  // An overlay of the base with a block, committed and closed.
  std::string MakeOverlay(const std::string& name, uint64_t block, uint32_t seed) {
    Disk disk = Disk::Open({.base = base_, .overlay = scratch_.Path(name)}).value();
    WriteBlocks(&disk, block, Pattern(kBlock, seed));
    EXPECT_TRUE(disk.overlay()->Commit().ok());
    return scratch_.Path(name);
  }
  // Changes bytes of a file, or its length.
  void Patch(const std::string& path, off_t offset, std::vector<uint8_t> bytes) {
    UniqueFd fd = OpenFile(path, O_RDWR).value();
    ASSERT_EQ(pwrite(fd.get(), bytes.data(), bytes.size(), offset),
              static_cast<ssize_t>(bytes.size()));
  }

  Scratch scratch_;
  std::vector<uint8_t> content_ = Pattern(kSize, 1);
  std::string base_ = scratch_.Write("base", content_);
};

TEST_F(DiskTest, ARawDiskIsItsFile) {
  Disk disk = Disk::Open({.base = base_}).value();
  EXPECT_EQ(disk.size(), kSize);
  EXPECT_FALSE(disk.read_only());
  EXPECT_EQ(ReadDisk(disk, 512, 10000),
            std::vector(content_.begin() + 512, content_.begin() + 10512));
  EXPECT_TRUE(Disk::Open({.base = base_, .read_only = true}).error().message().find("in use") !=
              std::string::npos);
}

TEST_F(DiskTest, WhatIsReadIsSharedAndNotWritten) {
  Disk one = Disk::Open({.base = base_, .read_only = true}).value();
  Disk two = Disk::Open({.base = base_, .overlay = scratch_.Path("two")}).value();
  Disk three = Disk::Open({.base = base_, .overlay = scratch_.Path("three")}).value();
  EXPECT_TRUE(one.read_only());
  EXPECT_NE(ErrorOf({.base = base_}), "");
  EXPECT_NE(ErrorOf({.base = base_, .overlay = scratch_.Path("two")}), "");
}

TEST_F(DiskTest, TheOverlayCoversTheBase) {
  auto block = Pattern(2 * kBlock, 2);
  {
    Disk disk = Disk::Open({.base = base_, .overlay = scratch_.Path("overlay")}).value();
    EXPECT_EQ(ReadDisk(disk, 0, kSize), content_);
    WriteBlocks(&disk, 3, block);
    ASSERT_TRUE(disk.overlay()->Commit().ok());
    WriteBlocks(&disk, 9, block);  // not committed
  }
  Disk disk = Disk::Open({.base = base_, .overlay = scratch_.Path("overlay")}).value();
  auto expected = content_;
  memcpy(expected.data() + 3 * kBlock, block.data(), block.size());
  EXPECT_EQ(ReadDisk(disk, 0, kSize), expected);
  EXPECT_EQ(ReadDisk(disk, 3 * kBlock - 512, 1024),
            std::vector(expected.begin() + 3 * kBlock - 512, expected.begin() + 3 * kBlock + 512));
  EXPECT_EQ(disk.overlay()->present().Count(), 2u);
  EXPECT_EQ(scratch_.Read("base"), content_);
}

TEST_F(DiskTest, FrozenOverlaysBecomeLayers) {
  std::vector<std::string> names = {"a", "b", "c"};
  auto expected = content_;
  auto write = [&](Disk* disk, uint64_t first, uint32_t seed) {
    auto bytes = Pattern(2 * kBlock, seed);
    WriteBlocks(disk, first, bytes);
    memcpy(expected.data() + first * kBlock, bytes.data(), bytes.size());
  };
  {
    Disk disk = Disk::Open({.base = base_, .overlay = scratch_.Path("a")}).value();
    write(&disk, 10, 2);
    ASSERT_TRUE(disk.Freeze(scratch_.Path("b")).ok());
    write(&disk, 11, 3);
    ASSERT_TRUE(disk.Freeze(scratch_.Path("c")).ok());
    write(&disk, 12, 4);
    EXPECT_EQ(disk.layers().size(), 2u);
    EXPECT_EQ(disk.overlay()->present().Count(), 2u);  // those since the last freeze
    EXPECT_EQ(ReadDisk(disk, 0, kSize), expected);
    ASSERT_TRUE(disk.overlay()->Commit().ok());
    EXPECT_FALSE(disk.Freeze(scratch_.Path("a")).ok());  // there is something in it
    EXPECT_EQ(ReadDisk(disk, 0, kSize), expected);
  }
  std::vector<std::string> layers = {scratch_.Path("a"), scratch_.Path("b")};
  {
    Disk disk =
        Disk::Open({.base = base_, .layers = layers, .overlay = scratch_.Path("c")}).value();
    EXPECT_EQ(ReadDisk(disk, 0, kSize), expected);
    // Layers alone are a disk to read, and are never written.
    Disk shared = Disk::Open({.base = base_, .layers = layers}).value();
    EXPECT_TRUE(shared.read_only());
  }
  EXPECT_NE(ErrorOf({.base = base_, .overlay = scratch_.Path("a")}).find("frozen"),
            std::string::npos);
}

TEST_F(DiskTest, ResetForgetsWhatWasWrittenSinceTheFreeze) {
  Disk disk = Disk::Open({.base = base_, .overlay = scratch_.Path("a")}).value();
  WriteBlocks(&disk, 1, Pattern(kBlock, 2));
  ASSERT_TRUE(disk.Freeze(scratch_.Path("b")).ok());
  auto frozen = ReadDisk(disk, 0, kSize);
  WriteBlocks(&disk, 1, Pattern(kBlock, 3));
  ASSERT_TRUE(disk.overlay()->Commit().ok());
  WriteBlocks(&disk, 2, Pattern(kBlock, 4));
  ASSERT_TRUE(disk.Reset().ok());
  EXPECT_EQ(ReadDisk(disk, 0, kSize), frozen);
  struct stat info;
  ASSERT_EQ(fstat(disk.write_fd(), &info), 0);
  EXPECT_LE(info.st_blocks * 512, 8192);
  // And the file has forgotten too.
  disk = Disk::Open({.base = base_, .read_only = true}).value();
  Disk again =
      Disk::Open({.base = base_, .layers = {scratch_.Path("a")}, .overlay = scratch_.Path("b")})
          .value();
  EXPECT_EQ(ReadDisk(again, 0, kSize), frozen);
}

TEST_F(DiskTest, LayersMayHaveOtherBlockSizes) {
  Disk disk =
      Disk::Open({.base = base_, .overlay = scratch_.Path("a"), .new_block_size = 65536}).value();
  auto bytes = Pattern(65536, 2);
  ASSERT_EQ(pwrite(disk.write_fd(), bytes.data(), bytes.size(),
                   static_cast<off_t>(disk.WriteOffset(65536))),
            65536);
  disk.overlay()->SetPresent(1, 1);
  ASSERT_TRUE(disk.overlay()->Freeze().ok());
  disk = Disk::Open({.base = base_, .layers = {scratch_.Path("a")}, .overlay = scratch_.Path("b")})
             .value();
  WriteBlocks(&disk, 20, Pattern(kBlock, 3));
  auto expected = content_;
  memcpy(expected.data() + 65536, bytes.data(), bytes.size());
  memcpy(expected.data() + 20 * kBlock, Pattern(kBlock, 3).data(), kBlock);
  EXPECT_EQ(ReadDisk(disk, 0, kSize), expected);
}

TEST_F(DiskTest, ADiskNeedNotEndWithAWholeBlock) {
  auto content = Pattern(kBlock + 512, 5);
  std::string base = scratch_.Write("small", content);
  Disk disk = Disk::Open({.base = base, .overlay = scratch_.Path("overlay")}).value();
  EXPECT_EQ(disk.overlay()->present().blocks(), 2u);
  EXPECT_EQ(ReadDisk(disk, 0, content.size()), content);
  disk.overlay()->SetPresent(1, 1);
  EXPECT_EQ(ReadDisk(disk, kBlock, 512), std::vector<uint8_t>(512));
}

TEST_F(DiskTest, FlattenWritesWhatTheDiskHolds) {
  Disk disk = Disk::Open({.base = base_, .overlay = scratch_.Path("overlay")}).value();
  WriteBlocks(&disk, 3, Pattern(kBlock, 2));
  WriteBlocks(&disk, 7, std::vector<uint8_t>(kBlock));
  ASSERT_TRUE(FlattenDisk(disk, scratch_.Path("flat")).ok());
  EXPECT_EQ(scratch_.Read("flat"), ReadDisk(disk, 0, kSize));
  EXPECT_FALSE(FlattenDisk(disk, base_).ok());
  EXPECT_EQ(scratch_.Read("base"), content_);
}

TEST_F(DiskTest, FilesThatAreNotWhatTheyShouldBeAreRefusedInOneLine) {
  auto refuse = [&](const DiskFiles& files, const char* part) {
    std::string error = ErrorOf(files);
    EXPECT_NE(error.find(part), std::string::npos) << error;
    EXPECT_EQ(error.find('\n'), std::string::npos);
  };
  refuse({.base = scratch_.Path("missing")}, "missing");
  refuse({.base = scratch_.Write("empty", {})}, "0 bytes");
  refuse({.base = scratch_.Write("odd", Pattern(513, 1))}, "513 bytes");
  refuse({.base = "/dev/null"}, "/dev/null");
  refuse({.base = base_, .overlay = scratch_.Path("o"), .read_only = true}, "read-only");
  refuse({.base = base_, .overlay = scratch_.Path("o"), .new_block_size = 5000}, "5000");
  refuse({.base = base_, .overlay = scratch_.Write("text", Pattern(100, 1))}, "not an overlay");
  refuse({.base = base_, .overlay = scratch_.Write("short", Pattern(10, 1))}, "short");
  refuse({.base = base_, .layers = std::vector<std::string>(65, base_)}, "65 layers");

  auto patched = [&](off_t offset, std::vector<uint8_t> bytes, const char* part) {
    std::string path = MakeOverlay("patched", 1, 2);
    Patch(path, offset, std::move(bytes));
    refuse({.base = base_, .overlay = path}, part);
    unlink(path.c_str());
  };
  patched(0, {'X'}, "not an overlay");
  patched(8, {2}, "version 2");
  for (off_t field : {12, 16, 24, 28}) patched(field, {0x77, 1}, "damaged");
  auto header = [&](uint32_t state, uint64_t disk_size, uint32_t block_size, const char* part) {
    OverlayHeader made = {{}, kOverlayVersion, state, disk_size, block_size, 0};
    memcpy(made.magic, kOverlayMagic, sizeof made.magic);
    made.checksum = OverlayChecksum(made);
    const auto* bytes = reinterpret_cast<const uint8_t*>(&made);
    patched(0, std::vector<uint8_t>(bytes, bytes + sizeof made), part);
  };
  header(kStateLayer, kSize, kBlock, "frozen");
  header(kStateLayer + 1, kSize, kBlock, "damaged");
  header(kStateOverlay, kSize + 512, kBlock, "its base has");
  header(kStateOverlay, kSize, 0, "blocks of 0");
  header(kStateOverlay, kSize, 6000, "blocks of 6000");
  header(kStateOverlay, kSize, 1u << 31, "blocks of");
  patched(4096 + 32, {1}, "beyond the disk's 256");
  patched(4096 + 4095, {128}, "beyond the disk's 256");
  std::string path = MakeOverlay("cut", 1, 2);
  for (off_t size : {off_t{31}, off_t{4096}, off_t{6000}, off_t{8192}, off_t{kSize}}) {
    ASSERT_EQ(truncate(path.c_str(), size), 0);
    refuse({.base = base_, .overlay = path}, "cut");
  }
}

TEST_F(DiskTest, ATemporaryOverlayIsSealedAndLinked) {
  auto expected = content_;
  auto write = [&](Disk* disk, uint64_t first, uint32_t seed) {
    auto bytes = Pattern(2 * kBlock, seed);
    WriteBlocks(disk, first, bytes);
    memcpy(expected.data() + first * kBlock, bytes.data(), bytes.size());
  };
  DiskStack stack = Disk::Open({.base = base_, .read_only = true}).value().stack();
  auto temporary = [&] { return OverlayFile::CreateTemporary(scratch_.Path(""), kSize).value(); };
  Disk disk = Disk::Over(stack, temporary()).value();
  EXPECT_FALSE(disk.read_only());
  write(&disk, 10, 2);
  ASSERT_TRUE(disk.RollOver(temporary()).ok());
  const auto at_rollover = expected;
  // What comes later is not in the layer.
  write(&disk, 11, 3);
  EXPECT_EQ(ReadDisk(disk, 0, kSize), expected);
  ASSERT_TRUE(disk.layers()[0]->Seal().ok());
  ASSERT_TRUE(disk.layers()[0]->Link(scratch_.Path("layer")).value());
  EXPECT_FALSE(disk.layers()[0]->Link(scratch_.Path("layer")).ok());
  Disk other = Disk::Open({.base = base_, .layers = {scratch_.Path("layer")}}).value();
  EXPECT_EQ(ReadDisk(other, 0, kSize), at_rollover);
  EXPECT_NE(ErrorOf({.base = base_, .overlay = scratch_.Path("layer")}), "");
  // One layer in the place of two.
  ASSERT_TRUE(disk.RollOver(temporary()).ok());
  ASSERT_EQ(disk.layers().size(), 2u);
  write(&disk, 40, 4);
  Disk merged = Disk::Over(stack, temporary()).value();
  WriteBlocks(&merged, 10, {expected.begin() + 10 * kBlock, expected.begin() + 13 * kBlock});
  ASSERT_TRUE(merged.RollOver(temporary()).ok());
  disk.Squash(0, 2, merged.layers()[0]);
  EXPECT_EQ(disk.layers().size(), 1u);
  EXPECT_EQ(ReadDisk(disk, 0, kSize), expected);
  // Back to what it was: layers as they were, nothing written.
  ASSERT_TRUE(disk.Rebase(other.stack()).ok());
  EXPECT_EQ(ReadDisk(disk, 0, kSize), at_rollover);
  ASSERT_TRUE(disk.Rebase(stack).ok());
  EXPECT_EQ(ReadDisk(disk, 0, kSize), content_);
  // Not with what does not fit.
  scratch_.Write("small", Pattern(kSize / 2, 9));
  EXPECT_FALSE(
      disk.Rebase(Disk::Open({.base = scratch_.Path("small"), .read_only = true}).value().stack())
          .ok());
  EXPECT_FALSE(
      Disk::Over(stack, OverlayFile::CreateTemporary(scratch_.Path(""), kSize / 2).value()).ok());
  EXPECT_FALSE(Disk::Open({.base = base_, .read_only = true}).value().RollOver(temporary()).ok());
}

}  // namespace
}  // namespace cube::devices::blk
