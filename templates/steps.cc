#include "templates/steps.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cctype>
#include <charconv>
#include <optional>

#include "templates/image_config.h"

namespace cube::templates {
namespace {

struct Name {
  const char* text;
  StepKind kind;
};
constexpr Name kNames[] = {{"FROM", StepKind::kFrom},
                           {"RUN", StepKind::kRun},
                           {"COPY", StepKind::kCopy},
                           {"ENV", StepKind::kEnv},
                           {"WORKDIR", StepKind::kWorkdir},
                           {"USER", StepKind::kUser},
                           {"ENTRYPOINT", StepKind::kEntrypoint},
                           {"CMD", StepKind::kCmd},
                           {"START", StepKind::kStart},
                           {"READY", StepKind::kReady}};

constexpr uint32_t kMaxReadySeconds = 3600;

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\r'; }

std::string_view Trim(std::string_view text) {
  while (!text.empty() && IsSpace(text.front())) text.remove_prefix(1);
  while (!text.empty() && IsSpace(text.back())) text.remove_suffix(1);
  return text;
}

// An instruction of several lines as one, without the comments between them.
struct Line {
  uint32_t number;
  std::string text;
};

std::vector<Line> JoinLines(std::string_view text) {
  std::vector<Line> lines;
  bool open = false;  // the last one goes on
  uint32_t number = 0;
  while (!text.empty()) {
    size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = Trim(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    if (line.empty() || line[0] == '#') continue;
    bool goes_on = line.back() == '\\';
    if (goes_on) line = Trim(line.substr(0, line.size() - 1));
    if (!open) lines.push_back({number, ""});
    std::string& joined = lines.back().text;
    if (!joined.empty()) joined += ' ';
    joined += line;
    open = goes_on;
  }
  return lines;
}

// Splits at spaces, but not in quotes, which are taken away; a backslash takes the next character
// as it is, except before a '$', where both stay for ExpandVariables().
Result<std::vector<std::string>> SplitWords(std::string_view text) {
  std::vector<std::string> words;
  std::optional<std::string> word;
  char quote = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (quote == 0 && IsSpace(c)) {
      if (word) words.push_back(std::move(*word));
      word.reset();
      continue;
    }
    if (!word) word.emplace();
    if (c == '\\' && quote != '\'' && i + 1 < text.size()) {
      char next = text[++i];
      if (next == '$') *word += c;
      *word += next;
    } else if (quote != 0 && c == quote) {
      quote = 0;
    } else if (quote == 0 && (c == '"' || c == '\'')) {
      quote = c;
    } else if (quote == '\'' && c == '$') {
      *word += "\\$";
    } else {
      *word += c;
    }
  }
  if (quote != 0) return Errorf("a quote (%c) has no end", quote);
  if (word) words.push_back(std::move(*word));
  return words;
}

// A program in the form ["PROGRAM", "ARGUMENT", ...], or as a command of the shell.
Result<std::vector<std::string>> ParseProgram(std::string_view rest) {
  if (rest.starts_with("<<")) return Errorf("here-documents are not possible");
  if (rest.empty()) return Errorf("a command is missing");
  if (rest[0] == '[') {
    auto array = ParseArray(rest);
    if (array.ok()) {
      boost::json::object holder;
      holder["words"] = std::move(*array);
      CUBE_ASSIGN(std::vector<std::string> words, StringsOf(holder, "words", 1000));
      if (words.empty() || words[0].empty()) return Errorf("a program is missing");
      return words;
    }
  }
  return std::vector<std::string>{"/bin/sh", "-c", std::string(rest)};
}

bool IsVariableName(std::string_view name) {
  if (name.empty() || (std::isdigit(static_cast<unsigned char>(name[0])) != 0)) return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_';
  });
}

Status ParseEnv(std::string_view rest, Step* step) {
  CUBE_ASSIGN(std::vector<std::string> words, SplitWords(rest));
  if (words.empty()) return Errorf("ENV NAME=VALUE");
  if (words[0].find('=') == std::string::npos) {
    // The older form: everything behind the name is the value.
    std::string_view value = Trim(rest.substr(std::min(rest.find_first_of(" \t"), rest.size())));
    if (value.empty()) return Errorf("ENV %.64s has no value", words[0].c_str());
    words = {words[0] + "=" + std::string(value)};
  }
  for (const std::string& word : words) {
    size_t equals = word.find('=');
    if (equals == std::string::npos || !IsVariableName(word.substr(0, equals))) {
      return Errorf("\"%.64s\" is not NAME=VALUE", word.c_str());
    }
    step->words.push_back(word.substr(0, equals));
    step->words.push_back(word.substr(equals + 1));
  }
  return OkStatus();
}

// Takes "--NAME=VALUE" words off the front of `rest`.
Status TakeOptions(std::string_view* rest, Step* step) {
  while (rest->starts_with("--")) {
    size_t end = std::min(rest->find_first_of(" \t"), rest->size());
    std::string option(rest->substr(0, end));
    *rest = Trim(rest->substr(end));
    size_t equals = option.find('=');
    std::string name = option.substr(0, equals);
    std::string value = equals == std::string::npos ? "" : option.substr(equals + 1);
    bool octal = !value.empty() && value.size() <= 4 &&
                 value.find_first_not_of("01234567") == std::string::npos;
    if (step->kind == StepKind::kCopy && name == "--chown" && !value.empty()) {
      step->chown = value;
    } else if (step->kind == StepKind::kCopy && name == "--chmod" && octal) {
      step->chmod = value;
    } else if (step->kind == StepKind::kReady && name == "--timeout") {
      auto [at, error] = std::from_chars(value.data(), value.data() + value.size(), step->seconds);
      if (error != std::errc() || at != value.data() + value.size() || step->seconds < 1 ||
          step->seconds > kMaxReadySeconds) {
        return Errorf("--timeout=%.20s is not a number of seconds from 1 to %u", value.c_str(),
                      kMaxReadySeconds);
      }
    } else {
      return Errorf("the option \"%.64s\" is not possible here", option.c_str());
    }
  }
  return OkStatus();
}

Status ParseCopy(std::string_view rest, Step* step) {
  if (rest.starts_with('[')) {
    CUBE_ASSIGN(step->words, ParseProgram(rest));
    if (step->words[0] == "/bin/sh") return Errorf("COPY [\"SOURCE\", ..., \"DESTINATION\"]");
  } else {
    CUBE_ASSIGN(step->words, SplitWords(rest));
  }
  if (step->words.size() < 2) return Errorf("COPY SOURCE... DESTINATION");
  return OkStatus();
}

Status ParseRest(std::string_view rest, Step* step) {
  CUBE_TRY(TakeOptions(&rest, step));
  switch (step->kind) {
    case StepKind::kEnv:
      return ParseEnv(rest, step);
    case StepKind::kCopy:
      return ParseCopy(rest, step);
    case StepKind::kFrom:
    case StepKind::kWorkdir:
    case StepKind::kUser: {
      CUBE_ASSIGN(step->words, SplitWords(rest));
      if (step->words.size() != 1 || step->words[0].empty()) return Errorf("one word is needed");
      return OkStatus();
    }
    default: {
      CUBE_ASSIGN(step->words, ParseProgram(rest));
      return OkStatus();
    }
  }
}

Result<Step> ParseStep(const Line& line) {
  Step step = {};
  step.line = line.number;
  step.text = line.text;
  step.seconds = 60;
  std::string_view rest = line.text;
  size_t end = std::min(rest.find_first_of(" \t"), rest.size());
  std::string word(rest.substr(0, end));
  for (char& c : word) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  const Name* name = std::find_if(std::begin(kNames), std::end(kNames),
                                  [&](const Name& each) { return word == each.text; });
  if (name == std::end(kNames)) {
    return Errorf(
        "\"%.32s\" is not one of FROM, RUN, COPY, ENV, WORKDIR, USER, ENTRYPOINT, CMD, "
        "START, READY",
        word.c_str());
  }
  step.kind = name->kind;
  Status parsed = ParseRest(Trim(rest.substr(end)), &step);
  if (!parsed.ok()) return Error(parsed.error()).Wrap(name->text);
  return step;
}

Status CheckOrder(const std::vector<Step>& steps) {
  auto count = [&](StepKind kind) {
    return std::count_if(steps.begin(), steps.end(),
                         [&](const Step& step) { return step.kind == kind; });
  };
  if (steps.empty() || steps[0].kind != StepKind::kFrom) {
    return Errorf("the first step is not FROM");
  }
  if (count(StepKind::kFrom) > 1) return Errorf("there is more than one FROM");
  if (count(StepKind::kStart) > 1) return Errorf("there is more than one START");
  if (count(StepKind::kReady) > 1) return Errorf("there is more than one READY");
  if (count(StepKind::kReady) > count(StepKind::kStart)) return Errorf("READY without START");
  return OkStatus();
}

}  // namespace

Result<StepList> StepList::Parse(std::string_view text) {
  if (text.size() > kMaxSize) {
    return Errorf("%zu bytes of steps, at most %zu are possible", text.size(), kMaxSize);
  }
  if (text.find('\0') != std::string_view::npos) return Errorf("a zero byte");
  StepList list;
  for (const Line& line : JoinLines(text)) {
    if (list.steps.size() == kMaxSteps) return Errorf("more than %zu steps", kMaxSteps);
    auto step = ParseStep(line);
    if (!step.ok()) return Error(step.error()).Wrap(Format("line %u", line.number));
    list.steps.push_back(std::move(*step));
  }
  CUBE_TRY(CheckOrder(list.steps));
  return list;
}

Result<std::string> ExpandVariables(std::string_view text,
                                    const std::vector<std::string>& environment) {
  std::string out;
  auto value = [&](std::string_view name) -> std::string {
    for (const std::string& variable : environment) {
      if (variable.size() > name.size() && variable[name.size()] == '=' &&
          variable.starts_with(name)) {
        return variable.substr(name.size() + 1);
      }
    }
    return "";
  };
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size() && text[i + 1] == '$') {
      out += text[++i];
    } else if (text[i] != '$') {
      out += text[i];
    } else if (i + 1 < text.size() && text[i + 1] == '{') {
      size_t end = text.find('}', i);
      std::string_view name = text.substr(i + 2, end == text.npos ? 0 : end - i - 2);
      if (!IsVariableName(name)) {
        return Errorf("\"%.64s\" has a ${ that is not ${NAME}", std::string(text).c_str());
      }
      out += value(name);
      i = end;
    } else {
      size_t end = i + 1;
      while (end < text.size() && IsVariableName(text.substr(i + 1, end - i))) ++end;
      if (end == i + 1) {
        out += '$';
        continue;
      }
      out += value(text.substr(i + 1, end - i - 1));
      i = end - 1;
    }
    if (out.size() > StepList::kMaxSize) return Errorf("variables make a text too long");
  }
  return out;
}

}  // namespace cube::templates
