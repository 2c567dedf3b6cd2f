#include "pool/daemon.h"

#include <fcntl.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "pool/jail/jail_launcher.h"
#include "pool/notify.h"
#include "pool/plain_launcher.h"

namespace cube::pool {
namespace {

// Two seconds: more than a child that was forked takes to exec on a busy host.
constexpr int kLockTries = 100;
constexpr useconds_t kLockMicroseconds = 20000;

namespace fs = std::filesystem;

// A sandbox is a socket and two descriptors of its process here.
void RaiseDescriptorLimit() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// sched_setattr(2), which libc does not have; linux/sched/types.h and sched.h cannot both be
// included.
struct SchedAttributes {
  uint32_t size, policy;  // 0: SCHED_OTHER
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime_ns, deadline_ns, period_ns;
};
constexpr uint64_t kResetOnFork = 1;

// It has little to do each time, for which somebody waits: on a host whose processors are all busy
// it need not wait for the end of another's turn. Not what it starts.
void RunInShortSlices() {
  SchedAttributes attributes = {};
  attributes.size = sizeof attributes;
  attributes.flags = kResetOnFork;
  attributes.nice = -5;
  attributes.runtime_ns = 100'000;
  // Without the right to, all goes on as it is.
  syscall(SYS_sched_setattr, 0, &attributes, 0);
}

}  // namespace

Daemon::Daemon(DaemonOptions options)
    : options_(std::move(options)),
      io_(1),
      signals_(io_, SIGTERM, SIGINT, SIGHUP),
      children_(io_, SIGCHLD) {}

Result<Config> Daemon::LoadConfig() const {
  Config config;
  if (!options_.config.empty()) {
    CUBE_ASSIGN(config, Config::Load(options_.config));
  }
  if (!options_.home.empty()) config.home = fs::absolute(options_.home).lexically_normal();
  // Machines see it at its place on the host, to which no links lead.
  std::error_code failed;
  fs::create_directories(config.home, failed);
  if (!failed) config.home = fs::canonical(config.home, failed);
  if (failed) return Errorf("%s: %s", config.home.c_str(), failed.message().c_str());
  if (!options_.vmm.empty()) config.vmm = options_.vmm;
  if (!options_.listen.empty()) config.api.listen = options_.listen;
  return config;
}

Status Daemon::TakeLock(const std::string& home) {
  CUBE_ASSIGN(lock_, OpenFile(home + "/cubed.lock", O_RDWR | O_CREAT, 0600));
  // A child of one that was killed has its descriptors until it comes to its exec.
  for (int tries = 0; tries < kLockTries; ++tries) {
    if (flock(lock_.get(), LOCK_EX | LOCK_NB) == 0) return OkStatus();
    usleep(kLockMicroseconds);
  }
  return Errorf("another cubed runs in %s", home.c_str());
}

Result<std::unique_ptr<Launcher>> Daemon::MakeLauncher(const Config& config) {
  std::unique_ptr<Launcher> launcher;
  if (options_.jail) {
    CUBE_ASSIGN(launcher, JailLauncher::Create(io_, config.home, config.vmm, config.jail));
    return launcher;
  }
  spdlog::warn(
      "--no-jail: EVERY MACHINE RUNS AS THIS USER, WITHOUT NAMESPACES, SECCOMP OR LIMITS. "
      "A guest that breaks out of its VMM has all that cubed has. For debugging only.");
  CUBE_ASSIGN(launcher, PlainLauncher::Create(io_, config.vmm, config.home + "/node"));
  return launcher;
}

Result<int> Daemon::Run() {
  CUBE_ASSIGN(Config config, LoadConfig());
  spdlog::set_level(spdlog::level::from_str(config.log_level));
  RaiseDescriptorLimit();
  RunInShortSlices();
  signal(SIGPIPE, SIG_IGN);
  // A store that may not grow is an error like others.
  signal(SIGXFSZ, SIG_IGN);
  // A zygote that dies leaves its clones to us, not to a process that may not wait for them.
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  CUBE_TRY(TakeLock(config.home));
  CUBE_ASSIGN(std::unique_ptr<Launcher> launcher, MakeLauncher(config));
  std::string socket = config.ControlSocket();
  CUBE_ASSIGN(node_, Node::Create(io_, std::move(config), std::move(launcher)));
  CUBE_ASSIGN(endpoint_, api::Endpoint::Create(node_.get()));
  api_.emplace(ControlApi::Owner{node_.get(), [this] { Leave(0); }, [this] { return Reload(); },
                                 [this](const std::string& op, RequestFields* fields) {
                                   return endpoint_->KeyOperation(op, fields);
                                 },
                                 [this] { return endpoint_->address(); }});
  listener_.emplace(io_, &*api_, &node_->context().events);
  AwaitSignal();
  AwaitChildren();
  Spawn(io_, Begin());
  io_.run();
  // Requests that are under way are not unwound, for they hold on to one another: what counts is in
  // the store.
  if (failed_) fprintf(stderr, "cubed: %s\n", failed_->message().c_str());
  fflush(nullptr);
  _exit(failed_ ? 1 : status_);
}

Task<void> Daemon::Begin() {
  Outcome<Done> started = co_await node_->Start();
  if (!started.ok()) {
    failed_ = Error(started.refusal().message);
    Leave(1);
    co_return;
  }
  Status listening = listener_->Listen(node_->context().config.ControlSocket());
  if (listening.ok()) listening = endpoint_->Listen();
  if (!listening.ok()) {
    failed_ = listening.error();
    Leave(1);
    co_return;
  }
  spdlog::info("ready at {}", node_->context().config.ControlSocket());
  puts("ready");
  fflush(stdout);
  NotifyStarter("READY=1");
}

Outcome<Done> Daemon::Reload() {
  auto config = LoadConfig();
  if (!config.ok()) return Refuse(Fault::kInvalid, "%.900s", config.error().message().c_str());
  const Config& now = node_->context().config;
  if (config->home != now.home || config->vmm != now.vmm ||
      config->ControlSocket() != now.ControlSocket()) {
    spdlog::warn("node.home, node.vmm and node.socket change when cubed is started again");
    config->home = now.home;
    config->vmm = now.vmm;
    config->socket = now.socket;
  }
  spdlog::set_level(spdlog::level::from_str(config->log_level));
  if (config->api.listen != now.api.listen) {
    spdlog::warn("api.listen changes when cubed is started again");
    config->api.listen = now.api.listen;
  }
  Config before = now;
  node_->Reload(std::move(*config));
  Status reloaded = endpoint_->Reload();
  if (!reloaded.ok()) {
    node_->Reload(std::move(before));
    (void)endpoint_->Reload();
    return Refuse(Fault::kInvalid, "%.900s", reloaded.error().message().c_str());
  }
  spdlog::info("the configuration was read again");
  return Done();
}

void Daemon::AwaitSignal() {
  signals_.async_wait([this](boost::system::error_code failed, int signal) {
    if (failed) return;
    if (signal != SIGHUP) {
      spdlog::info("signal {}: leaving; sandboxes live on", signal);
      Leave(0);
      return;
    }
    Outcome<Done> reloaded = Reload();
    if (!reloaded.ok()) {
      spdlog::error("the configuration stays as it was: {}", reloaded.refusal().message);
    }
    AwaitSignal();
  });
}

void Daemon::AwaitChildren() {
  children_.async_wait([this](boost::system::error_code failed, int) {
    if (failed) return;
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    AwaitChildren();
  });
}

// Whoever has asked for it is answered first, and what was forgotten is gone; not for ever.
void Daemon::Leave(int status) {
  status_ = status;
  node_->Stop();
  listener_->Close();
  endpoint_->Close();
  Spawn(io_, AwaitForgotten());
}

Task<void> Daemon::AwaitForgotten() {
  constexpr int kRounds = 250;
  asio::steady_timer timer(io_);
  for (int i = 0; i < kRounds; ++i) {
    co_await Sleep(timer, milliseconds(20));
    if (!node_->context().launcher->IsForgetting()) break;
  }
  // What was being started when it was first told to stop.
  node_->Stop();
  node_->context().launcher->Close();
  io_.stop();
}

}  // namespace cube::pool
