// cube-template: makes root disks of container images and of steps, and templates with them.
// `cube-vmm template build --image|--steps` becomes this program.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <clocale>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <string>

#include "base/byte_io.h"
#include "base/json_writer.h"
#include "templates/base_disk.h"
#include "templates/build_folder.h"
#include "templates/child_run.h"
#include "templates/ext4_image.h"
#include "templates/progress.h"
#include "templates/step_builder.h"
#include "templates/supervisor.h"
#include "templates/vmm_program.h"

namespace cube::templates {
namespace {

constexpr int kFailed = 125;

struct Options {
  std::string home, name, image, image_name, steps, context, disk_size;
  snapshot::Defaults defaults;
  bool json = false;
  VmmProgram vmm;
};

int AnswerError(const Error& error, bool json) {
  if (!json) {
    fprintf(stderr, "cube-template: %s\n", error.message().c_str());
    return kFailed;
  }
  JsonWriter answer;
  answer.BeginObject().Key("ok").Bool(false).Key("error").String(error.message()).EndObject();
  printf("%s\n", answer.text().c_str());
  return kFailed;
}

// What was asked for goes before what the image says.
void Override(const snapshot::Defaults& asked, snapshot::Defaults* defaults) {
  std::vector<std::string> environment = asked.environment;
  snapshot::AddMissingVariables(defaults->environment, &environment);
  defaults->environment = std::move(environment);
  if (!asked.directory.empty()) defaults->directory = asked.directory;
  if (!asked.user.empty()) defaults->user = asked.user;
  if (asked.command.empty() && asked.entrypoint.empty()) return;
  defaults->entrypoint = asked.entrypoint;
  defaults->command = asked.command;
}

Status Freeze(const Options& options, BaseDisk disk, bool warm_up, const BuildFolder& folder,
              Progress* progress) {
  Override(options.defaults, &disk.defaults);
  CUBE_TRY(disk.defaults.Check());
  const std::string console = folder.work() + "/console";
  auto answer = options.vmm.Freeze(options.name, disk, warm_up, console);
  if (!answer.ok()) {
    // What was started, and did not come to be, has said there why.
    auto text = ReadSmallFile(console, 1 << 20);
    LastLines last;
    if (text.ok()) last.Add(*text);
    if (!last.text().empty()) progress->Output(last.text() + "\n");
    return answer.error();
  }
  progress->End(false);
  progress->Note(*answer);
  if (options.json) {
    printf("%s\n", answer->c_str());
  } else {
    printf("%s/templates/%s\n", options.home.c_str(), options.name.c_str());
  }
  return OkStatus();
}

Status BuildFromImage(const Options& options, const BuildFolder& folder, Progress* progress) {
  ImageRequest request = {options.image, options.image_name, 0};
  if (!options.disk_size.empty()) {
    CUBE_ASSIGN(request.size, ParseDiskSize(options.disk_size));
  }
  progress->Begin(1, 2, "image " + options.image);
  bool cached = false;
  CUBE_ASSIGN(BaseDisk disk, MakeImageDisk(request, folder, &cached));
  progress->End(cached);
  progress->Begin(2, 2, "boot and freeze");
  return Freeze(options, std::move(disk), false, folder, progress);
}

Status BuildFromSteps(const Options& options, const BuildFolder& folder, Progress* progress) {
  CUBE_ASSIGN(std::string text, ReadSmallFile(options.steps, StepList::kMaxSize + 1));
  auto list = StepList::Parse(text);
  if (!list.ok()) return Error(list.error()).Wrap(options.steps);
  StepBuilder::Parts parts = {};
  if (!options.disk_size.empty()) {
    CUBE_ASSIGN(parts.disk_size, ParseDiskSize(options.disk_size));
  }
  parts.context_path = options.context;
  if (parts.context_path.empty()) {
    parts.context_path = std::filesystem::absolute(options.steps).parent_path();
  }
  CUBE_ASSIGN(BuildContext context, BuildContext::Open(parts.context_path));
  parts.vmm = &options.vmm;
  parts.folder = &folder;
  parts.context = &context;
  parts.progress = progress;
  parts.home = options.home;
  StepBuilder builder(std::move(parts));
  CUBE_TRY(builder.Run(*list));
  const size_t of = list->steps.size() + 1;
  progress->Begin(of, of, "boot and freeze");
  return Freeze(options, builder.disk(), builder.has_service(), folder, progress);
}

int Work(const Options& options, const BuildFolder& folder) {
  auto progress = Progress::Create(folder.log(), options.json);
  if (!progress.ok()) return AnswerError(progress.error(), options.json);
  Status built = options.steps.empty() ? BuildFromImage(options, folder, &*progress)
                                       : BuildFromSteps(options, folder, &*progress);
  if (built.ok()) return 0;
  progress->Note("failed: " + built.error().message());
  return AnswerError(built.error(), options.json);
}

int Run(const Options& options) {
  // Disks are named in options of cube-vmm, which a colon ends.
  if (options.home.find(':') != std::string::npos) {
    return AnswerError(Errorf("there is a ':' in %s", options.home.c_str()), options.json);
  }
  auto folder = BuildFolder::Open(options.home, options.name);
  if (!folder.ok()) return AnswerError(folder.error(), options.json);
  auto status = Supervise([&] { return Work(options, *folder); });
  folder->Clean();
  return status.ok() ? *status : AnswerError(status.error(), options.json);
}

// Options that are cube-vmm's are handed on as they are.
void AddMachineOptions(CLI::App* app, std::vector<std::string>* words,
                       std::initializer_list<const char*> names) {
  for (const char* name : names) {
    app->add_option_function<std::vector<std::string>>(
           name,
           [words, name](const std::vector<std::string>& values) {
             for (const std::string& value : values) {
               words->push_back(std::string(name) + "=" + value);
             }
           },
           "of cube-vmm")
        ->allow_extra_args(false);
  }
}

}  // namespace
}  // namespace cube::templates

int main(int argc, char** argv) {
  using cube::templates::Options;
  // Names in archives are bytes, most of them UTF-8.
  setlocale(LC_CTYPE, "C.UTF-8");
  Options options;
  CLI::App app{"cube-template: makes templates of container images and of steps", "cube-template"};
  app.add_option("--vmm", options.vmm.path, "the program cube-vmm")->required();
  app.add_option("--home", options.home, "$CUBE_HOME")->required();
  app.add_option("--name", options.name, "the template's")->required();
  app.add_option("--image", options.image, "an OCI layout's folder, or a tar");
  app.add_option("--image-name", options.image_name, "which, of several");
  app.add_option("--steps", options.steps, "a file of steps");
  app.add_option("--context", options.context, "the folder that COPY reads from");
  app.add_option("--disk-size", options.disk_size, "a number with M or G");
  app.add_option("--env", options.defaults.environment, "NAME=VALUE")->allow_extra_args(false);
  app.add_option("--workdir", options.defaults.directory, "of programs in clones");
  app.add_option("--user", options.defaults.user, "USER[:GROUP] of programs in clones");
  app.add_option("--entrypoint", options.defaults.entrypoint, "the template's own program")
      ->allow_extra_args(false);
  app.add_option("command", options.defaults.command, "its arguments");
  app.add_flag("--json", options.json, "an object a line, errors as well");
  app.add_option("--append", options.vmm.append, "of cube-vmm");
  cube::templates::AddMachineOptions(
      &app, &options.vmm.machine,
      {"--kernel", "--initrd", "--memory", "--cpus", "--ring0", "--kvm", "--net"});
  cube::templates::AddMachineOptions(
      &app, &options.vmm.template_only,
      {"--vsock", "--disk", "--share", "--balloon", "--volumes", "--timeout"});
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    std::cerr << "cube-template: " << error.what() << "\n";
    return cube::templates::kFailed;
  }
  return cube::templates::Run(options);
}
