// The disks of snapshots: what is written, what is found again, and what is refused.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "base/byte_io.h"
#include "devices/blk/testing/scratch.h"
#include "snapshot/snapshot.h"
#include "snapshot/test_snapshot.h"

namespace cube::snapshot {
namespace {

namespace fs = std::filesystem;

using devices::blk::Disk;
using devices::blk::DiskStack;
using devices::blk::OverlayFile;
using devices::blk::testing::Pattern;
using devices::blk::testing::Scratch;

constexpr uint64_t kSize = 1 << 20;
constexpr uint64_t kBlock = OverlayFile::kDefaultBlockSize;
using Bytes = std::vector<uint8_t>;

Bytes ReadDisk(const Disk& disk) {
  std::vector<Disk::Extent> extents;
  disk.Map(0, disk.size(), &extents);
  Bytes bytes(disk.size());
  uint64_t at = 0;
  for (const Disk::Extent& extent : extents) {
    EXPECT_TRUE(ReadExactAt(extent.fd, std::span(bytes).subspan(at, extent.size),
                            extent.file_offset, "disk")
                    .ok());
    at += extent.size;
  }
  return bytes;
}

class DisksTest : public ::testing::Test {
 protected:
  // A disk, and what a guest has written to it.
  struct Written {
    Disk disk;
    Bytes content;

    void Write(uint64_t block, uint32_t seed, uint64_t count = 1) {
      Bytes bytes = Pattern(count * kBlock, seed);
      EXPECT_EQ(pwrite(disk.write_fd(), bytes.data(), bytes.size(),
                       static_cast<off_t>(disk.WriteOffset(block * kBlock))),
                static_cast<ssize_t>(bytes.size()));
      disk.overlay()->SetPresent(block, count);
      memcpy(content.data() + block * kBlock, bytes.data(), bytes.size());
    }
  };

  OverlayFile Temporary() const {
    return OverlayFile::CreateTemporary(scratch_.Path(""), kSize).value();
  }
  Written Boot() const {
    DiskStack stack = Disk::Open({.base = image_, .read_only = true}).value().stack();
    return {Disk::Over(stack, Temporary()).value(), content_};
  }
  Written Clone(const Snapshot& snapshot) const {
    Disk disk = Disk::Over(snapshot.disks()[0], Temporary()).value();
    Bytes content = ReadDisk(disk);
    return {std::move(disk), std::move(content)};
  }
  Snapshot Take(const std::string& name, Disk* disk, const Snapshot* parent) const {
    vmm::GuestMemory memory = TestMemory();
    Status written = WriteTestSnapshot(scratch_.Path(name), memory, disk, image_, parent);
    EXPECT_TRUE(written.ok()) << (written.ok() ? "" : written.error().message());
    EXPECT_EQ(Refused(name), "");
    return Snapshot::Open(scratch_.Path(name)).value();
  }
  std::string Refused(const std::string& name) const {
    auto opened = Snapshot::Open(scratch_.Path(name));
    return opened.ok() ? "" : opened.error().message();
  }
  void Flip(const std::string& path, off_t at) const {
    fs::remove(path + ".verified");
    UniqueFd file = OpenFile(path, O_RDWR).value();
    uint8_t byte;
    ASSERT_EQ(pread(file.get(), &byte, 1, at), 1);
    byte ^= 1;
    ASSERT_EQ(pwrite(file.get(), &byte, 1, at), 1);
  }

  Scratch scratch_;
  Bytes content_ = Pattern(kSize, 1);
  std::string image_ = scratch_.Write("image", content_);
};

TEST_F(DisksTest, ChainsHoldWhatWasWritten) {
  Written booted = Boot();
  booted.Write(3, 2, 4);
  const Bytes at_base = booted.content;
  Snapshot base = Take("base", &booted.disk, nullptr);
  EXPECT_EQ(base.manifest().hardware.disks[0].layer_blocks, 4u);
  // What comes later is neither in the snapshot nor in its clones.
  booted.Write(4, 3);
  Written one = Clone(base), two = Clone(base);
  EXPECT_EQ(one.content, at_base);
  one.Write(5, 4, 3);
  two.Write(5, 5);
  EXPECT_EQ(ReadDisk(one.disk), one.content);
  EXPECT_EQ(ReadDisk(two.disk), two.content);
  EXPECT_EQ(ReadDisk(booted.disk), booted.content);

  const Bytes at_diff = one.content;
  Snapshot diff = Take("diff", &one.disk, &base);
  // Only what was changed since its parent.
  EXPECT_EQ(diff.manifest().hardware.disks[0].layer_blocks, 3u);
  // Taken again, with more: all since the parent, in one layer.
  one.Write(7, 6, 2);
  Snapshot again = Take("again", &one.disk, &base);
  EXPECT_EQ(again.manifest().hardware.disks[0].layer_blocks, 4u);
  EXPECT_EQ(again.disks()[0].layers.size(), 2u);
  EXPECT_EQ(Clone(again).content, one.content);
  EXPECT_EQ(Clone(diff).content, at_diff);
  EXPECT_EQ(Clone(base).content, at_base);
  // A base of the same holds all of it alone.
  Snapshot full = Take("full", &one.disk, nullptr);
  EXPECT_EQ(full.disks()[0].layers.size(), 1u);
  EXPECT_EQ(full.manifest().hardware.disks[0].layer_blocks, 6u);
  fs::remove_all(scratch_.Path("base"));
  EXPECT_EQ(Clone(Snapshot::Open(scratch_.Path("full")).value()).content, one.content);
  // The image is as it was all the time.
  EXPECT_EQ(scratch_.Read("image"), content_);
}

TEST_F(DisksTest, ADiskThatWasNotWrittenCostsNothing) {
  Written booted = Boot();
  Snapshot base = Take("base", &booted.disk, nullptr);
  EXPECT_FALSE(fs::exists(scratch_.Path("base/disk-vda")));
  Written clone = Clone(base);
  Snapshot diff = Take("diff", &clone.disk, &base);
  EXPECT_FALSE(fs::exists(scratch_.Path("diff/disk-vda")));
  EXPECT_EQ(Clone(diff).content, content_);
}

TEST_F(DisksTest, NothingIsCopiedFromAFileThatCanBeLinked) {
  Written booted = Boot();
  booted.Write(3, 2, 4);
  Take("base", &booted.disk, nullptr);
  struct stat layer, held;
  ASSERT_EQ(stat(scratch_.Path("base/disk-vda").c_str(), &layer), 0);
  ASSERT_EQ(fstat(booted.disk.layers()[0]->fd(), &held), 0);
  EXPECT_EQ(layer.st_ino, held.st_ino);
  // And the file takes no more room than its blocks.
  EXPECT_LE(static_cast<uint64_t>(layer.st_blocks) * 512, 6 * kBlock);
}

// The only name of a file goes with the snapshot that has it; the machine still has the file.
TEST_F(DisksTest, AnotherSnapshotAfterOneThatWasDeleted) {
  Written booted = Boot();
  booted.Write(3, 2, 4);
  for (const char* name : {"one", "two", "three"}) {
    Snapshot taken = Take(name, &booted.disk, nullptr);
    EXPECT_EQ(Clone(taken).content, booted.content);
    struct stat layer;
    ASSERT_EQ(stat((scratch_.Path(name) + "/disk-vda").c_str(), &layer), 0);
    EXPECT_EQ(layer.st_mode & 0777, 0644u);
    fs::remove_all(scratch_.Path(name));
  }
}

TEST_F(DisksTest, AnOverlayWithANameIsCopied) {
  Disk disk = Disk::Open({.base = image_, .overlay = scratch_.Path("overlay")}).value();
  Written named = {std::move(disk), content_};
  named.Write(3, 2, 2);
  const Bytes then = named.content;
  Snapshot base = Take("base", &named.disk, nullptr);
  // The user's file goes on being the one that is written.
  named.Write(3, 4);
  EXPECT_EQ(named.disk.overlay()->path(), scratch_.Path("overlay"));
  EXPECT_EQ(ReadDisk(named.disk), named.content);
  EXPECT_EQ(Clone(base).content, then);
  Disk raw = Disk::Open({.base = scratch_.Write("raw", content_)}).value();
  EXPECT_FALSE(raw.Capture(scratch_.Path("")).ok());
}

TEST_F(DisksTest, ARollbackIsToTheSnapshotsDisk) {
  Written booted = Boot();
  booted.Write(3, 2, 4);
  Snapshot base = Take("base", &booted.disk, nullptr);
  Written clone = Clone(base);
  const Bytes at_base = clone.content;
  clone.Write(9, 3);
  Snapshot diff = Take("diff", &clone.disk, &base);
  const Bytes at_diff = clone.content;
  clone.Write(10, 4);
  ASSERT_TRUE(clone.disk.Rebase(base.disks()[0]).ok());
  EXPECT_EQ(ReadDisk(clone.disk), at_base);
  ASSERT_TRUE(clone.disk.Rebase(diff.disks()[0]).ok());
  EXPECT_EQ(ReadDisk(clone.disk), at_diff);
}

TEST_F(DisksTest, RefusesInOneLine) {
  Written booted = Boot();
  booted.Write(3, 2, 4);
  booted.Write(200, 2);
  Snapshot base = Take("base", &booted.disk, nullptr);
  Written clone = Clone(base);
  clone.Write(9, 3);
  Take("diff", &clone.disk, &base);
  const std::string layer = scratch_.Path("base/disk-vda");
  const std::string kept = scratch_.Path("kept");
  fs::copy(layer, kept);
  auto restore = [&] {
    fs::remove(layer + ".verified");
    fs::remove(layer);
    fs::copy(kept, layer);
    EXPECT_EQ(Refused("diff"), "");
  };
  // The data; the bitmap, in which a block more or less is seen at once; the header.
  Flip(layer, 4096 + 4096 + 3 * kBlock + 17);
  EXPECT_NE(Refused("base").find("disk-vda does not match its checksum"), std::string::npos)
      << Refused("base");
  EXPECT_NE(Refused("diff").find("does not match its checksum"), std::string::npos);
  restore();
  Flip(layer, 4096);
  EXPECT_NE(Refused("base").find("blocks, the manifest says 5"), std::string::npos)
      << Refused("base");
  restore();
  Flip(layer, 16);
  EXPECT_NE(Refused("base").find("header is damaged"), std::string::npos) << Refused("base");
  restore();
  ASSERT_EQ(truncate(layer.c_str(), 8192), 0);
  fs::remove(layer + ".verified");
  EXPECT_NE(Refused("base").find("disk-vda has 8192 bytes"), std::string::npos) << Refused("base");
  restore();
  // A layer of another snapshot.
  fs::remove(layer);
  fs::copy(scratch_.Path("diff/disk-vda"), layer);
  EXPECT_NE(Refused("base").find("has 1 blocks, the manifest says 5"), std::string::npos)
      << Refused("base");
  restore();
  fs::remove(layer);
  EXPECT_NE(Refused("diff").find("disk-vda: No such file"), std::string::npos) << Refused("diff");
  restore();
  // The image: touched, of another size, another file, gone.
  const timespec then[2] = {{1, 0}, {1, 0}};
  struct stat info;
  ASSERT_EQ(stat(image_.c_str(), &info), 0);
  ASSERT_EQ(utimensat(AT_FDCWD, image_.c_str(), then, 0), 0);
  EXPECT_NE(Refused("diff").find("was changed, since the snapshot was taken"), std::string::npos)
      << Refused("diff");
  const timespec back[2] = {info.st_atim, info.st_mtim};
  ASSERT_EQ(utimensat(AT_FDCWD, image_.c_str(), back, 0), 0);
  EXPECT_EQ(Refused("diff"), "");
  ASSERT_EQ(truncate(image_.c_str(), kSize * 2), 0);
  EXPECT_NE(Refused("diff").find("image has 2097152 bytes, it had 1048576"), std::string::npos)
      << Refused("diff");
  fs::rename(image_, image_ + ".away");
  EXPECT_NE(Refused("diff").find("No such file"), std::string::npos);
  scratch_.Write("image", content_);
  EXPECT_NE(Refused("diff").find("another file"), std::string::npos) << Refused("diff");
}

}  // namespace
}  // namespace cube::snapshot
