#include "snapshot/json_fields.h"

namespace cube::snapshot {

namespace json = boost::json;

Result<const json::value*> JsonFields::Find(const char* name) const {
  const json::value* value = object_.if_contains(name);
  if (value == nullptr) return Errorf("\"%s\" is missing", name);
  return value;
}

Result<std::string> JsonFields::String(const char* name) const {
  CUBE_ASSIGN(const json::value* value, Find(name));
  if (!value->is_string()) return Errorf("\"%s\" is not a string", name);
  return std::string(value->get_string());
}

Result<uint64_t> JsonFields::Number(const char* name) const {
  CUBE_ASSIGN(const json::value* value, Find(name));
  json::error_code failed;
  auto number = value->to_number<uint64_t>(failed);
  if (failed) return Errorf("\"%s\" is not a whole number", name);
  return number;
}

Result<bool> JsonFields::Bool(const char* name) const {
  CUBE_ASSIGN(const json::value* value, Find(name));
  if (!value->is_bool()) return Errorf("\"%s\" is neither true nor false", name);
  return value->get_bool();
}

Result<const json::array*> JsonFields::Array(const char* name, size_t limit) const {
  CUBE_ASSIGN(const json::value* value, Find(name));
  if (!value->is_array() || value->get_array().size() > limit) {
    return Errorf("\"%s\" is not a list of at most %zu", name, limit);
  }
  return &value->get_array();
}

Result<std::vector<std::string>> JsonFields::Strings(const char* name, size_t limit) const {
  CUBE_ASSIGN(const json::array* array, Array(name, limit));
  std::vector<std::string> strings;
  for (const json::value& item : *array) {
    if (!item.is_string()) return Errorf("\"%s\" holds what is not a string", name);
    strings.emplace_back(item.get_string());
  }
  return strings;
}

Result<JsonFields> JsonFields::Object(const char* name) const {
  CUBE_ASSIGN(const json::value* value, Find(name));
  if (!value->is_object()) return Errorf("\"%s\" is not an object", name);
  return JsonFields(value->get_object());
}

Result<std::vector<JsonFields>> JsonFields::Objects(const char* name, size_t limit) const {
  CUBE_ASSIGN(const json::array* array, Array(name, limit));
  std::vector<JsonFields> objects;
  for (const json::value& item : *array) {
    if (!item.is_object()) return Errorf("\"%s\" holds what is not an object", name);
    objects.emplace_back(item.get_object());
  }
  return objects;
}

}  // namespace cube::snapshot
