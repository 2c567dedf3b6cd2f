#ifndef CUBE_GUESTKERNEL_AGENT_INTERPRETER_OUTPUT_TEXT_H_
#define CUBE_GUESTKERNEL_AGENT_INTERPRETER_OUTPUT_TEXT_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace cube::agent::interpreter {

// Turns what is written to stdout or stderr into events. A character that is torn apart between two
// pieces of the stream is put together; bytes that are not UTF-8 become U+FFFD.
class OutputText {
 public:
  // `type` is the events' type and lives as long as this.
  explicit OutputText(std::string_view type) : type_(type) {}

  // The event of a piece of output, a line of ASCII: whoever decodes it may do so in pieces of its
  // own. Empty if `bytes` are but the start of a character. `nanoseconds` since 1970.
  std::string Event(std::string_view bytes, int64_t nanoseconds);
  // The event of what is left when the output ends, empty if nothing is.
  std::string Rest(int64_t nanoseconds);

 private:
  std::string Line(std::string_view text, int64_t nanoseconds) const;

  std::string_view type_;
  std::string torn_;  // the start of a character, up to three bytes
};

// Appends `text` as the inside of a JSON string, in ASCII.
void AppendAsciiJson(std::string_view text, std::string* out);

// An `error` event.
std::string ErrorEvent(std::string_view name, std::string_view value);

}  // namespace cube::agent::interpreter

#endif  // CUBE_GUESTKERNEL_AGENT_INTERPRETER_OUTPUT_TEXT_H_
