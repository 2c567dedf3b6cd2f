#include "guestkernel/agent/interpreter/language.h"

#include <algorithm>

#include "base/json_writer.h"

namespace cube::agent::interpreter {
namespace {

struct Name {
  std::string_view name;
  Language language;
};

// The first name of a language is its own.
constexpr Name kNames[] = {
    {"python", Language::kPython},
    {"py", Language::kPython},
    {"javascript", Language::kJavaScript},
    {"js", Language::kJavaScript},
    {"typescript", Language::kTypeScript},
    {"ts", Language::kTypeScript},
    {"bash", Language::kBash},
    {"sh", Language::kBash},
};

void WriteVariables(JsonWriter* writer, const Variables& variables) {
  writer->BeginObject();
  for (const auto& [name, value] : variables) writer->Key(name).String(value);
  writer->EndObject();
}

// A word of Bash that stands for `text`. A NUL, which no word can hold, is left out.
std::string Quote(std::string_view text) {
  std::string word = "'";
  for (char c : text) {
    if (c == '\'') {
      word += "'\\''";
    } else if (c != '\0') {
      word += c;
    }
  }
  return word + "'";
}

bool IsShellName(std::string_view name) {
  auto is_word = [](char c) {
    return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  return !name.empty() && !(name[0] >= '0' && name[0] <= '9') &&
         std::all_of(name.begin(), name.end(), is_word);
}

void AppendAssignments(std::string* script, const char* command, const Variables& variables) {
  for (const auto& [name, value] : variables) {
    if (IsShellName(name)) *script += command + name + " " + Quote(value) + "\n";
  }
}

}  // namespace

std::optional<Language> ParseLanguage(std::string_view name) {
  for (const Name& each : kNames) {
    if (each.name == name) return each.language;
  }
  return std::nullopt;
}

std::string_view LanguageName(Language language) {
  for (const Name& each : kNames) {
    if (each.language == language) return each.name;
  }
  __builtin_unreachable();
}

std::string ExecuteRequest(Language language, std::string_view code, const Variables& variables) {
  if (language == Language::kBash) {
    std::string script;
    AppendAssignments(&script, "__cube_set ", variables);
    script += "__cube_begin\n{ eval " + Quote(code) + "; } </dev/null 3>&-; __cube_status=$?\n";
    return script + "__cube_end\n";
  }
  JsonWriter writer;
  writer.BeginObject().Key("type").String("execute").Key("code").String(code).Key("env_vars");
  WriteVariables(&writer, variables);
  writer.EndObject();
  return writer.text() + "\n";
}

std::string IdentityRequest(Language language, const Variables& environment, uint32_t seed) {
  if (language == Language::kBash) {
    std::string script = "__cube_identity " + std::to_string(seed) + "\n";
    AppendAssignments(&script, "__cube_global ", environment);
    return script;
  }
  JsonWriter writer;
  writer.BeginObject().Key("type").String("identity").Key("environment");
  WriteVariables(&writer, environment);
  writer.EndObject();
  return writer.text() + "\n";
}

}  // namespace cube::agent::interpreter
