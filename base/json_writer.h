#ifndef CUBE_BASE_JSON_WRITER_H_
#define CUBE_BASE_JSON_WRITER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cube {

// Builds one JSON text without a document in memory, for the process that must stay lean. Calls
// must be balanced; keys are given in objects only. Strings that are not UTF-8 have each bad byte
// replaced by U+FFFD.
class JsonWriter {
 public:
  JsonWriter& BeginObject();
  JsonWriter& EndObject();
  JsonWriter& BeginArray();
  JsonWriter& EndArray();
  JsonWriter& Key(std::string_view key);
  JsonWriter& String(std::string_view value);
  JsonWriter& Int(int64_t value);
  JsonWriter& Uint(uint64_t value);
  // Three decimals; what is not finite becomes null.
  JsonWriter& Double(double value);
  JsonWriter& Bool(bool value);
  JsonWriter& Null();

  const std::string& text() const { return text_; }

 private:
  void Separate();
  void Quote(std::string_view value);

  std::string text_;
  std::vector<bool> has_items_;
  bool after_key_ = false;
};

// The length in bytes of the UTF-8 character at the start of `text`, or 0 if there is none.
size_t Utf8Length(std::string_view text);

// True if all of `text` is UTF-8.
bool IsUtf8(std::string_view text);

// Base64 with padding (RFC 4648 section 4).
std::string Base64(std::string_view bytes);

}  // namespace cube

#endif  // CUBE_BASE_JSON_WRITER_H_
