#include "tests/node_daemon.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/result.h"
#include "base/unique_fd.h"
#include "pool/jail/cgroups.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

void Must(bool good, const std::string& what) {
  if (good) return;
  fprintf(stderr, "%s\n", what.c_str());
  abort();
}

// A clone that has yet to become a machine (pool/waiting_clone.h).
bool IsWaiting(pid_t pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/comm");
  std::string name;
  return std::getline(in, name) && name == "cube-waiting";
}

}  // namespace

bool IsOk(const json::object& answer) {
  const json::value* ok = answer.if_contains("ok");
  return ok != nullptr && ok->is_bool() && ok->get_bool();
}

std::string Text(const json::object& object, const char* member) {
  const json::value* value = object.if_contains(member);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : "";
}

const json::object& Inner(const json::object& object, const char* member) {
  static const json::object kNothing;
  const json::value* value = object.if_contains(member);
  return value != nullptr && value->is_object() ? value->get_object() : kNothing;
}

NodeDaemon::NodeDaemon(const std::string& config, const std::vector<std::string>& template_words,
                       const std::string& home)
    : home_(home) {
  // A socket's path is short.
  char folder[] = "/tmp/node-test-XXXXXX";
  if (home.empty()) {
    Must(mkdtemp(folder) != nullptr, "mkdtemp");
    home_ = folder;
  }
  Must(setenv("CUBE_HOME", home_.c_str(), 1) == 0, "setenv");
  std::vector<std::string> words = {
      Env("CUBE_VMM"), "template",         "build",    "t",
      "--kernel",      Env("CUBE_KERNEL"), "--initrd", Env("CUBE_INITRD")};
  words.insert(words.end(), template_words.begin(), template_words.end());
  Finished built = RunProcess(words);
  unsetenv("CUBE_HOME");
  Must(built.status == 0, built.err);
  Configure(config);
}

std::vector<std::string> DiskTemplateWords() {
  // The socket's path is of the build alone; that of a sandbox is in its box.
  return {"--rootfs", fs::canonical(Env("CUBE_ROOTFS")),          "--memory", "512",
          "--vsock",  Format("/tmp/node-test-%d.vsock", getpid())};
}

NodeDaemon::~NodeDaemon() {
  if (process_.valid()) Crash();
  // A zygote may have made another meanwhile.
  for (std::vector<pid_t> pids = Machines(); !pids.empty(); pids = Machines()) {
    for (pid_t pid : pids) {
      UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
      if (!process.valid()) continue;
      syscall(SYS_pidfd_send_signal, process.get(), SIGKILL, nullptr, 0);
      pollfd end = {process.get(), POLLIN, 0};
      poll(&end, 1, -1);
    }
  }
  if (jail_) {
    auto cgroups = pool::Cgroups::Open(pool::Cgroups::KeyOf(home_));
    if (cgroups.ok()) cgroups->Close();
  }
  fs::remove_all(home_);
}

void NodeDaemon::Configure(const std::string& config) {
  std::ofstream(home_ + "/cubed.toml") << config;
}

Finished NodeDaemon::TryToStart() {
  std::vector<std::string> words = {Env("CUBE"),
                                    "--home",
                                    home_,
                                    "--json",
                                    "up",
                                    "--vmm",
                                    fs::absolute(vmm_.empty() ? Env("CUBE_VMM") : vmm_),
                                    "--config",
                                    home_ + "/cubed.toml",
                                    "--listen",
                                    "127.0.0.1:0"};
  if (!jail_) words.push_back("--no-jail");
  return RunProcess(words);
}

void NodeDaemon::Start() {
  Finished up = TryToStart();
  Must(up.status == 0, up.out + up.err);
  json::object status = json::parse(up.out).as_object();
  auto process = pool::ProcessHandle::Open(static_cast<pid_t>(status.at("pid").as_int64()));
  Must(process.ok(), "cubed has ended");
  process_ = std::move(*process);
}

void NodeDaemon::AwaitEnd() {
  pollfd ended = {process_.fd(), POLLIN, 0};
  while (poll(&ended, 1, -1) < 1) {
  }
  process_ = {};
}

void NodeDaemon::Crash() {
  process_.Kill();
  AwaitEnd();
}

void NodeDaemon::Stop() {
  kill(process_.pid(), SIGTERM);
  AwaitEnd();
}

json::object NodeDaemon::Ask(const json::object& request) {
  auto connection = pool::ClientConnection::Open(home_ + "/cubed.sock");
  if (!connection.ok()) return {{"ok", false}, {"error", connection.error().message()}};
  auto answer = connection->Ask(json::serialize(request));
  if (!answer.ok()) return {{"ok", false}, {"error", answer.error().message()}};
  json::error_code failed;
  json::value value = json::parse(*answer, failed);
  Must(!failed && value.is_object(), "not an answer: " + *answer);
  return value.get_object();
}

json::object NodeDaemon::Ask(const std::string& op, const std::string& id) {
  json::object request = {{"op", op}};
  if (!id.empty()) request["id"] = id;
  return Ask(request);
}

std::string NodeDaemon::Create(const json::object& more) {
  json::object request = {{"op", "sandbox.create"}};
  if (!more.contains("snapshot")) request["template"] = "t";
  for (const auto& [key, value] : more) request[key] = value;
  json::object answer = Ask(request);
  if (!IsOk(answer)) fprintf(stderr, "create: %s\n", Text(answer, "error").c_str());
  return Text(Inner(answer, "sandbox"), "id");
}

std::string NodeDaemon::State(const std::string& id) {
  return Text(Inner(Ask("sandbox.info", id), "sandbox"), "state");
}

std::vector<pid_t> NodeDaemon::Machines() const {
  std::vector<pid_t> pids;
  const std::string variable = (jail_ ? "CUBE_NODE=" : "CUBE_HOME=") + home_ + "/node";
  for (const auto& entry : fs::directory_iterator("/proc")) {
    pid_t pid = atoi(entry.path().filename().c_str());
    if (pid <= 0) continue;
    std::ifstream in(entry.path() / "environ");
    std::stringstream text;
    text << in.rdbuf();
    if (text.str().find(variable + '\0') != std::string::npos) pids.push_back(pid);
  }
  return pids;
}

std::vector<std::string> NodeDaemon::Cgroups() const {
  const std::string own = "/cube/" + pool::Cgroups::KeyOf(home_);
  std::vector<std::string> found, mounts = {"/sys/fs/cgroup"};
  for (const auto& each : fs::directory_iterator(mounts[0])) mounts.push_back(each.path());
  for (const std::string& mount : mounts) {
    if (fs::exists(mount + own)) found.push_back(mount + own);
  }
  return found;
}

void NodeDaemon::AwaitMachines(size_t count) const {
  for (;;) {
    std::vector<pid_t> pids = Machines();
    std::vector<UniqueFd> processes;
    std::vector<pollfd> ends;
    size_t machines = 0;
    for (pid_t pid : pids) {
      UniqueFd process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
      if (!process.valid()) continue;
      machines += count == 0 || !IsWaiting(pid);
      ends.push_back({process.get(), POLLIN, 0});
      processes.push_back(std::move(process));
    }
    if (machines == count) return;
    // An end is told of, a beginning is looked for.
    poll(ends.data(), ends.size(), 20);
  }
}

void NodeDaemon::AwaitParked(int64_t count) {
  for (;;) {
    json::object status = Ask("node.status");
    const json::value* parked = status.if_contains("parked");
    if (parked != nullptr && parked->is_int64() && parked->get_int64() == count) return;
    usleep(2000);
  }
}

NodeEvents::NodeEvents(const NodeDaemon& node) {
  auto opened = pool::ClientConnection::Open(node.home() + "/cubed.sock");
  Must(opened.ok(), "events");
  connection_.emplace(std::move(*opened));
  Must(connection_->Ask("{\"op\":\"events\"}").ok(), "events");
}

json::object NodeEvents::AwaitAny(const std::function<bool(const json::object&)>& is_it) {
  for (;;) {
    auto line = connection_->Next();
    Must(line.ok(), "the events have ended");
    json::object event = json::parse(*line).as_object();
    if (is_it(event)) return event;
  }
}

std::string NodeEvents::Await(const std::string& id, const std::string& state) {
  return Text(AwaitAny([&](const json::object& event) {
                return Text(event, "id") == id && Text(event, "state") == state;
              }),
              "reason");
}

}  // namespace cube::testing
