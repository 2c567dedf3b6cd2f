#include "pool/client_tools.h"

#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "pool/client_connection.h"
#include "pool/client_copy.h"

namespace cube::pool {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

std::string TextOf(const json::object& object, const char* name) {
  const json::value* value = object.if_contains(name);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : "";
}

// Beside this program, or where the build has it, or in $PATH.
std::string VmmProgram() {
  std::error_code failed;
  fs::path here = fs::read_symlink("/proc/self/exe", failed).parent_path();
  for (const fs::path& place : {here / "cube-vmm", here.parent_path() / "vmm/cli/cube-vmm"}) {
    if (!failed && access(place.c_str(), X_OK) == 0) return place;
  }
  return "cube-vmm";
}

}  // namespace

void AddSandboxTools(CLI::App* group, ToolWords* words) {
  CLI::App* exec = group->add_subcommand("exec", "Run a command in one: exec ID -- COMMAND...");
  exec->add_flag("-t,--tty", words->exec.terminal, "on a terminal, which is this one");
  exec->add_flag("-i,--stdin", words->input, "with this stdin; it has that in any case");
  exec->add_option("-u,--user", words->user, "of the guest");
  exec->add_option("-w,--workdir", words->exec.folder, "the folder it begins in");
  exec->add_option("-e,--env", words->exec.environment, "NAME=VALUE")->allow_extra_args(false);
  exec->add_option("id", words->id, "the sandbox's id")->required();
  exec->add_option("command", words->exec.command, "and its arguments")->required();
  CLI::App* copy = group->add_subcommand("cp", "Copy files and folders to or from one");
  copy->add_option("-u,--user", words->user, "of the guest");
  copy->add_option("from", words->from, "ID:PATH, or a path")->required();
  copy->add_option("to", words->to, "a path, or ID:PATH")->required();
}

CLI::App* AddTemplateTools(CLI::App* group, ToolWords* words) {
  CLI::App* build = group->add_subcommand(
      "build", "Make one: build NAME, with the options of cube-vmm template build");
  build->add_option("--vmm", words->vmm, "the program cube-vmm");
  build->prefix_command();
  group->add_subcommand("rm", "Delete one that nothing is made of")
      ->add_option("id", words->template_name, "the template's name")
      ->required();
  return build;
}

Result<GuestAccess> AccessTo(const std::string& socket, const std::string& id) {
  CUBE_ASSIGN(ClientConnection connection, ClientConnection::Open(socket));
  json::object request = {{"op", "sandbox.access"}, {"id", id}};
  CUBE_ASSIGN(std::string answer, connection.Ask(json::serialize(request)));
  CUBE_ASSIGN(json::object access, Understand(answer));
  return GuestAccess{TextOf(access, "vsock"), TextOf(access, "token"), ""};
}

Result<int> ExecTool(const std::string& socket, const ToolWords& words) {
  CUBE_ASSIGN(GuestAccess access, AccessTo(socket, words.id));
  access.user = words.user;
  return ExecInGuest(access, words.exec);
}

Result<int> CopyTool(const std::string& socket, const ToolWords& words, bool as_json) {
  CopyEnd from = CopyEnd::Parse(words.from), to = CopyEnd::Parse(words.to);
  if (from.sandbox.empty() == to.sandbox.empty()) {
    return Errorf("one of \"%.200s\" and \"%.200s\" has to be a sandbox's, ID:PATH",
                  words.from.c_str(), words.to.c_str());
  }
  CUBE_ASSIGN(GuestAccess access, AccessTo(socket, from.sandbox + to.sandbox));
  access.user = words.user;
  Copied copied;
  if (from.sandbox.empty()) {
    CUBE_ASSIGN(copied, CopyToGuest(access, from.path, to.path));
  } else {
    CUBE_ASSIGN(copied, CopyFromGuest(access, from.path, to.path));
  }
  if (as_json) {
    json::object answer = {{"ok", true},
                           {"files", copied.files},
                           {"folders", copied.folders},
                           {"bytes", copied.bytes},
                           {"left_out", copied.left_out}};
    printf("%s\n", json::serialize(answer).c_str());
  }
  return 0;
}

Error BecomeBuild(const std::string& home, const ToolWords& words,
                  const std::vector<std::string>& arguments) {
  std::string program = words.vmm.empty() ? VmmProgram() : words.vmm;
  std::vector<std::string> all = {program, "template", "build"};
  // Without it nobody would reach the agents of its clones.
  bool has_vsock = std::any_of(arguments.begin(), arguments.end(),
                               [](const std::string& word) { return word.starts_with("--vsock"); });
  std::error_code failed;
  fs::create_directories(home + "/run", failed);
  if (!has_vsock) all.push_back(Format("--vsock=%s/run/template-%d.vsock", home.c_str(), getpid()));
  all.insert(all.end(), arguments.begin(), arguments.end());
  std::vector<char*> pointers;
  for (std::string& word : all) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  setenv("CUBE_HOME", home.c_str(), 1);
  execvp(program.c_str(), pointers.data());
  return ErrnoError("cannot start %s", program.c_str());
}

}  // namespace cube::pool
