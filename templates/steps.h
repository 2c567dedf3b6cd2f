#ifndef CUBE_TEMPLATES_STEPS_H_
#define CUBE_TEMPLATES_STEPS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace cube::templates {

enum class StepKind {
  kFrom,
  kRun,
  kCopy,
  kEnv,
  kWorkdir,
  kUser,
  kEntrypoint,
  kCmd,
  kStart,
  kReady
};

// One instruction of a file of steps.
struct Step {
  StepKind kind;
  uint32_t line;     // where it begins, from 1
  std::string text;  // as it stands in the file, in one line
  // kFrom, kWorkdir, kUser: one word. kRun, kStart, kReady, kEntrypoint, kCmd: the program and its
  // arguments. kCopy: sources, then the destination. kEnv: NAME, VALUE, NAME, VALUE, ...
  std::vector<std::string> words;
  std::string chown;      // kCopy: USER[:GROUP]
  std::string chmod;      // kCopy: octal
  uint32_t seconds = 60;  // kReady
};

// A file of steps: instructions as in a Dockerfile, one a line (docs/templates.md). Words are as
// they stand; variables in them are put in by ExpandVariables() once their values are known.
struct StepList {
  static constexpr size_t kMaxSize = 1 << 20;
  static constexpr size_t kMaxSteps = 256;

  // `text` may be anything. Errors begin with the line.
  static Result<StepList> Parse(std::string_view text);

  std::vector<Step> steps;  // the first, and no other, is a kFrom; at most one kStart and kReady
};

// `text` with $NAME and ${NAME} as `environment` (NAME=value) has them, "" for those that it does
// not have; \$ is a '$'.
Result<std::string> ExpandVariables(std::string_view text,
                                    const std::vector<std::string>& environment);

}  // namespace cube::templates

#endif  // CUBE_TEMPLATES_STEPS_H_
