// What a client sends: requests in pieces of any size, messages in envelopes, messages as JSON.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

#include "guestkernel/agent/connect/base64.h"
#include "guestkernel/agent/connect/envelope.h"
#include "guestkernel/agent/connect/message.h"
#include "guestkernel/agent/http/request_parser.h"

namespace {

using cube::agent::connect::DecodeBase64;
using cube::agent::connect::EnvelopeReader;
using cube::agent::connect::kMaxMessage;
using cube::agent::connect::Message;
using cube::agent::http::RequestParser;

void Require(bool condition) {
  if (!condition) abort();
}

void TakeApart(const Message& message, int depth) {
  static constexpr Message::EnumName kNames[] = {{"ONE", 1}};
  message.String("cmd");
  message.Bool("recursive");
  message.Uint32("pid");
  message.Int64("size");
  message.Bytes("stdin");
  message.Enum("signal", kNames);
  message.Strings("args");
  message.StringMap("envs");
  for (const char* name : {"process", "pty", "input"}) {
    std::optional<Message> part = message.Sub(name);
    if (part && depth < 8) TakeApart(*part, depth + 1);
  }
}

// Keeps what a parser leaves over, as a connection does, and gives it again with `piece` bytes
// more.
void ParseRequests(std::string_view rest, size_t piece) {
  RequestParser parser;
  std::string kept;
  size_t body = 0;
  const size_t size = rest.size();
  const RequestParser::Body count = [&](std::string_view bytes) { body += bytes.size(); };
  while (!rest.empty()) {
    kept += rest.substr(0, piece);
    rest.remove_prefix(std::min(piece, rest.size()));
    std::string_view input = kept;
    while (true) {
      const RequestParser::Step step = parser.Parse(&input, count);
      Require(body <= size);
      if (step == RequestParser::Step::kHead) {
        Require(!parser.request().method.empty());
        Require(parser.request().fields.size() <= RequestParser::kMaxFields);
        continue;
      }
      if (step != RequestParser::Step::kNeedMore) return;
      break;
    }
    kept = std::string(input);
  }
}

void ReadEnvelopes(std::string_view rest, size_t piece) {
  EnvelopeReader reader;
  while (!rest.empty()) {
    reader.Add(rest.substr(0, piece));
    rest.remove_prefix(std::min(piece, rest.size()));
    while (true) {
      auto next = reader.Next();
      if (!next.ok()) return;
      if (!next->has_value()) break;
      Require((*next)->size() <= kMaxMessage);
      auto message = Message::Parse(**next);
      if (message.ok()) TakeApart(*message, 0);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view all(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t piece = size_t{data[0]} + 1;
  ParseRequests(all, piece);
  ReadEnvelopes(all, piece);
  auto message = Message::Parse(all);
  if (message.ok()) TakeApart(*message, 0);
  auto bytes = DecodeBase64(all);
  Require(!bytes || bytes->size() <= all.size());
  return 0;
}
