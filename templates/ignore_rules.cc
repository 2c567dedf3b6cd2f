#include "templates/ignore_rules.h"

#include <fnmatch.h>

#include <algorithm>

#include "templates/tree.h"

namespace cube::templates {
namespace {

std::vector<std::string> Components(std::string_view path) {
  std::vector<std::string> parts;
  while (!path.empty()) {
    size_t end = std::min(path.find('/'), path.size());
    if (end > 0) parts.emplace_back(path.substr(0, end));
    path.remove_prefix(std::min(end + 1, path.size()));
  }
  return parts;
}

}  // namespace

bool MatchesPath(std::string_view pattern, std::string_view path) {
  const std::vector<std::string> patterns = Components(pattern);
  const std::vector<std::string> parts = Components(path);
  // reached[i]: what of the pattern has been looked at matches the first i parts. Step by step, so
  // that many "**" cost no more than their number.
  std::vector<bool> reached(parts.size() + 1, false);
  reached[0] = true;
  for (size_t at = 0; at < patterns.size(); ++at) {
    const std::string& each = patterns[at];
    std::vector<bool> next(parts.size() + 1, false);
    if (each == "**" && at + 1 == patterns.size()) {
      // At the end it is what lies in a folder, not the folder.
      bool any = false;
      for (size_t i = 0; i < parts.size(); ++i) next[i + 1] = any = any || reached[i];
    } else if (each == "**") {
      bool any = false;
      for (size_t i = 0; i <= parts.size(); ++i) next[i] = any = any || reached[i];
    } else {
      for (size_t i = 0; i < parts.size(); ++i) {
        next[i + 1] = reached[i] && fnmatch(each.c_str(), parts[i].c_str(), 0) == 0;
      }
    }
    reached = std::move(next);
  }
  return reached.back();
}

Result<IgnoreRules> IgnoreRules::Parse(std::string_view text) {
  if (text.size() > kMaxSize) {
    return Errorf("%zu bytes of patterns, at most %zu are possible", text.size(), kMaxSize);
  }
  IgnoreRules rules;
  while (!text.empty()) {
    size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    constexpr std::string_view kSpace = " \t\r";
    line.remove_prefix(std::min(line.find_first_not_of(kSpace), line.size()));
    line.remove_suffix(line.size() - std::min(line.find_last_not_of(kSpace) + 1, line.size()));
    if (line.empty() || line[0] == '#') continue;
    Rule rule;
    rule.exception = line[0] == '!';
    if (rule.exception) line.remove_prefix(1);
    CUBE_ASSIGN(rule.pattern, Tree::Normalize(line));
    if (rule.pattern.empty()) continue;
    if (rules.rules_.size() == kMaxRules) return Errorf("more than %zu patterns", kMaxRules);
    rules.exceptions_ = rules.exceptions_ || rule.exception;
    rules.rules_.push_back(std::move(rule));
  }
  return rules;
}

bool IgnoreRules::Ignores(std::string_view path) const {
  bool ignored = false;
  for (const Rule& rule : rules_) {
    for (size_t end = path.find('/');; end = path.find('/', end + 1)) {
      if (MatchesPath(rule.pattern, path.substr(0, end))) {
        ignored = !rule.exception;
        break;
      }
      if (end == std::string_view::npos) break;
    }
  }
  return ignored;
}

}  // namespace cube::templates
