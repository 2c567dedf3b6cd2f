#include "api/fields.h"

#include <boost/json.hpp>

namespace cube::api {
namespace {

namespace json = boost::json;

constexpr int kMaxDepth = 16;
constexpr size_t kMaxEntries = 1024;
constexpr size_t kMaxEntryBytes = 1 << 20;

}  // namespace

pool::Outcome<Fields> Fields::Parse(std::string_view body) {
  if (body.find_first_not_of(" \t\r\n") == std::string_view::npos) return Fields({}, "");
  json::parse_options options;
  options.max_depth = kMaxDepth;
  json::error_code failed;
  json::value value = json::parse({body.data(), body.size()}, failed, {}, options);
  if (failed) {
    return pool::Refuse(pool::Fault::kInvalid, "the body is not JSON: %s",
                        failed.message().c_str());
  }
  if (!value.is_object()) {
    return pool::Refuse(pool::Fault::kInvalid, "the body is not a JSON object");
  }
  return Fields(std::move(value.get_object()), "");
}

const json::value* Fields::Find(const char* name) const {
  const json::value* value = object_.if_contains(name);
  return value == nullptr || value->is_null() ? nullptr : value;
}

bool Fields::Has(const char* name) const { return Find(name) != nullptr; }

void Fields::Fail(const std::string& name, const std::string& what) {
  if (!*wrong_) *wrong_ = "\"" + prefix_ + name.substr(0, 100) + "\" " + what;
}

pool::Outcome<pool::Done> Fields::Check() const {
  if (!*wrong_) return pool::Done();
  return pool::Refuse(pool::Fault::kInvalid, "%s", (*wrong_)->c_str());
}

void Fields::Text(const char* name, std::optional<std::string>* value, size_t most) {
  const json::value* found = Find(name);
  if (found == nullptr) return;
  const json::string* text = found->if_string();
  if (text == nullptr) return Fail(name, "is not a string");
  if (text->size() > most) {
    return Fail(name, Format("has %zu bytes of at most %zu", text->size(), most));
  }
  if (std::string_view(*text).find('\0') != std::string_view::npos) {
    return Fail(name, "has a zero byte");
  }
  *value = std::string(*text);
}

void Fields::Flag(const char* name, std::optional<bool>* value) {
  const json::value* found = Find(name);
  if (found == nullptr) return;
  if (!found->is_bool()) return Fail(name, "is not true or false");
  *value = found->get_bool();
}

void Fields::Whole(const char* name, int64_t least, int64_t most, std::optional<int64_t>* value) {
  const json::value* found = Find(name);
  if (found == nullptr) return;
  json::error_code failed;
  auto number = found->to_number<int64_t>(failed);
  if (failed || number < least || number > most) {
    return Fail(name, Format("is not a whole number from %lld to %lld",
                             static_cast<long long>(least), static_cast<long long>(most)));
  }
  *value = number;
}

void Fields::Texts(const char* name, std::optional<std::vector<std::string>>* value, size_t most) {
  const json::value* found = Find(name);
  if (found == nullptr) return;
  const json::array* list = found->if_array();
  if (list == nullptr || list->size() > most) {
    return Fail(name, Format("is not a list of at most %zu strings", most));
  }
  std::vector<std::string> texts;
  for (const json::value& each : *list) {
    const json::string* text = each.if_string();
    if (text == nullptr || text->size() > kMaxEntryBytes ||
        std::string_view(*text).find('\0') != std::string_view::npos) {
      return Fail(name, "is not a list of strings");
    }
    texts.emplace_back(*text);
  }
  *value = std::move(texts);
}

void Fields::Wholes(const char* name, int64_t least, int64_t most,
                    std::optional<std::vector<int64_t>>* value) {
  const json::value* found = Find(name);
  if (found == nullptr) return;
  const json::array* list = found->if_array();
  const std::string wrong = Format("is not a list of whole numbers from %lld to %lld",
                                   static_cast<long long>(least), static_cast<long long>(most));
  if (list == nullptr || list->size() > kMaxEntries) return Fail(name, wrong);
  std::vector<int64_t> numbers;
  for (const json::value& each : *list) {
    json::error_code failed;
    auto number = each.to_number<int64_t>(failed);
    if (failed || number < least || number > most) return Fail(name, wrong);
    numbers.push_back(number);
  }
  *value = std::move(numbers);
}

void Fields::TextMap(const char* name, std::map<std::string, std::string>* value) {
  const json::value* found = Find(name);
  if (found == nullptr) return;
  const json::object* object = found->if_object();
  if (object == nullptr || object->size() > kMaxEntries) {
    return Fail(name, Format("is not an object of at most %zu strings", kMaxEntries));
  }
  std::map<std::string, std::string> texts;
  for (const auto& [key, item] : *object) {
    const json::string* text = item.if_string();
    std::string inner = std::string(name) + "." + std::string(key);
    if (text == nullptr) return Fail(inner, "is not a string");
    if (std::string_view(*text).find('\0') != std::string_view::npos ||
        std::string_view(key).find('\0') != std::string_view::npos) {
      return Fail(inner, "has a zero byte");
    }
    texts.emplace(std::string(key), std::string(*text));
  }
  *value = std::move(texts);
}

std::optional<Fields> Fields::Object(const char* name) {
  const json::value* found = Find(name);
  if (found == nullptr) return std::nullopt;
  const json::object* object = found->if_object();
  if (object == nullptr) {
    Fail(name, "is not an object");
    return std::nullopt;
  }
  Fields inner(*object, prefix_ + name + ".");
  inner.wrong_ = wrong_;
  return inner;
}

std::vector<Fields> Fields::Objects(const char* name, size_t most) {
  std::vector<Fields> all;
  const json::value* found = Find(name);
  if (found == nullptr) return all;
  const json::array* list = found->if_array();
  if (list == nullptr || list->size() > most) {
    Fail(name, Format("is not a list of at most %zu objects", most));
    return all;
  }
  for (size_t i = 0; i < list->size(); ++i) {
    const json::object* object = (*list)[i].if_object();
    if (object == nullptr) {
      Fail(Format("%s[%zu]", name, i), "is not an object");
      return {};
    }
    Fields inner(*object, Format("%s%s[%zu].", prefix_.c_str(), name, i));
    inner.wrong_ = wrong_;
    all.push_back(std::move(inner));
  }
  return all;
}

std::vector<std::string> Fields::Names() const {
  std::vector<std::string> names;
  for (const auto& item : object_) names.emplace_back(item.key());
  return names;
}

}  // namespace cube::api
