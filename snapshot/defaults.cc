#include "snapshot/defaults.h"

#include <algorithm>
#include <string_view>

namespace cube::snapshot {
namespace {

std::string_view NameOf(std::string_view variable) {
  return variable.substr(0, variable.find('='));
}

void WriteStrings(const char* name, const std::vector<std::string>& strings, JsonWriter* json) {
  json->Key(name).BeginArray();
  for (const std::string& text : strings) json->String(text);
  json->EndArray();
}

}  // namespace

Status Defaults::Check() const {
  size_t bytes = user.size() + directory.size();
  for (const std::string& variable : environment) {
    bytes += variable.size() + 1;
    size_t equals = variable.find('=');
    if (equals == 0 || equals == std::string::npos) {
      return Errorf("variable \"%.64s\" is not NAME=VALUE", variable.c_str());
    }
  }
  if (bytes > kMaxEnvironment) {
    return Errorf(
        "a template's environment, user and working directory of %zu bytes, at most %zu can be "
        "handed "
        "to its clones",
        bytes, kMaxEnvironment);
  }
  for (const auto* strings : {&environment, &entrypoint, &command}) {
    if (strings->size() > kMaxStrings) {
      return Errorf("%zu variables or arguments of a template, at most %zu are possible",
                    strings->size(), kMaxStrings);
    }
    for (const std::string& text : *strings) {
      if (text.find('\0') != std::string::npos) return Errorf("a zero byte in a default");
    }
  }
  if (!directory.empty() && directory[0] != '/') {
    return Errorf("working directory \"%s\" does not begin with a '/'", directory.c_str());
  }
  return OkStatus();
}

void Defaults::Write(JsonWriter* json) const {
  json->BeginObject();
  WriteStrings("environment", environment, json);
  json->Key("directory").String(directory).Key("user").String(user);
  WriteStrings("entrypoint", entrypoint, json);
  WriteStrings("command", command, json);
  json->EndObject();
}

Result<Defaults> Defaults::Read(const JsonFields& fields) {
  Defaults defaults;
  CUBE_ASSIGN(defaults.environment, fields.Strings("environment", kMaxStrings));
  CUBE_ASSIGN(defaults.directory, fields.String("directory"));
  CUBE_ASSIGN(defaults.user, fields.String("user"));
  CUBE_ASSIGN(defaults.entrypoint, fields.Strings("entrypoint", kMaxStrings));
  CUBE_ASSIGN(defaults.command, fields.Strings("command", kMaxStrings));
  CUBE_TRY(defaults.Check());
  return defaults;
}

void AddMissingVariables(const std::vector<std::string>& others,
                         std::vector<std::string>* environment) {
  for (const std::string& variable : others) {
    bool there = std::any_of(environment->begin(), environment->end(), [&](const std::string& one) {
      return NameOf(one) == NameOf(variable);
    });
    if (!there) environment->push_back(variable);
  }
}

}  // namespace cube::snapshot
