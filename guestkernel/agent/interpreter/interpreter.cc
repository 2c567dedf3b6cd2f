#include "guestkernel/agent/interpreter/interpreter.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/unique_fd.h"
#include "guestkernel/agent/interpreter/worker_files.h"
#include "guestkernel/agent/launch.h"

namespace cube::agent::interpreter {
namespace {

struct Need {
  Language language;
  const char* path;
  const char* what;
};

constexpr Need kNeeds[] = {
    {Language::kPython, "/usr/bin/python3", "python3"},
    {Language::kPython, "/usr/lib/python3/dist-packages/ipykernel", "python3-ipykernel"},
    {Language::kJavaScript, "/usr/bin/node", "node"},
    {Language::kTypeScript, "/usr/bin/node", "node"},
    {Language::kTypeScript, "/usr/bin/esbuild", "esbuild"},
    {Language::kBash, "/bin/bash", "bash"},
};

bool IsFolder(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

// RFC 9562, version 4.
std::string NewId() {
  uint8_t bytes[16];
  (void)!getrandom(bytes, sizeof bytes, 0);
  bytes[6] = static_cast<uint8_t>((bytes[6] & 0x0f) | 0x40);
  bytes[8] = static_cast<uint8_t>((bytes[8] & 0x3f) | 0x80);
  std::string id;
  for (size_t i = 0; i < sizeof bytes; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) id += '-';
    id += Format("%02x", bytes[i]);
  }
  return id;
}

}  // namespace

Interpreter::Interpreter(envd::Context* machine, std::string folder)
    : machine_(machine),
      folder_(std::move(folder)),
      zygote_([this](int control) { return LaunchZygote(control); }) {}

Status Interpreter::CanRun(Language language) {
  for (const Need& need : kNeeds) {
    if (need.language == language && access(need.path, F_OK) < 0) {
      return Errorf("%s needs %s, which is not installed", LanguageName(language).data(),
                    need.what);
    }
  }
  return OkStatus();
}

Context* Interpreter::Default(Language language) {
  Context*& context = defaults_[language];
  if (context == nullptr) {
    contexts_.push_back(std::make_unique<Context>(this, "", language, DefaultDirectory()));
    context = contexts_.back().get();
  }
  return context;
}

Context* Interpreter::Find(std::string_view id) {
  for (const std::unique_ptr<Context>& context : contexts_) {
    if (context->id() == id && !id.empty()) return context.get();
  }
  return nullptr;
}

Result<Context*> Interpreter::Make(Language language, std::string directory) {
  if (contexts_.size() >= kMaxContexts) {
    return Errorf("there are %zu contexts already, which is the limit", contexts_.size());
  }
  if (!IsFolder(directory)) return Errorf("cwd '%s' does not exist", directory.c_str());
  contexts_.push_back(std::make_unique<Context>(this, NewId(), language, std::move(directory)));
  return contexts_.back().get();
}

bool Interpreter::Remove(std::string_view id) {
  auto found = std::find_if(contexts_.begin(), contexts_.end(), [id](const auto& context) {
    return context->id() == id && !id.empty();
  });
  if (found == contexts_.end()) return false;
  std::erase_if(defaults_, [&](const auto& item) { return item.second == found->get(); });
  // Out of the list first: its end has others called.
  std::unique_ptr<Context> removed = std::move(*found);
  contexts_.erase(found);
  return true;
}

void Interpreter::GiveUpPython() {
  zygote_.Stop();
  auto found = defaults_.find(Language::kPython);
  if (found == defaults_.end()) return;
  Context* context = found->second;
  defaults_.erase(found);
  std::erase_if(contexts_, [context](const auto& each) { return each.get() == context; });
}

std::vector<Context*> Interpreter::All() {
  std::vector<Context*> all;
  for (const std::unique_ptr<Context>& context : contexts_) {
    if (context->exists()) all.push_back(context.get());
  }
  return all;
}

std::string Interpreter::Id(Context* context) {
  if (context->id().empty()) context->SetId(NewId());
  return context->id();
}

std::string Interpreter::DefaultDirectory() const {
  constexpr char kHome[] = "/home/user";
  return IsFolder(kHome) ? kHome : "/";
}

Result<int32_t> Interpreter::Start(Language language, const std::string& directory,
                                   WorkerPipes* pipes) {
  CUBE_TRY(CanRun(language));
  if (!installed_) {
    CUBE_TRY(InstallWorkerFiles(folder_));
    installed_ = true;
  }
  if (language == Language::kPython) {
    CUBE_TRY(zygote_.Fork(directory, *pipes, warming_));
    return 0;
  }
  std::vector<std::string> arguments;
  if (language == Language::kBash) {
    arguments = {"bash", "--noprofile", "--noediting", "--rcfile", folder_ + "/bash/main.sh", "-i"};
  } else {
    // Node has no dup(2): the shell moves the socket to where it expects it.
    arguments = {"sh",
                 "-c",
                 "exec node \"$0\" \"$@\" 3<&0 </dev/null",
                 folder_ + "/javascript/main.js",
                 directory,
                 std::string(LanguageName(language))};
  }
  CUBE_ASSIGN(pid_t pid, Launch(std::move(arguments), directory, pipes->its_control.get(),
                                pipes->its_output.get(), pipes->its_error.get()));
  return pid;
}

Result<pid_t> Interpreter::LaunchZygote(int control) {
  UniqueFd nothing(open("/dev/null", O_RDWR | O_CLOEXEC));
  return Launch({"sh", "-c", "exec python3 \"$0\" \"$@\" 3<&0 </dev/null",
                 folder_ + "/python/main.py", "zygote"},
                DefaultDirectory(), control, nothing.get(), nothing.get());
}

Result<pid_t> Interpreter::Launch(std::vector<std::string> arguments, const std::string& directory,
                                  int control, int output, int error) {
  std::optional<envd::User> user = machine_->users.Find("user");
  if (!user) user = machine_->users.Find("root");
  if (!user) return Error("there is neither a user 'user' nor root");
  const std::vector<std::string> variables = {
      "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      "HOME=" + user->home,
      "USER=" + user->name,
      "LOGNAME=" + user->name,
      "SHELL=/bin/bash",
      "LANG=C.UTF-8",
  };
  agent::Launch launch(arguments, variables, directory);
  launch.fds[0] = control;
  launch.fds[1] = output;
  launch.fds[2] = error;
  launch.credentials = &user->credentials;
  pid_t pid = launch.Spawn();
  if (pid < 0) return ErrnoError("cannot start a process");
  if (launch.failed() != nullptr) {
    return Errorf("cannot %s '%s': %s", launch.failed(), arguments[0].c_str(),
                  strerror(launch.error()));
  }
  return pid;
}

}  // namespace cube::agent::interpreter
