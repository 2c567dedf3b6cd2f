#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <random>

#include "base/unique_fd.h"
#include "snapshot/manifest.h"
#include "snapshot/memory_file.h"
#include "snapshot/state_file.h"

namespace cube::snapshot {
namespace {

constexpr uint64_t kPage = 4096;

Hardware AnyHardware() {
  Hardware hardware;
  DiskHardware root;
  root.name = "vda";
  root.options.id = "root";
  root.options.limits = {.bytes_per_second = 1000, .operations_per_second = 10};
  root.files = {{"/images/debian.ext4", 1 << 30, 17, 1234567890123456789}};
  root.layer_blocks = 3;
  root.layer_xxh3 = std::string(32, 'c');
  DiskHardware data;
  data.name = "vdb";
  data.options.engine = devices::blk::IoEngine::Kind::kThread;
  data.read_only = true;
  data.files = {{"/images/data", 512, 18, 1}, {"/images/layer", 8704, 19, 2}};
  hardware.disks = {root, data};
  hardware.balloon_pages = 256;
  hardware.shares = {{.directory = "/srv/work", .tag = "work", .host_gid = 7}};
  hardware.nics = {{.mac = {2, 1, 2, 3, 4, 0xff},
                    .mtu = 1400,
                    .offloads = false,
                    .receive = {.bytes_per_second = 5}}};
  hardware.vsock_cid = 3;
  return hardware;
}

Manifest AnyManifest() {
  Manifest manifest;
  manifest.id = NewSnapshotId().value();
  manifest.created = "2026-01-02T03:04:05Z";
  manifest.memory_bytes = 128 << 20;
  manifest.cpus = 2;
  manifest.ring0 = "engine";
  manifest.kernel = "quiet \"quoted\"";
  manifest.hardware = AnyHardware();
  manifest.devices = {"vda", "vdb", "balloon", "rng", "fs-work", "eth0", "vsock"};
  manifest.state_bytes = 17;
  manifest.state_xxh3 = std::string(16, 'a');
  manifest.memory_xxh3 = std::string(32, 'b');
  return manifest;
}

TEST(Manifest, ReadsBackWhatItWrites) {
  Manifest manifest = AnyManifest();
  manifest.parent = NewSnapshotId().value();
  manifest.parent_path = "../base";
  Manifest read = Manifest::Parse(manifest.ToJson()).value();
  EXPECT_EQ(read.ToJson(), manifest.ToJson());
  EXPECT_EQ(read.devices, manifest.devices);
  EXPECT_NE(NewSnapshotId().value(), NewSnapshotId().value());
}

std::string Reason(std::string text) {
  auto parsed = Manifest::Parse(text);
  return parsed.ok() ? "" : parsed.error().message();
}

// The manifest changed as somebody would who knows of the checksum.
std::string With(const std::string& from, const std::string& to) {
  std::string text = AnyManifest().ToJson();
  size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  text.replace(at, from.size(), to);
  text.resize(text.rfind(",\"xxh3\":"));
  return text + Format(",\"xxh3\":\"%016llx\"}\n",
                       static_cast<unsigned long long>(XXH3_64bits(text.data(), text.size())));
}

TEST(Manifest, KeepsTheHardware) {
  Hardware read = Manifest::Parse(AnyManifest().ToJson()).value().hardware;
  ASSERT_EQ(read.disks.size(), 2u);
  EXPECT_EQ(read.disks[0].options.id, "root");
  EXPECT_EQ(read.disks[0].options.limits.operations_per_second, 10u);
  EXPECT_EQ(read.disks[0].files[0].modified, 1234567890123456789u);
  EXPECT_EQ(read.disks[0].layer_name(), "disk-vda");
  EXPECT_TRUE(read.disks[1].read_only);
  EXPECT_EQ(read.disks[1].options.engine, devices::blk::IoEngine::Kind::kThread);
  EXPECT_EQ(read.disks[1].files[1].path, "/images/layer");
  EXPECT_EQ(read.shares[0].directory, "/srv/work");
  EXPECT_EQ(read.shares[0].host_uid, std::nullopt);
  EXPECT_EQ(read.shares[0].host_gid, 7u);
  EXPECT_EQ(read.shares[0].guest_uid, 1000u);
  EXPECT_EQ(read.nics[0].mac[5], 0xff);
  EXPECT_EQ(read.nics[0].mtu, 1400u);
  EXPECT_FALSE(read.nics[0].offloads);
  EXPECT_EQ(read.nics[0].receive.bytes_per_second, 5u);
  EXPECT_EQ(read.vsock_cid, 3u);
}

TEST(Manifest, EveryFlippedBitIsFound) {
  std::string text = AnyManifest().ToJson();
  for (size_t bit = 0; bit + 8 < 8 * text.size(); ++bit) {  // the newline at the end does not count
    text[bit / 8] = static_cast<char>(text[bit / 8] ^ 1 << bit % 8);
    EXPECT_FALSE(Manifest::Parse(text).ok()) << bit;
    text[bit / 8] = static_cast<char>(text[bit / 8] ^ 1 << bit % 8);
  }
}

TEST(Manifest, SaysWhatIsWrong) {
  EXPECT_NE(Reason("").find("not JSON"), std::string::npos);
  EXPECT_EQ(Reason("[]"), "not a JSON object");
  EXPECT_EQ(Reason("{}"), "\"version\" is missing");
  EXPECT_EQ(Reason(With("\"version\":1", "\"version\":2")),
            "snapshot format version 2, this is version 1");
  EXPECT_EQ(Reason(With("\"cpus\":2", "\"cpus\":-1")), "\"cpus\" is not a whole number");
  EXPECT_EQ(Reason(With("\"cpus\":2", "\"cpus\":0")), "0 vCPUs");
  EXPECT_EQ(Reason(With("\"vda\",\"vdb\"", "\"vda\",\"vdc\"")),
            "\"devices\" and \"hardware\" do not name the same");
  EXPECT_EQ(Reason(With("\"name\":\"vda\"", "\"name\":\"../\"")), "a disk is not named vda to vdz");
  EXPECT_EQ(Reason(With("\"name\":\"vdb\"", "\"name\":\"vda\"")), "disk 1 is named vda");
  EXPECT_EQ(Reason(With("\"/images/data\"", "\"images\"")),
            "vdb has a file without an absolute path");
  EXPECT_EQ(Reason(With("\"engine\":\"auto\"", "\"engine\":\"x\"")), "vda's \"engine\" is unknown");
  EXPECT_EQ(Reason(With("\"layer_blocks\":3", "\"layer_blocks\":0")),
            "vda has a layer of 0 blocks and the checksum \"" + std::string(32, 'c') + "\"");
  EXPECT_EQ(Reason(With("\"tag\":\"work\"", "\"tag\":\"..\"")),
            "tag \"..\": 1 to 36 of A-Z, a-z, 0-9, '.', '_' and '-' are valid");
  EXPECT_EQ(Reason(With("\"mtu\":1400", "\"mtu\":70000")), "an MTU of 70000");
  EXPECT_EQ(Reason(With("02:01:02:03:04:ff", "02:01:02:03:04:fff")),
            "\"mac\" is not XX:XX:XX:XX:XX:XX");
  EXPECT_EQ(Reason(With("\"parent\":\"\"", "\"parent\":\"zz\"")),
            "\"parent\" is neither empty nor 32 hexadecimal digits");
  EXPECT_EQ(Reason(With("\"parent_path\":\"\"", "\"parent_path\":\"x\"")),
            "\"parent\" and \"parent_path\" go together");
  EXPECT_EQ(Reason(With("aaaa", "aaa")), "a checksum is not hexadecimal of its length");
  EXPECT_NE(Reason(std::string(100000, '[')).find("not JSON"), std::string::npos);
}

TEST(StateFile, EveryFlippedBitIsFound) {
  std::vector<Section> sections = {{SectionTag::kVm, 0, {1, 2, 3}},
                                   {SectionTag::kVcpu, 0, std::vector<uint8_t>(100, 7)},
                                   {SectionTag::kVcpu, 1, {}}};
  std::vector<uint8_t> file = EncodeState(sections);
  auto read = DecodeState(file).value();
  ASSERT_EQ(read.size(), 3u);
  EXPECT_EQ(FindSection(read, SectionTag::kVcpu, 0).value()->bytes, sections[1].bytes);
  EXPECT_EQ(FindSection(read, SectionTag::kDevice, 4).error().message(),
            "state has no section device 4");
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_FALSE(DecodeState({file.data(), size}).ok()) << size;
  }
  size_t unnoticed = 0;
  for (size_t bit = 0; bit < 8 * file.size(); ++bit) {
    file[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    if (DecodeState(file).ok()) ++unnoticed;
    file[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
  }
  // Of tags and numbers that turn into others; whoever asks for a section does not find it.
  EXPECT_LE(unnoticed, 3u * 34);
}

class MemoryFileTest : public ::testing::Test {
 protected:
  UniqueFd file_{memfd_create("memory", MFD_CLOEXEC)};
};

TEST_F(MemoryFileTest, BaseHasHolesWhereMemoryIsZero) {
  std::vector<uint8_t> low(64 * kPage), high(16 * kPage);
  std::mt19937 random(1);
  for (size_t page : {0, 1, 2, 30, 63}) {
    for (size_t i = 0; i < kPage; i += 64) low[page * kPage + i] = static_cast<uint8_t>(random());
  }
  low[40 * kPage + kPage - 1] = 1;
  high[5 * kPage + 17] = 3;
  const std::span<const uint8_t> image[] = {low, high};
  const PageRun all[] = {{0, 80 * kPage}};
  MemoryFileInfo info = WriteBaseMemory(file_.get(), image, all).value();
  EXPECT_EQ(info.file_bytes, 80 * kPage);
  EXPECT_EQ(info.data_bytes, 7 * kPage);
  struct stat stat_buffer;
  fstat(file_.get(), &stat_buffer);
  EXPECT_LE(static_cast<uint64_t>(stat_buffer.st_blocks) * 512, 7 * kPage);
  std::vector<uint8_t> read(80 * kPage);
  ASSERT_EQ(pread(file_.get(), read.data(), read.size(), 0), static_cast<ssize_t>(read.size()));
  EXPECT_TRUE(std::equal(low.begin(), low.end(), read.begin()));
  EXPECT_TRUE(std::equal(high.begin(), high.end(), read.begin() + 64 * kPage));
  EXPECT_EQ(HashBaseMemory(file_.get()).value(), info.xxh3);
  // A changed bit, and the same data elsewhere, are other images.
  uint8_t byte = static_cast<uint8_t>(read[30 * kPage] ^ 1);
  ASSERT_EQ(pwrite(file_.get(), &byte, 1, 30 * kPage), 1);
  EXPECT_NE(HashBaseMemory(file_.get()).value(), info.xxh3);
}

TEST_F(MemoryFileTest, DiffReadsBack) {
  std::vector<uint8_t> pages(6 * kPage, 9);
  std::vector<PageRun> runs = {{2 * kPage, 2 * kPage}, {10 * kPage, 4 * kPage}};
  std::vector<std::span<const uint8_t>> pieces = {{pages.data(), 2 * kPage},
                                                  {pages.data() + 2 * kPage, 4 * kPage}};
  MemoryFileInfo info = WriteDiffMemory(file_.get(), runs, pieces).value();
  EXPECT_EQ(info.data_bytes, 6 * kPage);
  auto read = ReadDiffIndex(file_.get(), 14 * kPage).value();
  ASSERT_EQ(read.size(), 2u);
  EXPECT_EQ(read[1].start, 10 * kPage);
  EXPECT_EQ(read[1].file_offset, 3 * kPage);
  EXPECT_EQ(HashDiffMemory(file_.get()).value(), info.xxh3);
  EXPECT_NE(ReadDiffIndex(file_.get(), 13 * kPage).error().message().find("is not valid"),
            std::string::npos);
  ASSERT_EQ(ftruncate(file_.get(), 6 * kPage), 0);
  EXPECT_NE(ReadDiffIndex(file_.get(), 14 * kPage).error().message().find("is not valid"),
            std::string::npos);
  ASSERT_EQ(ftruncate(file_.get(), 50), 0);
  EXPECT_EQ(ReadDiffIndex(file_.get(), 14 * kPage).error().message(),
            "memory's index of 48 bytes is cut off");
}

// The short ones lie first, whatever their order in the image; past the page cache or not.
TEST_F(MemoryFileTest, ShortAndLongRunsOfADiff) {
  constexpr uint64_t kMib = 1 << 20;
  for (uint64_t longest : {2 * kMib, 9 * kMib}) {
    ASSERT_EQ(ftruncate(file_.get(), 0), 0);
    std::vector<uint8_t> image(16 * kMib);
    for (size_t i = 0; i < image.size(); ++i)
      image[i] = static_cast<uint8_t>(i / kPage * 7 + i % 253);
    std::vector<PageRun> runs = {
        {0, kPage}, {kMib, longest}, {12 * kMib, kMib - kPage}, {14 * kMib, kMib}};
    std::vector<std::span<const uint8_t>> pieces;
    for (const PageRun& run : runs) pieces.push_back({image.data() + run.start, run.size});
    MemoryFileInfo info = WriteDiffMemory(file_.get(), runs, pieces).value();
    auto read = ReadDiffIndex(file_.get(), image.size()).value();
    ASSERT_EQ(read.size(), runs.size());
    EXPECT_EQ(read[2].file_offset, 2 * kPage);
    EXPECT_EQ(read[1].file_offset, kMib + kPage);
    for (const PlacedRun& run : read) {
      std::vector<uint8_t> bytes(run.size);
      ASSERT_EQ(pread(file_.get(), bytes.data(), run.size, static_cast<off_t>(run.file_offset)),
                static_cast<ssize_t>(run.size));
      EXPECT_EQ(memcmp(bytes.data(), image.data() + run.start, run.size), 0);
    }
    EXPECT_EQ(HashDiffMemory(file_.get()).value(), info.xxh3);
  }
}

TEST_F(MemoryFileTest, EmptyDiff) {
  MemoryFileInfo info = WriteDiffMemory(file_.get(), {}, {}).value();
  EXPECT_TRUE(ReadDiffIndex(file_.get(), kPage).value().empty());
  EXPECT_EQ(HashDiffMemory(file_.get()).value(), info.xxh3);
}

TEST_F(MemoryFileTest, AnyFlippedBitOfTheIndexIsFound) {
  std::vector<uint8_t> page(kPage, 9);
  WriteDiffMemory(file_.get(), {{kPage, kPage}}, {page}).value();
  for (off_t bit = 0; bit < 8 * 56; ++bit) {
    if (bit >= 8 * 24 && bit < 8 * 32) continue;  // reserved
    uint8_t byte;
    ASSERT_EQ(pread(file_.get(), &byte, 1, bit / 8), 1);
    byte ^= static_cast<uint8_t>(1 << bit % 8);
    ASSERT_EQ(pwrite(file_.get(), &byte, 1, bit / 8), 1);
    EXPECT_FALSE(ReadDiffIndex(file_.get(), 16 * kPage).ok()) << bit;
    byte ^= static_cast<uint8_t>(1 << bit % 8);
    ASSERT_EQ(pwrite(file_.get(), &byte, 1, bit / 8), 1);
  }
}

TEST(LimitRuns, ClosesTheSmallestGaps) {
  std::vector<PageRun> runs = {{0, 1}, {3, 1}, {5, 1}, {100, 1}, {103, 1}};
  auto limited = LimitRuns(runs, 3);
  ASSERT_EQ(limited.size(), 2u);  // two gaps have the same size
  EXPECT_EQ(limited[0].size, 6u);
  EXPECT_EQ(limited[1].start, 100u);
  EXPECT_EQ(LimitRuns(runs, 5).size(), 5u);
}

}  // namespace
}  // namespace cube::snapshot
