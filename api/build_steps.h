#ifndef CUBE_API_BUILD_STEPS_H_
#define CUBE_API_BUILD_STEPS_H_

#include <optional>
#include <string>
#include <vector>

#include "pool/outcome.h"

namespace cube::api {

// A step of a template as the SDK says it.
struct TemplateStep {
  std::string type;  // RUN, COPY, WORKDIR, USER, ENV
  std::vector<std::string> args;
  std::string files_hash;  // COPY: the archive of its files
};

// What a client wants built.
struct BuildPlan {
  std::string from;  // a template's folder or an image's name on the node, without a '/'
  std::string user = "user", workdir = "/home/user";  // where the steps begin
  std::vector<TemplateStep> steps;
  std::string start_command, ready_command;
};

// A file of steps (docs/templates.md) that does the same.
struct StepsFile {
  std::string text;
  // For each instruction of it the step that it is of: "base", "1", "2", ..., "finalize".
  std::vector<std::string> step_of;
};

// The files of a COPY are in a folder of the context that has its archive's hash as its name. What
// cannot be said in a file of steps is kInvalid.
pool::Outcome<StepsFile> WriteSteps(const BuildPlan& plan);

// 64 lower-case hexadecimal digits, as which archives are named.
bool IsFilesHash(const std::string& text);

}  // namespace cube::api

#endif  // CUBE_API_BUILD_STEPS_H_
