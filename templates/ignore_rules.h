#ifndef CUBE_TEMPLATES_IGNORE_RULES_H_
#define CUBE_TEMPLATES_IGNORE_RULES_H_

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace cube::templates {

// Whether the components of `path` are those of `pattern`: '*', '?' and [...] within one, "**" for
// any number of them.
bool MatchesPath(std::string_view pattern, std::string_view path);

// A .dockerignore: what COPY does not see. The last pattern that matches a path, or a folder above
// it, counts; one that begins with '!' lets it through again.
class IgnoreRules {
 public:
  static constexpr size_t kMaxSize = 1 << 20;
  static constexpr size_t kMaxRules = 1000;

  IgnoreRules() = default;
  // `text` may be anything.
  static Result<IgnoreRules> Parse(std::string_view text);

  bool Ignores(std::string_view path) const;
  // True if nothing that lies in an ignored folder can be let through.
  bool final() const { return !exceptions_; }

 private:
  struct Rule {
    std::string pattern;
    bool exception;
  };
  std::vector<Rule> rules_;
  bool exceptions_ = false;
};

}  // namespace cube::templates

#endif  // CUBE_TEMPLATES_IGNORE_RULES_H_
