#include "pool/request_fields.h"

#include <boost/json.hpp>
#include <cmath>

namespace cube::pool {
namespace {

namespace json = boost::json;

constexpr int kMaxDepth = 4;
constexpr size_t kMaxEntries = 1024;
constexpr size_t kMaxTag = 256;

Refusal Wrong(const char* name, const char* what) {
  return Refuse(Fault::kInvalid, "\"%s\" is not %s", name, what);
}

}  // namespace

Outcome<RequestFields> RequestFields::Parse(std::string_view line) {
  json::parse_options options;
  options.max_depth = kMaxDepth;
  json::error_code failed;
  json::value value = json::parse({line.data(), line.size()}, failed, {}, options);
  if (failed) {
    return Refuse(Fault::kInvalid, "a request that is not JSON: %s", failed.message().c_str());
  }
  if (!value.is_object()) return Refuse(Fault::kInvalid, "a request that is not a JSON object");
  RequestFields fields(std::move(value.get_object()));
  if (const json::value* tag = fields.Find("tag")) {
    if (!tag->is_string() || tag->get_string().size() > kMaxTag) {
      return Wrong("tag", "a string of at most 256 bytes");
    }
    fields.tag_ = std::string(tag->get_string());
  }
  return fields;
}

const json::value* RequestFields::Find(const char* name) {
  asked_.insert(name);
  return object_.if_contains(name);
}

Outcome<std::string> RequestFields::String(const char* name) {
  const json::value* value = Find(name);
  if (value == nullptr) return Refuse(Fault::kInvalid, "\"%s\" is missing", name);
  if (!value->is_string()) return Wrong(name, "a string");
  return std::string(value->get_string());
}

Outcome<std::string> RequestFields::String(const char* name, std::string fallback) {
  if (Find(name) == nullptr) return fallback;
  return String(name);
}

Outcome<bool> RequestFields::Bool(const char* name, bool fallback) {
  const json::value* value = Find(name);
  if (value == nullptr) return fallback;
  if (!value->is_bool()) return Wrong(name, "true or false");
  return value->get_bool();
}

Outcome<std::optional<uint64_t>> RequestFields::Number(const char* name, uint64_t limit) {
  const json::value* value = Find(name);
  if (value == nullptr) return std::optional<uint64_t>();
  json::error_code failed;
  auto number = value->to_number<uint64_t>(failed);
  if (failed || number > limit) {
    return Refuse(Fault::kInvalid, "\"%s\" is not a whole number up to %llu", name,
                  static_cast<unsigned long long>(limit));
  }
  return std::optional<uint64_t>(number);
}

Outcome<double> RequestFields::Real(const char* name, double fallback, double limit) {
  const json::value* value = Find(name);
  if (value == nullptr) return fallback;
  json::error_code failed;
  auto number = value->to_number<double>(failed);
  if (failed || !std::isfinite(number) || number < 0 || number > limit) {
    return Refuse(Fault::kInvalid, "\"%s\" is not a number from 0 to %g", name, limit);
  }
  return number;
}

Outcome<std::vector<std::string>> RequestFields::Strings(const char* name) {
  std::vector<std::string> strings;
  const json::value* value = Find(name);
  if (value == nullptr) return strings;
  if (!value->is_array() || value->get_array().size() > kMaxEntries) {
    return Wrong(name, "a list of at most 1024 strings");
  }
  for (const json::value& item : value->get_array()) {
    if (!item.is_string()) return Wrong(name, "a list of at most 1024 strings");
    strings.emplace_back(item.get_string());
  }
  return strings;
}

Outcome<std::map<std::string, std::string>> RequestFields::StringMap(const char* name) {
  std::map<std::string, std::string> map;
  const json::value* value = Find(name);
  if (value == nullptr) return map;
  if (!value->is_object() || value->get_object().size() > kMaxEntries) {
    return Wrong(name, "an object of at most 1024 strings");
  }
  for (const auto& [key, item] : value->get_object()) {
    if (!item.is_string()) return Wrong(name, "an object of at most 1024 strings");
    map.emplace(std::string(key), std::string(item.get_string()));
  }
  return map;
}

Outcome<Done> RequestFields::Finish() const {
  for (const auto& item : object_) {
    std::string key(item.key());
    if (!asked_.contains(key)) {
      return Refuse(Fault::kInvalid, "\"%.64s\" is not a field of this request", key.c_str());
    }
  }
  return Done();
}

}  // namespace cube::pool
