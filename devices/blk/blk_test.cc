#include "devices/blk/blk.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>

#include "devices/blk/testing/scratch.h"
#include "devices/virtio/testing/fake_driver.h"

namespace cube::devices {
namespace {

using blk::Disk;
using blk::DiskFiles;
using blk::IoEngine;
using blk::testing::Pattern;
using blk::testing::Scratch;
using virtio::fake::FakeDriver;

constexpr uint64_t kSize = 1 << 20;
constexpr uint32_t kSector = blk::kSectorSize;
constexpr uint64_t kSectors = kSize / kSector;

// A driver for the device in memory of the test's. Tests run with either engine.
class BlkTest : public ::testing::TestWithParam<IoEngine::Kind> {
 protected:
  void Start(const DiskFiles& files, RateLimits limits = {}, uint64_t features = ~0ull) {
    files_ = files;
    limits_ = limits;
    driver_ = std::make_unique<FakeDriver>(make_);
    driver_->Start(features);
  }
  void StartOverlay(uint32_t block_size = 4096) {
    Start({.base = base_, .overlay = scratch_.Path("overlay"), .new_block_size = block_size});
  }
  Blk& device() { return static_cast<Blk&>(driver_->device()); }

  struct Issued {
    uint64_t status = 0;  // address
    uint64_t data = 0;
    uint32_t size = 0;
  };
  static std::vector<uint8_t> Header(uint32_t type, uint64_t sector) {
    blk::RequestHeader header = {type, 0, sector};
    const auto* bytes = reinterpret_cast<const uint8_t*>(&header);
    return {bytes, bytes + sizeof header};
  }
  // Makes a request available; Done() finds it by its head.
  uint16_t Add(uint32_t type, uint64_t sector, std::span<const uint8_t> out, uint32_t in_size) {
    std::vector<FakeDriver::Buffer> buffers;
    auto header = Header(type, sector);
    buffers.push_back({driver_->Allocate(header), static_cast<uint32_t>(header.size()), false});
    if (!out.empty()) {
      // In two pieces, at an odd place.
      uint64_t address = driver_->Allocate(out);
      auto size = static_cast<uint32_t>(out.size());
      uint32_t cut = size > 700 ? 700 : size / 2;
      buffers.push_back({address, cut, false});
      buffers.push_back({address + cut, size - cut, false});
    }
    Issued issued;
    if (in_size != 0) {
      issued.data = driver_->Allocate(in_size);
      issued.size = in_size;
      uint32_t cut = in_size > 900 ? 900 : in_size / 2;
      buffers.push_back({issued.data, cut, true});
      buffers.push_back({issued.data + cut, in_size - cut, true});
    }
    issued.status = driver_->Allocate(1);
    driver_->Memory(issued.status, 1)[0] = 0xee;
    buffers.push_back({issued.status, 1, true});
    uint16_t head = driver_->Add(0, buffers);
    issued_[head] = issued;
    return head;
  }
  // The status of a request, after a kick, alone.
  int Do(uint32_t type, uint64_t sector, std::span<const uint8_t> out = {}, uint32_t in_size = 0,
         std::vector<uint8_t>* in = nullptr) {
    // Requests are never this many: memory is used again.
    if (driver_->MemoryLeft() < FakeDriver::kMemorySize / 4) driver_->Start();
    uint16_t head = Add(type, sector, out, in_size);
    driver_->Kick(0);
    auto used = driver_->WaitUsed(0);
    if (!used || used->head != head) return -1;
    Issued issued = issued_[head];
    EXPECT_EQ(used->written, in_size + 1);
    if (in != nullptr) {
      auto bytes = driver_->Memory(issued.data, issued.size);
      in->assign(bytes.begin(), bytes.end());
    }
    return driver_->Memory(issued.status, 1)[0];
  }
  int Write(uint64_t sector, std::span<const uint8_t> bytes) {
    return Do(blk::kRequestOut, sector, bytes);
  }
  std::vector<uint8_t> Read(uint64_t sector, uint32_t size) {
    std::vector<uint8_t> bytes;
    EXPECT_EQ(Do(blk::kRequestIn, sector, {}, size, &bytes), blk::kStatusOk);
    return bytes;
  }
  int Segment(uint32_t type, uint64_t sector, uint32_t count, uint32_t flags = 0) {
    blk::DiscardSegment segment = {sector, count, flags};
    return Do(type, 0, {reinterpret_cast<const uint8_t*>(&segment), sizeof segment});
  }
  uint64_t Metric(const std::string& name) {
    uint64_t found = 0;
    driver_->transport().Metrics([&](const char* key, uint64_t value) {
      if (name == key) found = value;
    });
    return found;
  }

  Scratch scratch_;
  std::vector<uint8_t> content_ = Pattern(kSize, 1);
  std::string base_ = scratch_.Write("base", content_);
  DiskFiles files_;
  RateLimits limits_;
  std::function<std::unique_ptr<virtio::Device>(vmm::EventLoop*)> make_ =
      [this](vmm::EventLoop* loop) {
        BlkOptions options = {.id = "disk-0", .limits = limits_, .engine = GetParam()};
        return Blk::Create(Disk::Open(files_).value(), options, loop).value();
      };
  std::unique_ptr<FakeDriver> driver_;
  std::map<uint16_t, Issued> issued_;
};

INSTANTIATE_TEST_SUITE_P(Engines, BlkTest,
                         ::testing::Values(IoEngine::Kind::kUring, IoEngine::Kind::kThread),
                         [](const auto& info) {
                           return info.param == IoEngine::Kind::kUring ? "Uring" : "Thread";
                         });

TEST_P(BlkTest, SaysWhatItIs) {
  StartOverlay();
  blk::Config config;
  auto bytes = driver_->ReadConfig(0, sizeof config);
  memcpy(&config, bytes.data(), sizeof config);
  EXPECT_EQ(config.capacity, kSectors);
  EXPECT_EQ(config.seg_max, 254u);
  EXPECT_EQ(config.blk_size, 512u);
  EXPECT_EQ(config.max_discard_seg, 1u);
  EXPECT_EQ(config.discard_sector_alignment, 8u);
  std::vector<uint8_t> id;
  EXPECT_EQ(Do(blk::kRequestGetId, 0, {}, 20, &id), blk::kStatusOk);
  EXPECT_STREQ(reinterpret_cast<const char*>(id.data()), "disk-0");
}

TEST_P(BlkTest, WritesARawFileAndReadsItBack) {
  Start({.base = base_});
  EXPECT_EQ(Read(3, 5 * kSector),
            std::vector(content_.begin() + 3 * kSector, content_.begin() + 8 * kSector));
  auto bytes = Pattern(10 * kSector, 2);
  EXPECT_EQ(Write(kSectors - 10, bytes), blk::kStatusOk);
  EXPECT_EQ(Do(blk::kRequestFlush, 0), blk::kStatusOk);
  EXPECT_EQ(Read(kSectors - 10, 10 * kSector), bytes);
  memcpy(content_.data() + kSize - bytes.size(), bytes.data(), bytes.size());
  EXPECT_EQ(scratch_.Read("base"), content_);
  EXPECT_GT(driver_->TakeInterrupts(), 0u);
}

TEST_P(BlkTest, AReadOnlyDiskIsNotWritten) {
  Start({.base = base_, .read_only = true});
  EXPECT_NE(driver_->OfferedFeatures() & blk::kFeatureReadOnly, 0u);
  EXPECT_EQ(driver_->OfferedFeatures() & (blk::kFeatureDiscard | blk::kFeatureWriteZeroes), 0u);
  EXPECT_EQ(Write(0, Pattern(kSector, 2)), blk::kStatusIoError);
  EXPECT_EQ(Segment(blk::kRequestDiscard, 0, 8), blk::kStatusIoError);
  EXPECT_EQ(Segment(blk::kRequestWriteZeroes, 0, 8), blk::kStatusIoError);
  EXPECT_EQ(Do(blk::kRequestFlush, 0), blk::kStatusOk);
  EXPECT_EQ(scratch_.Read("base"), content_);
}

TEST_P(BlkTest, RequestsThatAreWrongAreRefused) {
  StartOverlay();
  auto sector = Pattern(kSector, 2);
  std::vector<uint8_t> in;
  EXPECT_EQ(Write(kSectors, sector), blk::kStatusIoError);
  EXPECT_EQ(Write(kSectors - 1, Pattern(2 * kSector, 2)), blk::kStatusIoError);
  EXPECT_EQ(Write(~0ull, sector), blk::kStatusIoError);
  EXPECT_EQ(Write(~0ull / kSector, sector), blk::kStatusIoError);
  EXPECT_EQ(Write(0, Pattern(kSector + 1, 2)), blk::kStatusIoError);
  EXPECT_EQ(Write(0, Pattern(kSector - 1, 2)), blk::kStatusIoError);
  EXPECT_EQ(Write(0, {}), blk::kStatusIoError);
  EXPECT_EQ(Do(blk::kRequestIn, 0, {}, 0), blk::kStatusIoError);
  EXPECT_EQ(Do(blk::kRequestIn, 0, {}, 513), blk::kStatusIoError);
  EXPECT_EQ(Do(blk::kRequestIn, 1ull << 55, {}, kSector), blk::kStatusIoError);
  EXPECT_EQ(Do(blk::kRequestGetId, 0, {}, 5), blk::kStatusOk);
  EXPECT_EQ(Do(77, 0), blk::kStatusUnsupported);
  EXPECT_EQ(Segment(blk::kRequestDiscard, kSectors, 1), blk::kStatusIoError);
  EXPECT_EQ(Segment(blk::kRequestDiscard, ~0ull, 1), blk::kStatusIoError);
  EXPECT_EQ(Segment(blk::kRequestDiscard, 0, ~0u), blk::kStatusIoError);
  EXPECT_EQ(Segment(blk::kRequestDiscard, 0, 1, 1), blk::kStatusUnsupported);
  EXPECT_EQ(Segment(blk::kRequestWriteZeroes, 0, 1, 2), blk::kStatusUnsupported);
  EXPECT_EQ(Segment(blk::kRequestWriteZeroes, 0, 0), blk::kStatusOk);
  EXPECT_EQ(Do(blk::kRequestDiscard, 0, Pattern(15, 1)), blk::kStatusIoError);
  EXPECT_EQ(Do(blk::kRequestDiscard, 0, Pattern(32, 1)), blk::kStatusIoError);
  EXPECT_GT(Metric("bad_requests"), 15u);
  EXPECT_EQ(Read(0, kSize / 4), std::vector(content_.begin(), content_.begin() + kSize / 4));
}

TEST_P(BlkTest, ChainsThatAreTooShortAreGivenBack) {
  StartOverlay();
  auto header = Header(blk::kRequestIn, 0);
  std::vector<uint64_t> in;
  // No header, half a header, no status.
  driver_->AddRequest(0, {}, {1}, &in);
  driver_->AddRequest(0, std::span(header).first(15), {512, 1}, nullptr);
  driver_->AddRequest(0, header, {}, nullptr);
  driver_->Kick(0);
  EXPECT_EQ(driver_->WaitUsed(0)->written, 1u);
  EXPECT_EQ(driver_->WaitUsed(0)->written, 513u);
  EXPECT_EQ(driver_->WaitUsed(0)->written, 0u);
  EXPECT_EQ(driver_->Memory(in[0], 1)[0], blk::kStatusIoError);
  EXPECT_EQ(Read(0, kSector), std::vector(content_.begin(), content_.begin() + kSector));
}

// Anything a driver may do, against a copy of the disk in memory, with blocks of several sizes.
TEST_P(BlkTest, TheOverlayIsTheDiskWhateverIsWritten) {
  for (uint32_t block_size : {4096u, 65536u}) {
    SCOPED_TRACE(block_size);
    std::filesystem::remove(scratch_.Path("overlay"));
    StartOverlay(block_size);
    auto model = content_;
    std::mt19937 random(block_size);
    for (uint32_t i = 0; i < 600; ++i) {
      uint32_t count = 1 + random() % (i % 7 == 0 ? 200 : 20);
      uint64_t sector = random() % (kSectors - count + 1);
      auto* at = model.data() + sector * kSector;
      switch (random() % 6) {
        case 0:
        case 1: {
          auto bytes = Pattern(count * kSector, i + 2);
          ASSERT_EQ(Write(sector, bytes), blk::kStatusOk);
          memcpy(at, bytes.data(), bytes.size());
          break;
        }
        case 2:
          ASSERT_EQ(Segment(blk::kRequestWriteZeroes, sector, count, random() % 2), blk::kStatusOk);
          memset(at, 0, count * kSector);
          break;
        case 3: {
          // What is discarded in whole blocks reads as zeros here.
          ASSERT_EQ(Segment(blk::kRequestDiscard, sector, count), blk::kStatusOk);
          uint64_t start = (sector * kSector + block_size - 1) / block_size * block_size;
          uint64_t end = (sector + count) * kSector / block_size * block_size;
          if (start < end) memset(model.data() + start, 0, end - start);
          break;
        }
        case 4:
          ASSERT_EQ(Do(blk::kRequestFlush, 0), blk::kStatusOk);
          break;
        default:
          ASSERT_EQ(Read(sector, count * kSector), std::vector(at, at + count * kSector));
          break;
      }
    }
    driver_.reset();  // commits
    Disk disk = Disk::Open(files_).value();
    ASSERT_TRUE(FlattenDisk(disk, scratch_.Path("flat")).ok());
    EXPECT_TRUE(scratch_.Read("flat") == model);
    EXPECT_TRUE(scratch_.Read("base") == content_);
  }
}

// Every sector of two blocks at once: each write copies up the rest of its block.
TEST_P(BlkTest, WritesToOneBlockAtOnceLoseNothing) {
  StartOverlay();
  auto bytes = Pattern(16 * kSector, 2);
  for (uint64_t i = 0; i < 16; ++i) {
    Add(blk::kRequestOut, i, std::span(bytes).subspan(i * kSector, kSector), 0);
  }
  driver_->Kick(0);
  for (int i = 0; i < 16; ++i) ASSERT_TRUE(driver_->WaitUsed(0));
  EXPECT_EQ(Read(0, 16 * kSector), bytes);
  EXPECT_EQ(Metric("copied_blocks"), 2u);
}

TEST_P(BlkTest, ABatchIsOneInterrupt) {
  Start({.base = base_}, {}, ~virtio::kFeatureEventIdx);
  driver_->TakeInterrupts();
  Read(0, kSector);  // the engine is there, and the page in the cache
  driver_->TakeInterrupts();
  for (uint64_t i = 0; i < 20; ++i) Add(blk::kRequestIn, 0, {}, kSector);
  driver_->Kick(0);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(driver_->WaitUsed(0));
  EXPECT_LE(driver_->TakeInterrupts(), 20u);
  if (GetParam() == IoEngine::Kind::kUring) {
    EXPECT_LE(Metric("interrupts"), 3u);
  }
}

// What a flush has answered is in the file, whatever becomes of the process.
TEST_P(BlkTest, ADriverThatAlwaysHasMoreLeavesOthersTheirTurn) {
  Start({.base = base_});
  for (uint32_t i = 0; i <= Blk::kMaxBatch; ++i) Add(blk::kRequestGetId, 0, {}, 0);
  {
    std::lock_guard lock(device().mutex());
    device().ProcessQueue(0);
  }
  for (uint32_t i = 0; i < Blk::kMaxBatch; ++i) ASSERT_TRUE(driver_->TakeUsed(0)) << i;
  EXPECT_FALSE(driver_->TakeUsed(0));
  EXPECT_TRUE(driver_->WaitUsed(0));  // without another kick
}

TEST_P(BlkTest, AFlushCommitsTheOverlay) {
  StartOverlay();
  auto bytes = Pattern(4096, 2);
  EXPECT_EQ(Write(8, bytes), blk::kStatusOk);
  auto present = [&] {
    // As another process would find it now: a copy is not locked.
    std::filesystem::copy_file(scratch_.Path("overlay"), scratch_.Path("copy"),
                               std::filesystem::copy_options::overwrite_existing);
    auto file =
        blk::OverlayFile::Open(scratch_.Path("copy"), kSize, blk::OverlayFile::Access::kReadOnly);
    return file->present().Count();
  };
  EXPECT_EQ(present(), 0u);
  EXPECT_EQ(Do(blk::kRequestFlush, 0), blk::kStatusOk);
  EXPECT_EQ(present(), 1u);
  // Flushes and writes mixed in one batch.
  for (uint64_t i = 0; i < 40; ++i) {
    Add(blk::kRequestOut, 16 + 8 * i, bytes, 0);
    if (i % 4 == 0) Add(blk::kRequestFlush, 0, {}, 0);
  }
  driver_->Kick(0);
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(driver_->WaitUsed(0));
  EXPECT_EQ(Do(blk::kRequestFlush, 0), blk::kStatusOk);
  EXPECT_EQ(present(), 41u);
}

TEST_P(BlkTest, WithoutFlushEachWriteIsCommitted) {
  Start({.base = base_, .overlay = scratch_.Path("overlay")}, {}, ~blk::kFeatureFlush);
  EXPECT_EQ(Write(8, Pattern(4096, 2)), blk::kStatusOk);
  EXPECT_FALSE(device().disk().overlay()->uncommitted());
  EXPECT_EQ(Segment(blk::kRequestWriteZeroes, 80, 8), blk::kStatusOk);
  EXPECT_FALSE(device().disk().overlay()->uncommitted());
}

TEST_P(BlkTest, AResetAbandonsWhatIsUnderWay) {
  StartOverlay();
  for (int round = 0; round < 20; ++round) {
    for (uint64_t i = 0; i < 10; ++i) {
      Add(blk::kRequestOut, i, Pattern(kSector, 2), 0);
      Add(blk::kRequestIn, i * 3, {}, kSector);
    }
    Add(blk::kRequestFlush, 0, {}, 0);
    driver_->Kick(0);
    ASSERT_TRUE(driver_->loop().RunOnce(1000).ok());
    driver_->Start();
  }
  EXPECT_EQ(Write(100, Pattern(kSector, 3)), blk::kStatusOk);
  EXPECT_EQ(Read(100, kSector), Pattern(kSector, 3));
}

TEST_P(BlkTest, IsSavedAndRestoredMidTraffic) {
  StartOverlay();
  auto bytes = Pattern(16 * kSector, 2);
  for (int round = 0; round < 5; ++round) {
    for (uint64_t i = 0; i < 16; ++i) {
      Add(blk::kRequestOut, 100 + i, std::span(bytes).subspan(i * kSector, kSector), 0);
      Add(blk::kRequestIn, i, {}, kSector);
    }
    driver_->Kick(0);
    if (round % 2 == 0) {
      ASSERT_TRUE(driver_->loop().RunOnce(1000).ok());
    }
    ASSERT_TRUE(driver_->SaveAndRestore(make_).ok());
    for (int i = 0; i < 32; ++i) ASSERT_TRUE(driver_->WaitUsed(0)) << round << " " << i;
  }
  EXPECT_EQ(Read(100, 16 * kSector), bytes);
}

TEST_P(BlkTest, ARestoreNeedsADiskOfTheSameKind) {
  Start({.base = base_});
  auto smaller = [&](vmm::EventLoop* loop) -> std::unique_ptr<virtio::Device> {
    DiskFiles files = {.base = scratch_.Write("small", Pattern(kSector, 1))};
    return Blk::Create(Disk::Open(files).value(), {}, loop).value();
  };
  Status restored = driver_->SaveAndRestore(smaller);
  ASSERT_FALSE(restored.ok());
  EXPECT_NE(restored.error().message().find("512"), std::string::npos);
}

TEST_P(BlkTest, LimitsDelayAndLoseNothing) {
  Start({.base = base_}, {.operations_per_second = 500, .operations_burst = 4});
  for (uint64_t i = 0; i < 20; ++i) Add(blk::kRequestIn, i, {}, kSector);
  driver_->Kick(0);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(driver_->WaitUsed(0));
  EXPECT_GT(Metric("rate_limited"), 0u);
  EXPECT_EQ(Metric("reads"), 20u);
}

TEST_P(BlkTest, AQuiescedDeviceStaysSo) {
  Start({.base = base_}, {.operations_per_second = 1000, .operations_burst = 1});
  for (uint64_t i = 0; i < 4; ++i) Add(blk::kRequestIn, i, {}, kSector);
  driver_->Kick(0);
  ASSERT_TRUE(driver_->WaitUsed(0));
  driver_->transport().Quiesce();
  while (driver_->TakeUsed(0)) {
  }
  uint64_t reads = Metric("reads");
  ASSERT_TRUE(driver_->loop().RunOnce(20).ok());  // the limiter's timer
  EXPECT_EQ(Metric("reads"), reads);
  driver_->transport().Resume();
  EXPECT_TRUE(driver_->PumpUntil([&] { return Metric("reads") == 4; }));
}

// The file is cut while the guest reads it.
TEST_P(BlkTest, AFileThatBecomesShorterIsAnErrorOfTheGuests) {
  Start({.base = base_, .overlay = scratch_.Path("overlay")});
  std::filesystem::resize_file(base_, kSize / 2);
  EXPECT_EQ(Do(blk::kRequestIn, kSectors - 8, {}, 4096), blk::kStatusIoError);
  EXPECT_EQ(Write(kSectors - 8, Pattern(kSector, 1)), blk::kStatusIoError);  // cannot copy up
  EXPECT_EQ(Write(kSectors - 8, Pattern(4096, 1)), blk::kStatusOk);
  EXPECT_EQ(Read(kSectors - 8, 4096), Pattern(4096, 1));
}

TEST_P(BlkTest, SnapshotsFreezeAndRollBackUnderTheDevice) {
  StartOverlay();
  auto one = Pattern(4096, 2), two = Pattern(4096, 3);
  EXPECT_EQ(Write(8, one), blk::kStatusOk);
  driver_->transport().Quiesce();
  ASSERT_TRUE(device().disk().Freeze(scratch_.Path("next")).ok());
  driver_->transport().Resume();
  EXPECT_EQ(Read(8, 4096), one);
  EXPECT_EQ(Write(9, Pattern(kSector, 4)), blk::kStatusOk);  // copies up from the layer
  EXPECT_EQ(Write(16, two), blk::kStatusOk);
  EXPECT_EQ(device().disk().overlay()->present().Count(), 2u);
  driver_->transport().Quiesce();
  ASSERT_TRUE(device().disk().Reset().ok());
  driver_->transport().Resume();
  EXPECT_EQ(Read(8, 4096), one);
  EXPECT_EQ(Read(16, 4096), std::vector(content_.begin() + 8192, content_.begin() + 12288));
}

TEST_P(BlkTest, AnIdleDeviceHasNoEngine) {
  StartOverlay();
  EXPECT_EQ(device().engine_name(), "");
  Read(0, kSector);
  EXPECT_EQ(device().engine_name(), GetParam() == IoEngine::Kind::kUring ? "io_uring" : "thread");
}

TEST(Blk, ALongIdIsRefused) {
  Scratch scratch;
  Disk disk = Disk::Open({.base = scratch.Write("disk", Pattern(512, 1))}).value();
  vmm::EventLoop loop = vmm::EventLoop::Create().value();
  auto device = Blk::Create(std::move(disk), {.id = std::string(21, 'x')}, &loop);
  ASSERT_FALSE(device.ok());
  EXPECT_NE(device.error().message().find("21 bytes"), std::string::npos);
}

}  // namespace
}  // namespace cube::devices
