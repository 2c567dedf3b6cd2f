#include "pool/plain_launcher.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <set>

#include "base/byte_io.h"
#include "pool/program_output.h"
#include "pool/sandbox_id.h"
#include "pool/spawn.h"
#include "vmm/cli/cube_home.h"

namespace cube::pool {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxEnvironment = 1 << 20;

bool IsOfHome(pid_t pid, const std::string& variable) {
  auto text = ReadSmallFile(Format("/proc/%d/environ", pid), kMaxEnvironment);
  if (!text.ok()) return false;
  return text->starts_with(variable + '\0') ||
         text->find('\0' + variable + '\0') != std::string::npos;
}

}  // namespace

Result<std::unique_ptr<PlainLauncher>> PlainLauncher::Create(asio::io_context& io,
                                                             std::string program,
                                                             std::string folder) {
  std::error_code failed;
  fs::create_directories(folder + "/run", failed);
  if (!failed) fs::permissions(folder, fs::perms::owner_all, failed);
  if (failed) return Errorf("%s: %s", folder.c_str(), failed.message().c_str());
  return std::unique_ptr<PlainLauncher>(
      new PlainLauncher(io, std::move(program), std::move(folder)));
}

Task<Outcome<ProcessHandle>> PlainLauncher::StartAndAwait(std::vector<std::string> arguments,
                                                          std::string word) {
  std::vector<std::string> environment = {"CUBE_HOME=" + folder_};
  POOL_CO_ASSIGN(Spawned spawned, SpawnProcess(arguments, environment));
  ProgramOutput output(io_, std::move(spawned.output), arguments[0] + " " + arguments[1]);
  auto said = co_await output.Await(std::move(word));
  if (said.ok()) co_return std::move(spawned.process);
  spawned.process.Kill();
  co_return said.refusal();
}

Task<Outcome<ProcessHandle>> PlainLauncher::StartZygote(ZygoteSpec spec) {
  std::vector<std::string> arguments = {
      program_, "zygote", spec.folder, "--socket", ZygoteSocket(spec.name), "--json"};
  co_return co_await StartAndAwait(std::move(arguments), "event");
}

Task<Outcome<ProcessHandle>> PlainLauncher::Restore(RestoreSpec spec) {
  std::vector<std::string> arguments = {program_,   "restore", spec.folder,
                                        "--parked", "--id",    spec.id};
  co_return co_await StartAndAwait(std::move(arguments), "pid");
}

Outcome<CloneRequest> PlainLauncher::PrepareClone(const std::string&) {
  CloneRequest request;
  POOL_ASSIGN(request.id, NewSandboxId());
  request.line = "{\"op\":\"clone\",\"id\":\"" + request.id + "\"}";
  return request;
}

void PlainLauncher::ForgetZygote(const std::string& name) { unlink(ZygoteSocket(name).c_str()); }

Outcome<Done> PlainLauncher::Confine(const std::string&, const ProcessHandle&, const Limits&) {
  return Done();
}

// Machines are as powerful as the daemon: they act as the folder's owner themselves.
Outcome<UniqueFd> PlainLauncher::OpenVolume(const std::string&, const std::string& folder) const {
  POOL_ASSIGN(UniqueFd opened, OpenFile(folder, O_PATH | O_DIRECTORY | O_NOFOLLOW));
  return opened;
}

void PlainLauncher::Forget(const std::string& id) {
  for (const char* suffix : {".sock", ".vsock", ".log", ".log.1"}) {
    unlink(RunFile(id, suffix).c_str());
  }
}

std::vector<std::string> PlainLauncher::FindZygotes() const {
  std::vector<std::string> names;
  std::error_code failed;
  for (fs::directory_iterator entry(folder_, failed), end; !failed && entry != end;
       entry.increment(failed)) {
    std::string name = entry->path().filename();
    if (name.starts_with("zygote-")) names.push_back(name.substr(0, name.find('.')));
  }
  return names;
}

std::vector<ProcessHandle> PlainLauncher::FindAll() const {
  std::vector<ProcessHandle> all;
  const std::string variable = "CUBE_HOME=" + folder_;
  std::error_code failed;
  for (fs::directory_iterator entry("/proc", failed), end; !failed && entry != end;
       entry.increment(failed)) {
    pid_t pid = atoi(entry->path().filename().c_str());
    if (pid <= 1 || pid == getpid() || !IsOfHome(pid, variable)) continue;
    auto process = ProcessHandle::Open(pid);
    // Looked at again: the pid may have become another's meanwhile.
    if (process.ok() && IsOfHome(pid, variable)) all.push_back(std::move(*process));
  }
  return all;
}

std::vector<std::string> PlainLauncher::FindIds() const {
  std::set<std::string> ids;
  std::error_code failed;
  for (fs::directory_iterator entry(folder_ + "/run", failed), end; !failed && entry != end;
       entry.increment(failed)) {
    std::string name = entry->path().filename();
    std::string id = name.substr(0, name.find('.'));
    if (vmm::CheckSandboxId(id).ok()) ids.insert(id);
  }
  return {ids.begin(), ids.end()};
}

}  // namespace cube::pool
