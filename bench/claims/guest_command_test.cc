#include "bench/claims/guest_command.h"

#include <gtest/gtest.h>

namespace cube::bench {
namespace {

std::string Envelope(char flags, const std::string& message) {
  std::string envelope = {flags, 0, 0, static_cast<char>(message.size() >> 8),
                          static_cast<char>(message.size())};
  return envelope + message;
}

const std::string kStart = Envelope(0, R"({"event":{"start":{"pid":7}}})");
const std::string kData = Envelope(0, R"({"event":{"data":{"stdout":"aGVsbG8K"}}})");
const std::string kMore = Envelope(0, R"({"event":{"data":{"stdout":"eA=="}}})");
const std::string kEnd =
    Envelope(0, R"({"event":{"end":{"exited":true,"status":"exit status 0"}}})");
const std::string kTrailer = Envelope(2, "{}");

std::string ErrorOf(const std::string& stream) {
  auto output = OutputOfStream(stream);
  return output.ok() ? "" : output.error().message();
}

TEST(GuestCommandTest, Output) {
  auto output = OutputOfStream(kStart + kData + kMore + kEnd + kTrailer);
  ASSERT_TRUE(output.ok()) << output.error().message();
  EXPECT_EQ(*output, "hello\nx");
}

TEST(GuestCommandTest, StreamsThatAreNotWhole) {
  const std::string whole = kStart + kData + kEnd + kTrailer;
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_EQ(ErrorOf(whole.substr(0, size)), "the stream of a command is cut off") << size;
  }
  EXPECT_EQ(ErrorOf(kStart + kData + kTrailer), "the stream of a command is cut off");
}

TEST(GuestCommandTest, Failures) {
  const std::string failed =
      Envelope(0, R"({"event":{"end":{"exitCode":1,"status":"exit status 1"}}})");
  EXPECT_NE(ErrorOf(kStart + failed + kTrailer).find("exit status 1"), std::string::npos);
  EXPECT_NE(ErrorOf(Envelope(2, R"({"error":{"code":"not_found"}})")).find("not_found"),
            std::string::npos);
  EXPECT_EQ(ErrorOf(Envelope(0, "[]")), "a message that is no object");
  EXPECT_EQ(ErrorOf(Envelope(0, R"({"event":{"data":{"stdout":"\u0000!"}}})")),
            "output that is no base64");
}

}  // namespace
}  // namespace cube::bench
