#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "guestkernel/agent/frame_reader.h"
#include "guestkernel/agent/frame_writer.h"
#include "guestkernel/agent/start_request.h"

namespace cube::agent {
namespace {

struct Memory {
  alignas(4096) uint8_t bytes[abi::kMailboxSize] = {};
};

std::vector<uint8_t> Bytes(const void* data, size_t size) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  return std::vector<uint8_t>(bytes, bytes + size);
}

class FrameReaderTest : public ::testing::Test {
 protected:
  void Send(const std::vector<uint8_t>& bytes) {
    ASSERT_EQ(host_.Write(bytes), bytes.size());
  }
  void SendHeader(uint32_t type, uint32_t size) {
    abi::FrameHeader header = {type, size};
    Send(Bytes(&header, sizeof header));
  }
  std::optional<Frame> Next() {
    Result<std::optional<Frame>> frame = reader_.Next();
    EXPECT_TRUE(frame.ok()) << (frame.ok() ? "" : frame.error().message());
    return frame.ok() ? *frame : std::nullopt;
  }

  std::unique_ptr<Memory> memory_ = std::make_unique<Memory>();
  RingProducer host_ = OpenRing<RingProducer>(memory_->bytes, abi::RingId::kToGuest);
  FrameReader reader_{OpenRing<RingConsumer>(memory_->bytes, abi::RingId::kToGuest)};
};

TEST_F(FrameReaderTest, FramesComeOneByOneAndMayBeEmpty) {
  SendHeader(7, 3);
  Send({1, 2, 3});
  SendHeader(8, 0);
  std::optional<Frame> first = Next();
  ASSERT_TRUE(first);
  EXPECT_EQ(first->type, 7u);
  EXPECT_EQ(first->payload, (std::vector<uint8_t>{1, 2, 3}));
  std::optional<Frame> second = Next();
  ASSERT_TRUE(second);
  EXPECT_EQ(second->type, 8u);
  EXPECT_TRUE(second->payload.empty());
  EXPECT_FALSE(Next());
}

TEST_F(FrameReaderTest, AFrameMayComeByteByByte) {
  abi::FrameHeader header = {3, 5};
  std::vector<uint8_t> bytes = Bytes(&header, sizeof header);
  for (uint8_t byte : {9, 8, 7, 6, 5}) bytes.push_back(byte);
  for (size_t i = 0; i + 1 < bytes.size(); ++i) {
    Send({bytes[i]});
    EXPECT_TRUE(reader_.HasWork());
    EXPECT_FALSE(Next());
    EXPECT_FALSE(reader_.HasWork());
  }
  Send({bytes.back()});
  std::optional<Frame> frame = Next();
  ASSERT_TRUE(frame);
  EXPECT_EQ(frame->payload, (std::vector<uint8_t>{9, 8, 7, 6, 5}));
}

TEST_F(FrameReaderTest, AFrameLargerThanTheRingAndTheHostIsWokenForIt) {
  std::vector<uint8_t> payload(100000);
  for (size_t i = 0; i < payload.size(); ++i) payload[i] = static_cast<uint8_t>(i * 7 + i / 256);
  SendHeader(1, static_cast<uint32_t>(payload.size()));
  size_t sent = 0;
  std::optional<Frame> frame;
  while (!frame) {
    sent += host_.Write(std::span<const uint8_t>(payload).subspan(sent));
    if (sent < payload.size()) host_.WaitForSpace();
    frame = Next();
    EXPECT_EQ(reader_.TakeHostWaits(), !frame.has_value());
    EXPECT_FALSE(reader_.TakeHostWaits());
  }
  EXPECT_EQ(frame->payload, payload);
}

TEST_F(FrameReaderTest, AFrameBeyondTheLimitEndsTheStream) {
  SendHeader(1, abi::kMaxFrameSize + 1);
  Result<std::optional<Frame>> frame = reader_.Next();
  ASSERT_FALSE(frame.ok());
  EXPECT_EQ(frame.error().message(), "a frame of 2097153 bytes; the limit is 2097152");
  SendHeader(1, 0);
  EXPECT_FALSE(reader_.HasWork());
  EXPECT_FALSE(Next());
}

TEST_F(FrameReaderTest, IndicesThatMakeNoSenseEndTheStream) {
  reinterpret_cast<abi::MailboxHeader*>(memory_->bytes)->rings[0].produced = 0x1001;
  EXPECT_FALSE(reader_.Next().ok());
  EXPECT_FALSE(reader_.HasWork());
}

TEST(FrameWriter, WhatDoesNotFitWaitsForTheHost) {
  auto memory = std::make_unique<Memory>();
  FrameWriter writer(OpenRing<RingProducer>(memory->bytes, abi::RingId::kFromGuest));
  FrameReader host(OpenRing<RingConsumer>(memory->bytes, abi::RingId::kFromGuest));
  EXPECT_FALSE(writer.Flush());
  std::string text(10000, 'x');
  writer.Queue(abi::FrameType::kStartFailed, abi::FailedPayload{2}, text);
  EXPECT_TRUE(writer.Flush());
  EXPECT_FALSE(writer.empty());
  EXPECT_FALSE(writer.HasWork());
  std::optional<Frame> frame;
  while (!frame) {
    frame = *host.Next();
    writer.Flush();
  }
  EXPECT_TRUE(writer.empty());
  EXPECT_EQ(frame->payload.size(), sizeof(abi::FailedPayload) + text.size());
}

std::vector<uint8_t> StartPayload(abi::StartHeader header, const std::string& strings) {
  std::string payload(reinterpret_cast<const char*>(&header), sizeof header);
  payload += strings;
  return Bytes(payload.data(), payload.size());
}

std::string ParseError(const std::vector<uint8_t>& payload) {
  Result<StartRequest> request = StartRequest::Parse(payload);
  return request.ok() ? "" : request.error().message();
}

using namespace std::string_literals;

TEST(StartRequest, IsTakenApart) {
  auto payload = StartPayload({abi::kStartOnConsole, 2, 2, 24, 80},
                              "sh\0-c\0A=1\0PATH=/bin\0/tmp\0"s);
  Result<StartRequest> request = StartRequest::Parse(payload);
  ASSERT_TRUE(request.ok()) << request.error().message();
  EXPECT_TRUE(request->on_console);
  EXPECT_EQ(request->rows, 24);
  EXPECT_EQ(request->columns, 80);
  EXPECT_EQ(request->arguments, (std::vector<std::string>{"sh", "-c"}));
  EXPECT_EQ(request->variables, (std::vector<std::string>{"A=1", "PATH=/bin"}));
  EXPECT_EQ(request->directory, "/tmp");
  EXPECT_STREQ(request->Variable("PATH"), "/bin");
  EXPECT_EQ(request->Variable("PAT"), nullptr);
  EXPECT_EQ(request->Variable("PATH=/bin"), nullptr);
}

TEST(StartRequest, WhatMakesNoSenseIsRefused) {
  EXPECT_EQ(ParseError({1, 2, 3}), "start request: 3 bytes, the header has 16");
  EXPECT_EQ(ParseError(StartPayload({2, 1, 0}, "a\0\0"s)), "start request: unknown flags 0x2");
  EXPECT_EQ(ParseError(StartPayload({0, 0, 0}, "\0"s)), "start request: no program is named");
  EXPECT_EQ(ParseError(StartPayload({0, 1, 0}, "\0\0"s)), "start request: no program is named");
  EXPECT_EQ(ParseError(StartPayload({0, 1, 0}, "a\0"s)), "start request: a string has no end");
  EXPECT_EQ(ParseError(StartPayload({0, 1, 0}, "a\0/tmp"s)), "start request: a string has no end");
  EXPECT_EQ(ParseError(StartPayload({0, 1, 0}, "a\0/\0bc"s)), "start request: 2 bytes too many");
  EXPECT_EQ(ParseError(StartPayload({0, 0xffffffff, 1}, "a\0"s)),
            "start request: 4294967295 strings in 2 bytes");
  EXPECT_EQ(ParseError(StartPayload({0, 1, 0xffffffff}, "a\0"s)),
            "start request: 4294967295 strings in 0 bytes");
}

}  // namespace
}  // namespace cube::agent
