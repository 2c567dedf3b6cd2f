#include "devices/blk/prompt_writer.h"

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

TEST(PromptWriterTest, WritesOrLeavesTheOperationAlone) {
  testing::Scratch scratch;
  UniqueFd file(open(scratch.Write("file", std::vector<uint8_t>(65536)).c_str(), O_RDWR));
  ASSERT_TRUE(file.valid());
  std::string bytes(4096, 'x');
  iovec buffer = {bytes.data(), bytes.size()};
  IoOperation operation = {
      IoOperation::Kind::kWrite, file.get(), 0, 8192, bytes.size(), {&buffer, 1}, nullptr, 77};
  PromptWriter writer;
  std::string got(4096, '\0');
  bool done = writer.Try(&operation);
  ASSERT_EQ(pread(file.get(), got.data(), got.size(), 8192), 4096);
  EXPECT_EQ(operation.result, done ? 4096 : 77);
  EXPECT_EQ(got == bytes, done);
}

TEST(PromptWriterTest, ReadsAndLargeWritesAreTheRings) {
  iovec buffer = {};
  IoOperation operation = {IoOperation::Kind::kRead, 0, 0, 0, 4096, {&buffer, 1}, nullptr, 77};
  PromptWriter writer;
  EXPECT_FALSE(writer.Try(&operation));
  operation.kind = IoOperation::Kind::kWrite;
  operation.size = PromptWriter::kLargest + 1;
  EXPECT_FALSE(writer.Try(&operation));
  EXPECT_EQ(operation.result, 77);
}

TEST(PromptWriterTest, RestsAfterAWriteThatHadToWait) {
  PromptWriter writer;
  writer.Took(0, PromptWriter::kSlow);
  EXPECT_TRUE(writer.Allowed(PromptWriter::kSlow));
  const int64_t start = 5, end = start + 10 * PromptWriter::kSlow;
  writer.Took(start, end);
  EXPECT_FALSE(writer.Allowed(end));
  EXPECT_FALSE(writer.Allowed(end + PromptWriter::kRest * (end - start) - 1));
  EXPECT_TRUE(writer.Allowed(end + PromptWriter::kRest * (end - start)));
}

}  // namespace
}  // namespace cube::devices::blk
