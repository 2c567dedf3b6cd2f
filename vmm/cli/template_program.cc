#include "vmm/cli/template_program.h"

#include <unistd.h>

#include <filesystem>
#include <vector>

#include "vmm/cli/command_answer.h"
#include "vmm/cli/cube_home.h"
#include "vmm/cli/template_folder.h"

namespace cube::vmm {
namespace {

namespace fs = std::filesystem;

class Words {
 public:
  explicit Words(std::vector<std::string> first) : words_(std::move(first)) {}

  void Add(const char* option, const std::string& value) {
    if (!value.empty()) words_.push_back(std::string(option) + "=" + value);
  }
  void Add(const char* option, const std::vector<std::string>& values) {
    for (const std::string& value : values) Add(option, value);
  }
  void Flag(const char* option, bool set) {
    if (set) words_.push_back(option);
  }
  void Rest(const std::vector<std::string>& values) {
    if (values.empty()) return;
    words_.push_back("--");
    words_.insert(words_.end(), values.begin(), values.end());
  }

  // For execv(2), which changes none of them.
  std::vector<char*> pointers() {
    std::vector<char*> pointers;
    for (std::string& word : words_) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    return pointers;
  }

 private:
  std::vector<std::string> words_;
};

}  // namespace

int RunTemplateProgram(const std::string& name, const TemplateSource& source, const RunOptions& run,
                       const std::string& rootfs, bool has_initrd, bool json) {
  if (!rootfs.empty())
    return AnswerError(Errorf("--rootfs goes with neither --image nor --steps"), json);
  Status status = CheckTemplateName(name);
  std::error_code failed;
  if (status.ok() && fs::exists(fs::symlink_status(TemplatesFolder() + "/" + name, failed))) {
    status = Errorf("there is a template \"%s\" already", name.c_str());
  }
  if (!status.ok()) return AnswerError(status.error(), json);
  fs::path self = fs::read_symlink("/proc/self/exe", failed);
  if (failed) return AnswerError(Errorf("/proc/self/exe: %s", failed.message().c_str()), json);
  fs::path program = self.parent_path() / "cube-template";
  if (!fs::exists(program, failed)) {
    program = self.parent_path() / "../../templates/cube-template";
  }
  Words words({program.string(), "--vmm", self.string(), "--home", CubeHome(), "--name", name});
  words.Add("--image", source.image);
  words.Add("--image-name", source.image_name);
  words.Add("--steps", source.steps);
  words.Add("--context", source.context);
  words.Add("--disk-size", source.disk_size);
  words.Add("--env", run.defaults.environment);
  words.Add("--workdir", run.defaults.directory);
  words.Add("--user", run.defaults.user);
  words.Add("--entrypoint", run.defaults.entrypoint);
  words.Flag("--json", json);
  words.Add("--kernel", run.kernel);
  if (has_initrd) words.Add("--initrd", run.initrd);
  words.Add("--memory", std::to_string(run.memory_mib));
  words.Add("--cpus", std::to_string(run.cpus));
  words.Add("--append", run.append);
  words.Add("--ring0", run.ring0);
  words.Add("--kvm", run.kvm);
  words.Add("--net", run.devices.net);
  words.Add("--vsock", run.devices.vsock.value_or(""));
  words.Add("--disk", run.devices.disks);
  words.Add("--share", run.devices.shares);
  words.Add("--volumes", std::to_string(run.devices.volumes));
  if (run.devices.balloon_mib != 0) words.Add("--balloon", std::to_string(run.devices.balloon_mib));
  if (run.timeout > 0) words.Add("--timeout", Format("%g", run.timeout));
  words.Rest(run.defaults.command);
  execv(program.c_str(), words.pointers().data());
  return AnswerError(ErrnoError("cannot run %s", program.c_str()), json);
}

}  // namespace cube::vmm
