#ifndef CUBE_GUESTKERNEL_AGENT_CONNECT_MESSAGE_H_
#define CUBE_GUESTKERNEL_AGENT_CONNECT_MESSAGE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "guestkernel/agent/connect/rpc_error.h"

namespace boost::json {
class object;
class value;
}  // namespace boost::json

namespace cube::agent::connect {

// A protobuf message in its JSON form. Fields are asked for by their names in camel case and found
// by those in snake case too; a field that is missing or null has its default value. A field of the
// wrong type makes error() say so, and has its default value as well: so a message can be taken
// apart first and judged once.
class Message {
 public:
  // A name of an enumeration and its number.
  using EnumName = std::pair<std::string_view, int32_t>;

  // An error if `json` is not an object. Nothing at all is an empty message.
  static Outcome<Message> Parse(std::string_view json);

  bool Has(std::string_view name) const;
  std::string String(std::string_view name) const;
  bool Bool(std::string_view name, bool missing = false) const;
  // A number, or a string of digits.
  uint32_t Uint32(std::string_view name) const;
  int64_t Int64(std::string_view name) const;
  // Base64.
  std::string Bytes(std::string_view name) const;
  // A name of `names`, or a number; nothing if it is missing or another name.
  std::optional<int32_t> Enum(std::string_view name, std::span<const EnumName> names) const;
  std::vector<std::string> Strings(std::string_view name) const;
  // A map of strings to strings, in the order of the text.
  std::vector<std::pair<std::string, std::string>> StringMap(std::string_view name) const;
  // Nothing if it is missing. It shares this one's error.
  std::optional<Message> Sub(std::string_view name) const;

  // What was wrong first with a field asked for so far, here or in a part; empty if nothing was.
  const std::string& error() const;

 private:
  struct Document;

  Message(std::shared_ptr<Document> document, const boost::json::object* object)
      : document_(std::move(document)), object_(object) {}

  // Null if it is missing or null.
  const boost::json::value* Find(std::string_view name) const;
  void Complain(std::string_view name, const char* expected) const;

  std::shared_ptr<Document> document_;
  const boost::json::object* object_;
};

}  // namespace cube::agent::connect

#endif  // CUBE_GUESTKERNEL_AGENT_CONNECT_MESSAGE_H_
