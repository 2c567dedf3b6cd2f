#include "guestkernel/agent/connect/message.h"

#include <algorithm>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <charconv>
#include <cmath>
#include <limits>
#include <utility>

#include "guestkernel/agent/connect/base64.h"

namespace cube::agent::connect {
namespace {

namespace json = boost::json;

std::string SnakeCase(std::string_view camel) {
  std::string snake;
  for (char c : camel) {
    if (c >= 'A' && c <= 'Z') {
      snake += '_';
      snake += static_cast<char>(c - 'A' + 'a');
    } else {
      snake += c;
    }
  }
  return snake;
}

std::string Text(const json::string& text) { return std::string(text.data(), text.size()); }

// An integer in any of the forms that the JSON of a message may give it.
template <typename Int>
std::optional<Int> Integer(const json::value& value) {
  if (value.is_int64()) {
    const int64_t number = value.get_int64();
    if (std::in_range<Int>(number)) return static_cast<Int>(number);
  } else if (value.is_uint64()) {
    const uint64_t number = value.get_uint64();
    if (std::in_range<Int>(number)) return static_cast<Int>(number);
  } else if (value.is_double()) {
    const double number = value.get_double();
    // 2^53 is the last up to which doubles are exact, and all of these fit what is asked for.
    const double most =
        std::min(9007199254740992.0, static_cast<double>(std::numeric_limits<Int>::max()));
    const double least = std::numeric_limits<Int>::is_signed ? -most : 0;
    if (number == std::floor(number) && number >= least && number <= most) {
      return static_cast<Int>(number);
    }
  } else if (value.is_string()) {
    const json::string& text = value.get_string();
    Int number = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error == std::errc() && end == text.data() + text.size() && !text.empty()) return number;
  }
  return std::nullopt;
}

}  // namespace

struct Message::Document {
  json::value root;
  std::string error;
};

Outcome<Message> Message::Parse(std::string_view text) {
  auto document = std::make_shared<Document>();
  if (text.empty()) {
    document->root.emplace_object();
  } else {
    boost::system::error_code error;
    document->root = json::parse({text.data(), text.size()}, error);
    if (error)
      return RpcError{Code::kInvalidArgument, "the message is not JSON: " + error.message()};
  }
  const json::object* object = document->root.if_object();
  if (object == nullptr) {
    return RpcError{Code::kInvalidArgument, "the message is not a JSON object"};
  }
  return Message(std::move(document), object);
}

const std::string& Message::error() const { return document_->error; }

void Message::Complain(std::string_view name, const char* expected) const {
  if (document_->error.empty()) {
    document_->error = "field '" + std::string(name) + "' is not " + expected;
  }
}

const json::value* Message::Find(std::string_view name) const {
  const json::value* value = object_->if_contains({name.data(), name.size()});
  if (value == nullptr) value = object_->if_contains(SnakeCase(name));
  return value == nullptr || value->is_null() ? nullptr : value;
}

bool Message::Has(std::string_view name) const { return Find(name) != nullptr; }

std::string Message::String(std::string_view name) const {
  const json::value* value = Find(name);
  if (value == nullptr) return "";
  if (value->is_string()) return Text(value->get_string());
  Complain(name, "a string");
  return "";
}

bool Message::Bool(std::string_view name, bool missing) const {
  const json::value* value = Find(name);
  if (value == nullptr) return missing;
  if (value->is_bool()) return value->get_bool();
  Complain(name, "true or false");
  return missing;
}

uint32_t Message::Uint32(std::string_view name) const {
  const json::value* value = Find(name);
  if (value == nullptr) return 0;
  if (std::optional<uint32_t> number = Integer<uint32_t>(*value)) return *number;
  Complain(name, "a number of 0 to 4294967295");
  return 0;
}

int64_t Message::Int64(std::string_view name) const {
  const json::value* value = Find(name);
  if (value == nullptr) return 0;
  if (std::optional<int64_t> number = Integer<int64_t>(*value)) return *number;
  Complain(name, "a number of 64 bits");
  return 0;
}

std::string Message::Bytes(std::string_view name) const {
  const json::value* value = Find(name);
  if (value == nullptr) return "";
  if (value->is_string()) {
    const json::string& text = value->get_string();
    if (auto bytes = DecodeBase64({text.data(), text.size()})) return std::move(*bytes);
  }
  Complain(name, "base64");
  return "";
}

std::optional<int32_t> Message::Enum(std::string_view name, std::span<const EnumName> names) const {
  const json::value* value = Find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) {
    const std::string text = Text(value->get_string());
    for (const auto& [known, number] : names) {
      if (known == text) return number;
    }
    Complain(name, "a known name");
    return std::nullopt;
  }
  std::optional<int32_t> number = Integer<int32_t>(*value);
  if (!number) Complain(name, "a name or a number");
  return number;
}

std::vector<std::string> Message::Strings(std::string_view name) const {
  std::vector<std::string> strings;
  const json::value* value = Find(name);
  if (value == nullptr) return strings;
  const json::array* array = value->if_array();
  if (array == nullptr) {
    Complain(name, "an array");
    return strings;
  }
  strings.reserve(array->size());
  for (const json::value& each : *array) {
    if (each.is_string()) {
      strings.push_back(Text(each.get_string()));
    } else {
      Complain(name, "an array of strings");
    }
  }
  return strings;
}

std::vector<std::pair<std::string, std::string>> Message::StringMap(std::string_view name) const {
  std::vector<std::pair<std::string, std::string>> map;
  const json::value* value = Find(name);
  if (value == nullptr) return map;
  const json::object* object = value->if_object();
  if (object == nullptr) {
    Complain(name, "an object");
    return map;
  }
  map.reserve(object->size());
  for (const json::key_value_pair& each : *object) {
    if (each.value().is_string()) {
      map.emplace_back(std::string(each.key().data(), each.key().size()),
                       Text(each.value().get_string()));
    } else {
      Complain(name, "an object of strings");
    }
  }
  return map;
}

std::optional<Message> Message::Sub(std::string_view name) const {
  const json::value* value = Find(name);
  if (value == nullptr) return std::nullopt;
  const json::object* object = value->if_object();
  if (object == nullptr) {
    Complain(name, "an object");
    return std::nullopt;
  }
  return Message(document_, object);
}

}  // namespace cube::agent::connect
