#include "pool/plain_launcher.h"

#include <unistd.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/json.hpp>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <set>

#include "base/byte_io.h"
#include "pool/spawn.h"
#include "vmm/cli/cube_home.h"

namespace cube::pool {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr milliseconds kStartLimit(60'000);
constexpr size_t kMaxLine = 64 * 1024;
constexpr size_t kMaxEnvironment = 1 << 20;

// What a line of a process that has just been started says: that it is there, or what went wrong.
struct Word {
  bool is_there = false;
  std::string error;
};

Word Understand(const std::string& line, const std::string& word) {
  Word said;
  json::error_code failed;
  json::value value = json::parse(line, failed);
  const json::object* object = failed ? nullptr : value.if_object();
  if (object == nullptr) {
    said.error = line.substr(0, line.find('\n'));
    if (said.error.starts_with("cube-vmm: ")) said.error.erase(0, strlen("cube-vmm: "));
    return said;
  }
  const json::value* error = object->if_contains("error");
  if (error != nullptr && error->is_string()) said.error = std::string(error->get_string());
  said.is_there = error == nullptr && object->contains(word);
  return said;
}

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
  auto output = std::make_shared<asio::posix::stream_descriptor>(io_, spawned.output.Release());
  asio::steady_timer timer(io_, kStartLimit);
  timer.async_wait([output](boost::system::error_code cancelled) {
    if (!cancelled) output->cancel(cancelled);
  });
  std::string received, error;
  for (;;) {
    auto buffer = asio::dynamic_buffer(received, kMaxLine);
    auto [failed, size] = co_await asio::async_read_until(*output, buffer, '\n', kAsTuple);
    if (failed) {
      timer.cancel();
      spawned.process.Kill();
      if (error.empty()) error = "it has ended without a word";
      co_return Refuse(Fault::kInternal, "%s %s: %.800s", arguments[0].c_str(),
                       arguments[1].c_str(), error.c_str());
    }
    Word said = Understand(received.substr(0, size), word);
    received.erase(0, size);
    if (said.is_there) break;
    error = said.error;
  }
  timer.cancel();
  co_return std::move(spawned.process);
}

Task<Outcome<ProcessHandle>> PlainLauncher::StartZygote(ZygoteSpec spec) {
  std::vector<std::string> arguments = {program_,   "zygote",    spec.folder,
                                        "--socket", spec.socket, "--json"};
  co_return co_await StartAndAwait(std::move(arguments), "event");
}

Task<Outcome<ProcessHandle>> PlainLauncher::Restore(RestoreSpec spec) {
  std::vector<std::string> arguments = {program_,   "restore", spec.folder,
                                        "--parked", "--id",    spec.id};
  co_return co_await StartAndAwait(std::move(arguments), "pid");
}

Outcome<CloneRequest> PlainLauncher::PrepareClone() {
  CloneRequest request;
  request.line = "{\"op\":\"clone\"}";
  return request;
}

Outcome<Done> PlainLauncher::Confine(const std::string&, const ProcessHandle&, const Limits&) {
  return Done();
}

void PlainLauncher::Forget(const std::string& id) {
  for (const char* suffix : {".sock", ".vsock", ".log", ".log.1"}) {
    unlink(RunFile(id, suffix).c_str());
  }
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
