#ifndef CUBE_GUESTKERNEL_AGENT_INTERPRETER_LANGUAGE_H_
#define CUBE_GUESTKERNEL_AGENT_INTERPRETER_LANGUAGE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cube::agent::interpreter {

enum class Language : uint8_t { kPython, kJavaScript, kTypeScript, kBash };

// By name, or by one of the short names js, ts, py and sh; nothing if it is none of these.
std::optional<Language> ParseLanguage(std::string_view name);
std::string_view LanguageName(Language language);

// Variables of an environment, later ones before earlier ones.
using Variables = std::vector<std::pair<std::string, std::string>>;

// What a worker of a language is told (guestkernel/interpreter/README.md). Bytes that are not UTF-8
// are replaced.
//
// To run `code` with `variables` set meanwhile. A variable whose name is none to a shell is left
// out for Bash.
std::string ExecuteRequest(Language language, std::string_view code, const Variables& variables);
// That it may be a copy of another process, and what variables all executions have from now on.
// `seed` is a random number.
std::string IdentityRequest(Language language, const Variables& environment, uint32_t seed);

}  // namespace cube::agent::interpreter

#endif  // CUBE_GUESTKERNEL_AGENT_INTERPRETER_LANGUAGE_H_
