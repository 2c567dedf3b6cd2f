#include "vmm/cli/control_request.h"

#include <boost/json.hpp>

#include "base/json_writer.h"

namespace cube::vmm {
namespace {

namespace json = boost::json;

constexpr int kMaxDepth = 4;
constexpr size_t kMaxStrings = 1024;

}  // namespace

Result<ControlRequest> ControlRequest::Parse(std::string_view line) {
  json::parse_options options;
  options.max_depth = kMaxDepth;
  json::error_code failed;
  json::value value = json::parse({line.data(), line.size()}, failed, {}, options);
  if (failed) return Errorf("a request that is not JSON: %s", failed.message().c_str());
  if (!value.is_object()) return Errorf("a request that is not a JSON object");
  return ControlRequest(std::move(value.get_object()));
}

Result<std::string> ControlRequest::String(const char* name) const {
  const json::value* value = object_.if_contains(name);
  if (value == nullptr) return Errorf("\"%s\" is missing", name);
  if (!value->is_string()) return Errorf("\"%s\" is not a string", name);
  return std::string(value->get_string());
}

Result<std::string> ControlRequest::String(const char* name, const std::string& fallback) const {
  if (object_.if_contains(name) == nullptr) return fallback;
  return String(name);
}

Result<bool> ControlRequest::Bool(const char* name, bool fallback) const {
  const json::value* value = object_.if_contains(name);
  if (value == nullptr) return fallback;
  if (!value->is_bool()) return Errorf("\"%s\" is neither true nor false", name);
  return value->get_bool();
}

Result<uint64_t> ControlRequest::Number(const char* name, uint64_t fallback, uint64_t limit) const {
  const json::value* value = object_.if_contains(name);
  if (value == nullptr) return fallback;
  json::error_code failed;
  auto number = value->to_number<uint64_t>(failed);
  if (failed || number > limit) {
    return Errorf("\"%s\" is not a whole number up to %llu", name,
                  static_cast<unsigned long long>(limit));
  }
  return number;
}

Result<std::vector<std::string>> ControlRequest::Strings(const char* name) const {
  std::vector<std::string> strings;
  const json::value* value = object_.if_contains(name);
  if (value == nullptr) return strings;
  if (!value->is_array() || value->get_array().size() > kMaxStrings) {
    return Errorf("\"%s\" is not a list of at most %zu", name, kMaxStrings);
  }
  for (const json::value& item : value->get_array()) {
    if (!item.is_string()) return Errorf("\"%s\" holds what is not a string", name);
    strings.emplace_back(item.get_string());
  }
  return strings;
}

std::string ErrorAnswer(const Error& error) {
  JsonWriter writer;
  writer.BeginObject().Key("ok").Bool(false).Key("error").String(error.message()).EndObject();
  return writer.text();
}

std::string InvalidAnswer(const Error& error) {
  JsonWriter writer;
  writer.BeginObject().Key("ok").Bool(false).Key("error").String(error.message());
  return writer.Key("code").String("invalid").EndObject().text();
}

}  // namespace cube::vmm
