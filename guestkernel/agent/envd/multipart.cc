#include "guestkernel/agent/envd/multipart.h"

#include <algorithm>
#include <utility>

namespace cube::agent::envd {
namespace {

constexpr size_t kMaxBoundary = 200;  // RFC 2046 has 70
constexpr std::string_view kLineEnd = "\r\n";

bool SameLetter(char a, char b) {
  auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  return lower(a) == lower(b);
}

bool StartsWith(std::string_view text, std::string_view start) {
  return text.size() >= start.size() &&
         std::equal(start.begin(), start.end(), text.begin(), SameLetter);
}

void SkipBlanks(std::string_view* text) {
  while (text->starts_with(' ') || text->starts_with('\t')) text->remove_prefix(1);
}

// The value of parameter `name` of a field such as `form-data; name="x"`. In quotes a backslash
// keeps a quote or a backslash.
std::optional<std::string> ParameterOf(std::string_view field, std::string_view name) {
  while (true) {
    // To the next parameter: a semicolon that is not in quotes.
    bool quoted = false;
    size_t at = 0;
    while (at < field.size() && (quoted || field[at] != ';')) {
      if (field[at] == '"') quoted = !quoted;
      if (quoted && field[at] == '\\') ++at;
      ++at;
    }
    if (at >= field.size()) return std::nullopt;
    field.remove_prefix(at + 1);
    SkipBlanks(&field);
    if (!StartsWith(field, name) || !field.substr(name.size()).starts_with('=')) continue;
    field.remove_prefix(name.size() + 1);
    std::string value;
    if (!field.starts_with('"')) {
      value = field.substr(0, field.find(';'));
      while (value.ends_with(' ')) value.pop_back();
      return value;
    }
    for (size_t i = 1; i < field.size() && field[i] != '"'; ++i) {
      if (field[i] == '\\' && i + 1 < field.size() &&
          (field[i + 1] == '"' || field[i + 1] == '\\')) {
        ++i;
      }
      value += field[i];
    }
    return value;
  }
}

// Browsers and their like encode these three in names, and nothing else.
std::string DecodeName(std::string name) {
  const std::pair<std::string_view, char> codes[] = {{"%22", '"'}, {"%0D", '\r'}, {"%0A", '\n'}};
  for (const auto& [code, letter] : codes) {
    for (size_t at = name.find(code); at != std::string::npos; at = name.find(code, at + 1)) {
      name.replace(at, code.size(), 1, letter);
    }
  }
  return name;
}

PartHead ParseHead(std::string_view text) {
  constexpr std::string_view kField = "content-disposition:";
  PartHead head;
  while (!text.empty()) {
    const size_t end = std::min(text.find(kLineEnd), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + kLineEnd.size(), text.size()));
    if (!StartsWith(line, kField)) continue;
    line.remove_prefix(kField.size());
    head.name = DecodeName(ParameterOf(line, "name").value_or(""));
    head.filename = ParameterOf(line, "filename");
    if (head.filename) head.filename = DecodeName(std::move(*head.filename));
  }
  return head;
}

// How many bytes at the end of `text` may be the beginning of `delimiter`.
size_t BeginningAtEnd(std::string_view text, std::string_view delimiter) {
  size_t size = std::min(text.size(), delimiter.size() - 1);
  while (size > 0 && text.substr(text.size() - size) != delimiter.substr(0, size)) --size;
  return size;
}

}  // namespace

std::optional<std::string> MultipartReader::Boundary(std::string_view content_type) {
  if (!StartsWith(content_type, "multipart/form-data")) return std::nullopt;
  std::optional<std::string> boundary = ParameterOf(content_type, "boundary");
  if (!boundary || boundary->empty() || boundary->size() > kMaxBoundary) return std::nullopt;
  return boundary;
}

// The first boundary may have no line before it.
MultipartReader::MultipartReader(const std::string& boundary, Sink sink)
    : delimiter_("\r\n--" + boundary), sink_(std::move(sink)), kept_(kLineEnd) {}

Status MultipartReader::Add(std::string_view bytes) {
  while (!bytes.empty() && state_ != State::kAfter) {
    switch (state_) {
      case State::kBefore:
      case State::kData:
        CUBE_TRY(AddData(&bytes));
        break;
      case State::kBoundary:
        CUBE_TRY(AddBoundary(&bytes));
        break;
      case State::kHead:
        CUBE_TRY(AddHead(&bytes));
        break;
      case State::kAfter:
        break;
    }
  }
  return OkStatus();
}

Status MultipartReader::PassOn(std::string_view bytes) {
  return state_ == State::kData && !bytes.empty() ? sink_.data(bytes) : OkStatus();
}

Status MultipartReader::AddData(std::string_view* bytes) {
  const size_t before = kept_.size();
  std::string joined;
  std::string_view text = *bytes;
  if (before > 0) {
    // As much as shows whether the delimiter goes on.
    joined = std::exchange(kept_, {});
    joined += bytes->substr(0, delimiter_.size());
    text = joined;
  }
  const size_t found = text.find(delimiter_);
  if (found != std::string_view::npos) {
    CUBE_TRY(PassOn(text.substr(0, found)));
    bytes->remove_prefix(found + delimiter_.size() - before);
    if (state_ == State::kData) CUBE_TRY(sink_.end());
    state_ = State::kBoundary;
    return OkStatus();
  }
  const bool all = text.size() - before == bytes->size();
  if (!all) {
    // It does not begin in what was kept; the rest is looked at by itself.
    CUBE_TRY(PassOn(text.substr(0, before)));
    return OkStatus();
  }
  const size_t keep = BeginningAtEnd(text, delimiter_);
  CUBE_TRY(PassOn(text.substr(0, text.size() - keep)));
  kept_ = text.substr(text.size() - keep);
  *bytes = {};
  return OkStatus();
}

Status MultipartReader::AddBoundary(std::string_view* bytes) {
  kept_ += bytes->front();
  bytes->remove_prefix(1);
  if (kept_ == " " || kept_ == "\t") kept_.clear();  // padding
  if (kept_ == "--") {
    state_ = State::kAfter;
  } else if (kept_ == kLineEnd) {
    // Kept: a head of no lines is an end of line, too.
    state_ = State::kHead;
  } else if (kept_.size() >= 2) {
    return Error("a boundary that neither a part nor the end follows");
  }
  return OkStatus();
}

Status MultipartReader::AddHead(std::string_view* bytes) {
  const size_t before = kept_.size();
  kept_ += bytes->substr(0, kMaxHead);
  const size_t end = kept_.find("\r\n\r\n");
  if (end == std::string::npos) {
    if (kept_.size() > kMaxHead)
      return Errorf("a part whose head has more than %zu bytes", kMaxHead);
    *bytes = {};
    return OkStatus();
  }
  bytes->remove_prefix(end + 4 - before);
  PartHead head = ParseHead(std::string_view(kept_).substr(0, end));
  kept_.clear();
  state_ = State::kData;
  return sink_.begin(head);
}

}  // namespace cube::agent::envd
