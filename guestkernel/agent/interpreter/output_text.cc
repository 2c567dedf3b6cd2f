#include "guestkernel/agent/interpreter/output_text.h"

#include <algorithm>

#include "base/json_writer.h"

namespace cube::agent::interpreter {
namespace {

constexpr char kHex[] = "0123456789abcdef";

void AppendUnit(uint32_t unit, std::string* out) {
  const char escape[] = {
      '\\',           'u', kHex[unit >> 12 & 15], kHex[unit >> 8 & 15], kHex[unit >> 4 & 15],
      kHex[unit & 15]};
  out->append(escape, sizeof escape);
}

void AppendCharacter(uint32_t character, std::string* out) {
  if (character < 0x10000) {
    AppendUnit(character, out);
    return;
  }
  character -= 0x10000;
  AppendUnit(0xd800 + (character >> 10), out);
  AppendUnit(0xdc00 + (character & 0x3ff), out);
}

// The value of a character whose length in UTF-8 is known.
uint32_t Decode(std::string_view bytes) {
  auto first = static_cast<uint8_t>(bytes[0]);
  uint32_t character = bytes.size() == 2   ? first & 0x1f
                       : bytes.size() == 3 ? first & 0x0f
                                           : first & 7;
  for (char c : bytes.substr(1)) character = character << 6 | (static_cast<uint8_t>(c) & 0x3f);
  return character;
}

// How many bytes at the end of `text` may be the start of a character that goes on.
size_t TornBytes(std::string_view text) {
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    auto c = static_cast<uint8_t>(text[text.size() - back]);
    if ((c & 0xc0) == 0x80) continue;
    size_t length = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
    return back < length ? back : 0;
  }
  return 0;
}

}  // namespace

void AppendAsciiJson(std::string_view text, std::string* out) {
  while (!text.empty()) {
    auto c = static_cast<uint8_t>(text[0]);
    size_t length = 1;
    if (c >= 0x80) {
      length = Utf8Length(text);
      AppendCharacter(length == 0 ? 0xfffd : Decode(text.substr(0, length)), out);
      length = std::max<size_t>(length, 1);
    } else if (c == '"' || c == '\\') {
      *out += '\\';
      *out += text[0];
    } else if (c == '\n') {
      *out += "\\n";
    } else if (c < 0x20 || c == 0x7f) {
      AppendUnit(c, out);
    } else {
      *out += text[0];
    }
    text.remove_prefix(length);
  }
}

std::string ErrorEvent(std::string_view name, std::string_view value) {
  std::string line = "{\"type\":\"error\",\"name\":\"";
  AppendAsciiJson(name, &line);
  line += "\",\"value\":\"";
  AppendAsciiJson(value, &line);
  line += "\",\"traceback\":\"";
  AppendAsciiJson(name, &line);
  line += ": ";
  AppendAsciiJson(value, &line);
  return line + "\"}\n";
}

std::string OutputText::Event(std::string_view bytes, int64_t nanoseconds) {
  std::string joined;
  if (!torn_.empty()) {
    joined = std::move(torn_);
    joined += bytes;
    bytes = joined;
  }
  size_t torn = TornBytes(bytes);
  torn_ = bytes.substr(bytes.size() - torn);
  bytes.remove_suffix(torn);
  return bytes.empty() ? std::string() : Line(bytes, nanoseconds);
}

std::string OutputText::Rest(int64_t nanoseconds) {
  std::string torn;
  torn.swap(torn_);
  return torn.empty() ? std::string() : Line(torn, nanoseconds);
}

std::string OutputText::Line(std::string_view text, int64_t nanoseconds) const {
  std::string line;
  line.reserve(text.size() + text.size() / 8 + 80);
  line += "{\"type\":\"";
  line += type_;
  line += "\",\"text\":\"";
  AppendAsciiJson(text, &line);
  line += "\",\"timestamp\":" + std::to_string(nanoseconds) + "}\n";
  return line;
}

}  // namespace cube::agent::interpreter
