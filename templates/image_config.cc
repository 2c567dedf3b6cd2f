#include "templates/image_config.h"

namespace cube::templates {
namespace {

namespace json = boost::json;

constexpr size_t kMaxDepth = 32;

Result<json::value> ParseJson(std::string_view text) {
  if (text.size() > kMaxJson) {
    return Errorf("JSON of %zu bytes, at most %zu are read", text.size(), kMaxJson);
  }
  json::parse_options options;
  options.max_depth = kMaxDepth;
  json::error_code failed;
  json::value value = json::parse({text.data(), text.size()}, failed, {}, options);
  if (failed) return Errorf("not JSON: %s", failed.message().c_str());
  return value;
}

}  // namespace

Result<json::object> ParseObject(std::string_view text) {
  CUBE_ASSIGN(json::value value, ParseJson(text));
  if (!value.is_object()) return Errorf("not a JSON object");
  return std::move(value.get_object());
}

Result<json::array> ParseArray(std::string_view text) {
  CUBE_ASSIGN(json::value value, ParseJson(text));
  if (!value.is_array()) return Errorf("not a JSON list");
  return std::move(value.get_array());
}

Result<std::string> StringOf(const json::object& object, const char* name) {
  const json::value* found = object.if_contains(name);
  if (found == nullptr || found->is_null()) return std::string();
  if (!found->is_string()) return Errorf("\"%s\" is not a string", name);
  std::string text(found->get_string().c_str(), found->get_string().size());
  if (text.find('\0') != std::string::npos) return Errorf("\"%s\" has a zero byte", name);
  return text;
}

Result<std::vector<std::string>> StringsOf(const json::object& object, const char* name,
                                           size_t limit) {
  std::vector<std::string> strings;
  const json::value* found = object.if_contains(name);
  if (found == nullptr || found->is_null()) return strings;
  if (!found->is_array()) return Errorf("\"%s\" is not a list", name);
  if (found->get_array().size() > limit) {
    return Errorf("\"%s\" has %zu items, at most %zu are possible", name, found->get_array().size(),
                  limit);
  }
  for (const json::value& each : found->get_array()) {
    if (!each.is_string()) return Errorf("\"%s\" is not a list of strings", name);
    strings.emplace_back(each.get_string().c_str(), each.get_string().size());
    if (strings.back().find('\0') != std::string::npos) {
      return Errorf("\"%s\" has a zero byte", name);
    }
  }
  return strings;
}

Result<ImageConfig> ImageConfig::Parse(std::string_view text) {
  CUBE_ASSIGN(json::object object, ParseObject(text));
  CUBE_ASSIGN(std::string system, StringOf(object, "os"));
  CUBE_ASSIGN(std::string machine, StringOf(object, "architecture"));
  if (system != "linux" || machine != "amd64") {
    return Errorf("an image for %.40s/%.40s, not for linux/amd64", system.c_str(), machine.c_str());
  }
  ImageConfig config;
  const json::value* rootfs = object.if_contains("rootfs");
  if (rootfs != nullptr && rootfs->is_object()) {
    CUBE_ASSIGN(config.diff_ids, StringsOf(rootfs->get_object(), "diff_ids", kMaxLayers));
  }
  const json::value* found = object.if_contains("config");
  if (found == nullptr || found->is_null()) return config;
  if (!found->is_object()) return Errorf("\"config\" is not an object");
  const json::object& inner = found->get_object();
  snapshot::Defaults& defaults = config.defaults;
  constexpr size_t kMax = snapshot::Defaults::kMaxStrings;
  CUBE_ASSIGN(defaults.environment, StringsOf(inner, "Env", kMax));
  CUBE_ASSIGN(defaults.directory, StringOf(inner, "WorkingDir"));
  CUBE_ASSIGN(defaults.user, StringOf(inner, "User"));
  CUBE_ASSIGN(defaults.entrypoint, StringsOf(inner, "Entrypoint", kMax));
  CUBE_ASSIGN(defaults.command, StringsOf(inner, "Cmd", kMax));
  CUBE_TRY(defaults.Check());
  return config;
}

}  // namespace cube::templates
