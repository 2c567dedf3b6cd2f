#include "devices/blk/prompt_reader.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/uio.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "devices/blk/testing/scratch.h"

namespace cube::devices::blk {
namespace {

TEST(PromptReaderTest, ReadsOrLeavesTheOperationAlone) {
  testing::Scratch scratch;
  UniqueFd file(open(scratch.Write("file", std::vector<uint8_t>(65536, 'x')).c_str(), O_RDWR));
  ASSERT_TRUE(file.valid());
  std::string bytes(4096, '\0');
  iovec buffer = {bytes.data(), bytes.size()};
  IoOperation operation = {
      IoOperation::Kind::kRead, file.get(), 0, 8192, bytes.size(), {&buffer, 1}, nullptr, 77};
  PromptReader reader;
  bool done = reader.Try(&operation);
  EXPECT_EQ(operation.result, done ? 4096 : 77);
  EXPECT_EQ(bytes, std::string(4096, done ? 'x' : '\0'));
}

TEST(PromptReaderTest, EndsErrorsWritesAndLargeReadsAreTheRings) {
  testing::Scratch scratch;
  UniqueFd file(open(scratch.Write("file", std::vector<uint8_t>(4096)).c_str(), O_RDONLY));
  std::string bytes(4096, '\0');
  iovec buffer = {bytes.data(), bytes.size()};
  const IoOperation read = {
      IoOperation::Kind::kRead, file.get(), 0, 0, bytes.size(), {&buffer, 1}, nullptr, 77};
  auto refused = [](IoOperation operation) {
    return !PromptReader().Try(&operation) && operation.result == 77;
  };
  IoOperation other = read;
  other.offset = 4096;
  EXPECT_TRUE(refused(other)) << "behind the end";
  other = read;
  other.fd = -1;
  EXPECT_TRUE(refused(other)) << "no file";
  other = read;
  other.kind = IoOperation::Kind::kWrite;
  EXPECT_TRUE(refused(other)) << "a write";
  other = read;
  other.size = PromptReader::kLargest + 1;
  EXPECT_TRUE(refused(other)) << "too large";
}

TEST(PromptReaderTest, TriesSeldomWhatIsSeldomThere) {
  PromptReader reader;
  auto skipped = [&reader] {
    reader.Missed();
    uint32_t count = 0;
    while (!reader.Wanted()) ++count;
    return count;
  };
  for (uint32_t expected = 1; expected < PromptReader::kMostSkipped; expected *= 2) {
    EXPECT_EQ(skipped(), expected);
  }
  EXPECT_EQ(skipped(), PromptReader::kMostSkipped);
  EXPECT_EQ(skipped(), PromptReader::kMostSkipped);
  reader.Hit();
  EXPECT_EQ(skipped(), 1u);
}

}  // namespace
}  // namespace cube::devices::blk
