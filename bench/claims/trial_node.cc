#include "bench/claims/trial_node.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <boost/json.hpp>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "bench/claims/child.h"
#include "bench/claims/stopwatch.h"
#include "pool/spawn.h"

namespace cube::bench {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr double kStartLimitMs = 60'000, kPoolLimitMs = 120'000;
constexpr std::chrono::milliseconds kPause(5);
constexpr int kEndLimitMs = 120'000;

Result<TrialSandbox> SandboxOf(const json::object& answer) {
  const json::value* value = answer.if_contains("sandbox");
  const json::object* sandbox = value == nullptr ? nullptr : value->if_object();
  if (sandbox == nullptr) return Errorf("an answer without a sandbox");
  TrialSandbox of;
  const json::value *id = sandbox->if_contains("id"), *vsock = sandbox->if_contains("vsock"),
                    *pid = sandbox->if_contains("pid"), *warm = answer.if_contains("warm");
  if (id == nullptr || !id->is_string()) return Errorf("a sandbox without an id");
  of.id = std::string(id->get_string());
  if (vsock != nullptr && vsock->is_string()) of.vsock = std::string(vsock->get_string());
  if (pid != nullptr && pid->is_int64()) of.pid = static_cast<pid_t>(pid->get_int64());
  of.was_parked = warm != nullptr && warm->is_bool() && warm->get_bool();
  return of;
}

int64_t NumberOf(const json::object& object, const char* name) {
  const json::value* value = object.if_contains(name);
  return value != nullptr && value->is_int64() ? value->get_int64() : 0;
}

}  // namespace

Result<TrialClient> TrialClient::Open(const std::string& socket) {
  CUBE_ASSIGN(pool::ClientConnection connection, pool::ClientConnection::Open(socket));
  return TrialClient(std::move(connection));
}

Result<json::object> TrialClient::Ask(const json::object& request) {
  CUBE_ASSIGN(std::string answer, connection_.Ask(json::serialize(request)));
  return pool::Understand(answer);
}

Result<TrialSandbox> TrialClient::Create(const std::string& template_name) {
  CUBE_ASSIGN(
      json::object answer,
      Ask({{"op", "sandbox.create"}, {"template", template_name}, {"timeout_seconds", 3600}}));
  return SandboxOf(answer);
}

Status TrialClient::Kill(const std::string& id) { return Do("sandbox.kill", id); }

Status TrialClient::Do(const char* operation, const std::string& id) {
  auto answer = Ask({{"op", operation}, {"id", id}});
  return answer.ok() ? OkStatus() : Status(answer.error());
}

Result<std::unique_ptr<TrialNode>> TrialNode::Make(const TrialOptions& options) {
  std::string folder = options.work_folder + "/cube-bench-XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) return ErrnoError("%s", folder.c_str());
  std::unique_ptr<TrialNode> node(new TrialNode(options, folder));
  CUBE_TRY(node->BuildTemplates());
  return node;
}

Status TrialNode::Start(uint64_t pool_size) {
  CUBE_TRY(Configure(pool_size));
  return StartDaemon();
}

Status TrialNode::BuildTemplates() {
  for (const char* name : {kWarm, kCold}) {
    CUBE_ASSIGN(
        ChildRun built,
        RunChildWell({options_.vmm, "template", "build", name, "--kernel", options_.kernel,
                      "--initrd", options_.initrd, "--rootfs", options_.rootfs, "--memory",
                      std::to_string(options_.memory_mib), "--vsock", folder_ + "/build.vsock"},
                     {"CUBE_HOME=" + folder_}));
    build_ms_ = built.ms;
  }
  return OkStatus();
}

Status TrialNode::Configure(uint64_t pool_size) const {
  std::ofstream out(folder_ + "/cubed.toml");
  out << "[capacity]\nmax_sandboxes = 2000\nmemory_overcommit = 64\n"
         "[sandbox]\nmax_timeout_seconds = 86400\n"
         // Any port: another cubed may have the usual one.
         "[api]\nlisten = \"127.0.0.1:0\"\nrequests_per_second = 0\n"
         "[pool]\nsize = 0\n"
      << "[template." << kWarm << "]\nsize = " << pool_size
      << "\nconcurrency = 4\nrefill_per_second = 1000\n";
  out.close();
  return out ? OkStatus() : Status(ErrnoError("%s/cubed.toml", folder_.c_str()));
}

Status TrialNode::StartDaemon() {
  std::vector<std::string> arguments = {
      options_.cubed,         "--home", folder_, "--vmm", options_.vmm, "--config",
      folder_ + "/cubed.toml"};
  if (options_.no_jail) arguments.push_back("--no-jail");
  CUBE_ASSIGN(pool::Spawned spawned, pool::SpawnProcess(arguments, {}));
  process_ = std::move(spawned.process);
  // What it says is in the way of nobody, and is read when it has ended before it was there.
  std::string said;
  std::thread([output = std::move(spawned.output), path = folder_ + "/cubed.log"] {
    std::ofstream log(path);
    char piece[4096];
    for (ssize_t size; (size = read(output.get(), piece, sizeof piece)) > 0;) {
      log.write(piece, size).flush();
    }
  }).detach();
  for (Stopwatch watch; !Connect().ok();) {
    if (!process_.Alive() || watch.Ms() > kStartLimitMs) {
      std::ifstream log(folder_ + "/cubed.log");
      std::getline(log, said, '\0');
      return Errorf("%s does not start: %.900s", options_.cubed.c_str(), said.c_str());
    }
    std::this_thread::sleep_for(kPause);
  }
  return OkStatus();
}

Result<std::string> TrialNode::HttpAddress() const {
  CUBE_ASSIGN(TrialClient client, Connect());
  CUBE_ASSIGN(json::object answer, client.Ask({{"op", "node.status"}}));
  const json::value* http = answer.if_contains("http");
  if (http == nullptr || !http->is_string()) return Errorf("the node says no address of its HTTP");
  return std::string(http->get_string());
}

Status TrialNode::AwaitPool() const {
  CUBE_ASSIGN(TrialClient client, Connect());
  for (Stopwatch watch; watch.Ms() < kPoolLimitMs; std::this_thread::sleep_for(kPause)) {
    CUBE_ASSIGN(json::object answer, client.Ask({{"op", "pool.status"}}));
    const json::value* pools = answer.if_contains("pools");
    if (pools == nullptr || !pools->is_array()) return Errorf("an answer without pools");
    for (const json::value& each : pools->get_array()) {
      const json::object* pool = each.if_object();
      if (pool == nullptr) continue;
      const json::value* name = pool->if_contains("template");
      if (name == nullptr || *name != kWarm) continue;
      if (NumberOf(*pool, "parked") >= NumberOf(*pool, "target")) return OkStatus();
    }
  }
  return Errorf("the pool is not full after %.0f s", kPoolLimitMs / 1000);
}

Status TrialNode::ResizePool(uint64_t size) {
  CUBE_TRY(Configure(size));
  CUBE_ASSIGN(TrialClient client, Connect());
  auto answer = client.Ask({{"op", "node.reload"}});
  return answer.ok() ? OkStatus() : Status(answer.error());
}

TrialNode::~TrialNode() {
  if (process_.valid()) {
    // Sandboxes first: they would live on.
    if (auto client = Connect(); client.ok()) {
      (void)ResizePool(0);
      auto list = client->Ask({{"op", "sandbox.list"}});
      const json::value* all = list.ok() ? list->if_contains("sandboxes") : nullptr;
      if (all != nullptr && all->is_array()) {
        for (const json::value& each : all->get_array()) {
          const json::value* id = each.is_object() ? each.get_object().if_contains("id") : nullptr;
          if (id != nullptr && id->is_string()) (void)client->Kill(std::string(id->get_string()));
        }
      }
      (void)client->Ask({{"op", "node.drain"}, {"mode", "wait"}});
    }
    pollfd ended = {process_.fd(), POLLIN, 0};
    if (poll(&ended, 1, kEndLimitMs) < 1) process_.Kill();
    int status = 0;
    waitpid(process_.pid(), &status, 0);
  }
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

}  // namespace cube::bench
