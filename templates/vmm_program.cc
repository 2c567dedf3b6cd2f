#include "templates/vmm_program.h"

#include "templates/child_run.h"
#include "templates/image_config.h"

namespace cube::templates {
namespace {

void AddEach(const char* option, const std::vector<std::string>& values,
             std::vector<std::string>* words) {
  for (const std::string& value : values) words->push_back(std::string(option) + "=" + value);
}

}  // namespace

Result<int> VmmProgram::Run(const BaseDisk& disk, const std::string& overlay,
                            const GuestProgram& program,
                            const std::function<void(std::string_view)>& output) const {
  ChildRun run;
  std::vector<std::string>& words = run.arguments;
  words = {path,
           "run",
           "--boot",
           "--rootfs",
           disk.RootfsOption() + ":overlay=" + overlay,
           "--timeout",
           std::to_string(kStepSeconds)};
  words.insert(words.end(), machine.begin(), machine.end());
  if (!append.empty()) AddEach("--append", {append}, &words);
  AddEach("--env", program.environment, &words);
  if (!program.directory.empty()) AddEach("--workdir", {program.directory}, &words);
  words.push_back("--");
  words.insert(words.end(), program.arguments.begin(), program.arguments.end());
  run.output = output;
  run.input = program.input;
  return run.Run();
}

Result<std::string> VmmProgram::Freeze(const std::string& name, const BaseDisk& disk, bool warm_up,
                                       const std::string& console) const {
  ChildRun run;
  std::vector<std::string>& words = run.arguments;
  words = {path,       "template",          "build",     name,   "--json",
           "--rootfs", disk.RootfsOption(), "--console", console};
  words.insert(words.end(), machine.begin(), machine.end());
  words.insert(words.end(), template_only.begin(), template_only.end());
  std::string more = append;
  if (warm_up) more += (more.empty() ? "" : " ") + std::string("cube_warmup=1");
  if (!more.empty()) AddEach("--append", {more}, &words);
  const snapshot::Defaults& defaults = disk.defaults;
  AddEach("--env", defaults.environment, &words);
  if (!defaults.directory.empty()) AddEach("--workdir", {defaults.directory}, &words);
  if (!defaults.user.empty()) AddEach("--user", {defaults.user}, &words);
  AddEach("--entrypoint", defaults.entrypoint, &words);
  if (!defaults.command.empty()) {
    words.push_back("--");
    words.insert(words.end(), defaults.command.begin(), defaults.command.end());
  }
  std::string answer;
  LastLines errors;
  run.output = [&](std::string_view text) { answer += text; };
  run.errors = [&](std::string_view text) { errors.Add(text); };
  CUBE_ASSIGN(int status, run.Run());
  while (!answer.empty() && answer.back() == '\n') answer.pop_back();
  if (status == 0) return answer;
  auto object = ParseObject(answer);
  if (object.ok()) {
    auto error = StringOf(*object, "error");
    if (error.ok() && !error->empty()) return Error(*error);
  }
  return Errorf("%s ended with status %d: %s", path.c_str(), status, errors.text().c_str());
}

}  // namespace cube::templates
