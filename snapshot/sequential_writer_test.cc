#include "snapshot/sequential_writer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <random>

#include "base/unique_fd.h"

namespace cube::snapshot {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kMib = 1 << 20;

class SequentialWriterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = ::testing::TempDir() + "/sequential";
    fd_.Reset(open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    ASSERT_TRUE(fd_.valid());
  }
  void TearDown() override { unlink(path_.c_str()); }

  std::vector<uint8_t> Content() const {
    struct stat info;
    EXPECT_EQ(fstat(fd_.get(), &info), 0);
    std::vector<uint8_t> bytes(static_cast<size_t>(info.st_size));
    EXPECT_EQ(pread(fd_.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    return bytes;
  }
  static std::vector<uint8_t> Noise(size_t size) {
    std::mt19937_64 random(size);
    std::vector<uint8_t> bytes(size);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    return bytes;
  }

  std::string path_;
  UniqueFd fd_;
};

TEST_F(SequentialWriterTest, FileAndHashAreWhatWasAppended) {
  for (uint64_t size :
       {uint64_t{0}, kPage, kMib - kPage, kMib, 3 * kMib + kPage, 40 * kMib + 5 * kPage}) {
    for (uint64_t direct_from : {uint64_t{0}, 5 * kPage, 11 * kMib + kPage, UINT64_MAX}) {
      SCOPED_TRACE(std::to_string(size) + " direct from " + std::to_string(direct_from));
      ASSERT_EQ(ftruncate(fd_.get(), 0), 0);
      std::vector<uint8_t> bytes = Noise(size);
      // Zeros within a buffer, a whole buffer of them, and some on either side of two.
      auto clear = [&](uint64_t start, uint64_t length) {
        for (uint64_t at = start; at < std::min(size, start + length); ++at) bytes[at] = 0;
      };
      clear(kPage, 3 * kPage);
      clear(2 * kMib, kMib);
      clear(7 * kMib - kPage, 4 * kMib);
      auto writer = SequentialWriter::Create(fd_.get(), size, direct_from).value();
      // Pieces of many sizes.
      uint64_t at = 0;
      for (uint64_t piece = 1; at < size; piece = piece * 3 + 1, piece %= 5'000'000) {
        uint64_t length = std::min(piece, size - at);
        ASSERT_TRUE(writer->Append({bytes.data() + at, length}).ok());
        at += length;
      }
      PageHasher hasher;
      hasher.Add(bytes.data(), bytes.size());
      EXPECT_EQ(writer->Finish().value(), hasher.Hex());
      writer.reset();
      EXPECT_TRUE(Content() == bytes);
      EXPECT_EQ(fcntl(fd_.get(), F_GETFL) & O_DIRECT, 0);
    }
  }
}

TEST_F(SequentialWriterTest, SaysThatThereIsNoRoom) {
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, SIG_IGN);
  rlimit small = {10 * kMib, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  auto writer = SequentialWriter::Create(fd_.get(), 16 * kMib, 0);
  EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  ASSERT_FALSE(writer.ok());
  EXPECT_EQ(writer.error().message(), "room for 16777216 bytes of memory: File too large");
}

TEST_F(SequentialWriterTest, AnErrorOfAWriteIsSaid) {
  auto writer = SequentialWriter::Create(fd_.get(), 16 * kMib, 0).value();
  UniqueFd reading(open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(dup2(reading.get(), fd_.get()), fd_.get());
  std::vector<uint8_t> bytes = Noise(16 * kMib);
  Status appended = writer->Append(bytes);
  std::string error =
      appended.ok() ? writer->Finish().error().message() : appended.error().message();
  EXPECT_NE(error.find("Bad file descriptor"), std::string::npos) << error;
}

TEST_F(SequentialWriterTest, TooLittleIsAnError) {
  auto writer = SequentialWriter::Create(fd_.get(), 2 * kPage, 0).value();
  std::vector<uint8_t> bytes = Noise(kPage);
  ASSERT_TRUE(writer->Append(bytes).ok());
  EXPECT_EQ(writer->Finish().error().message(), "4096 bytes of memory were written, not 8192");
}

// One that goes while the disk is still at work leaves nothing that is written to later.
TEST_F(SequentialWriterTest, CanBeGivenUp) {
  auto writer = SequentialWriter::Create(fd_.get(), 64 * kMib, 0).value();
  std::vector<uint8_t> bytes = Noise(30 * kMib);
  ASSERT_TRUE(writer->Append(bytes).ok());
  writer.reset();
  EXPECT_EQ(fcntl(fd_.get(), F_GETFL) & O_DIRECT, 0);
}

}  // namespace
}  // namespace cube::snapshot
