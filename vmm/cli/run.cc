#include "vmm/cli/run.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "base/byte_io.h"
#include "base/control_abi.h"
#include "base/json_writer.h"
#include "base/monotonic.h"
#include "devices/net/net.h"
#include "devices/net/tap.h"
#include "devices/net/unplugged.h"
#include "vmm/cli/cube_home.h"
#include "vmm/cli/inherited_descriptors.h"
#include "vmm/cli/machine_disks.h"
#include "vmm/cli/machine_manifest.h"
#include "vmm/cli/run_files.h"
#include "vmm/identity.h"
#include "vmm/memory_map.h"

namespace cube::vmm {
namespace {

// The agent of a forked sandbox needs milliseconds; one that never wakes up is not waited for.
constexpr double kBirthSeconds = 10;
// Nor is that of a clone: it may be one that cannot be woken, because a shell has its console.
constexpr double kCloneSeconds = 30;
// The time a guest takes until it has nothing left to do: Linux looks at its caches every two
// seconds, and tells the host of 32 free areas at a time (mm/page_reporting.c).
constexpr uint32_t kSettleSeconds = 40;

}  // namespace

Run::Run(const RunOptions& options, uint64_t start)
    : options_(options),
      interactive_(options.command.empty() && !options.attach && !options.serve),
      io_({options.json, interactive_, options.console},
          {[this] { PumpSession(); },
           // What a queue of a thousand keys cannot take is lost, as on a real line.
           [this](std::span<const uint8_t> keys) { (void)machine_->serial().Receive(keys); },
           [this](int status, const std::string& reason) { Finish(status, reason); }}),
      trimmer_([this] { return machine_.get(); },
               [this] { return control_ != nullptr && control_->CollapseMemory(); }) {
  time_.start = start;
  // Whoever waits for it hears of all that goes wrong; the log takes the descriptor's place.
  if (options.parked) report_.Reset(fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
}

Run::Run(const RunOptions& options, Prepared prepared, uint64_t start) : Run(options, start) {
  ring0_ = prepared.ring0;
  kvm_ = std::move(prepared.kvm);
  base_ = std::move(prepared.base);
  inherited_ = std::move(prepared.inherited);
  is_child_ = inherited_.has_value();
  report_ = std::move(prepared.report);
  rehearsal_ = std::move(prepared.rehearsal);
}

std::unique_ptr<Run> Run::GoOnAsChild(std::unique_ptr<Run> parent) {
  Run* left = parent.release();
  Prepared prepared;
  prepared.base = left->control_->base();
  prepared.kvm = std::move(left->kvm_);
  prepared.ring0 = left->ring0_;
  Frozen& frozen = left->newborn_->machine;
  prepared.inherited.emplace(left->machine_->Inherit(), std::move(frozen.state),
                             std::move(left->hardware_), std::move(frozen.disks));
  prepared.report = std::move(left->newborn_->report);
  std::vector<int> kept = {prepared.kvm->fd(), prepared.report.get()};
  if (prepared.base != nullptr) {
    std::vector<int> files = prepared.base->descriptors();
    kept.insert(kept.end(), files.begin(), files.end());
  }
  for (const auto& disk : prepared.inherited->disks) {
    std::vector<int> files = disk.descriptors();
    kept.insert(kept.end(), files.begin(), files.end());
  }
  CloseDescriptorsExcept(std::move(kept));
  RunOptions options = left->options_;
  options.attach = options.serve = options.log = true;
  options.parked = options.json = false;
  options.timeout = 0;
  options.id = left->newborn_->id;
  options.command.clear();
  options.console.clear();
  options.profile.clear();
  // What is behind its devices on the host is not theirs: NICs have no network, the socket has a
  // path of its own.
  options.devices = {};
  auto child = std::make_unique<Run>(options, std::move(prepared), left->newborn_->asked);
  child->given_.access_token = std::move(left->newborn_->token);
  child->given_.environment = std::move(left->given_.environment);
  return child;
}

void Run::ReportFailure(const Error& error) { Report(ErrorAnswer(error) + "\n"); }

void Run::Report(const std::string& line) {
  if (!report_.valid()) return;
  // Who has died meanwhile hears nothing; the sandbox can be reached by its socket.
  (void)WriteAll(report_.get(), {reinterpret_cast<const uint8_t*>(line.data()), line.size()},
                 "a report");
  report_.Reset();
}

Result<int> Run::Execute() {
  CUBE_TRY(Prepare());
  // What is in the mailbox when a template is frozen would be in all its clones'.
  if (!freezing_ && !options_.parked) CUBE_TRY(Begin());
  GuestProfiler profiler;
  if (!options_.profile.empty()) machine_->Profile(&profiler);
  if (options_.parked) {
    CUBE_TRY(machine_->Prepare());
    SayParked();
  } else {
    CUBE_TRY(machine_->Start());
  }
  CUBE_TRY(loop_->Run());
  if (forked()) return 0;
  // A vCPU that waits for memory never stops.
  if (!memory_lost_) machine_->Stop();
  ReportFailure(Errorf("%s", reason_.empty() ? "it was stopped" : reason_.c_str()));
  if (!options_.profile.empty()) CUBE_TRY(WriteProfile(profiler));
  io_.Close();
  fputs(dump_.c_str(), stderr);
  // Whoever has made this Run says why it came to nothing.
  if (!options_.freeze_as.empty() && status_ != 0) return Errorf("%s", reason_.c_str());
  if (options_.json) {
    io_.EmitJson(RunReport(status_, reason_, time_, ring0_, *machine_));
  } else if (!reason_.empty()) {
    fprintf(stderr, "cube-vmm: %s\n", reason_.c_str());
  }
  if (memory_lost_) {
    control_.reset();
    fflush(nullptr);
    _exit(status_);
  }
  return status_;
}

Status Run::Prepare() {
  if (interactive_ && isatty(STDIN_FILENO) == 0) {
    return Errorf("no command given, and stdin is not a terminal for a shell");
  }
  CUBE_TRY(CheckMemory());
  CUBE_TRY(MakeId());
  CUBE_TRY(AdoptHost());
  time_.probed = MonotonicNow();
  CUBE_ASSIGN(loop_, EventLoop::Create());
  CUBE_TRY(inbox_.Open(
      &*loop_, {[this](abi::Command command, uint32_t argument) { OnCommand(command, argument); },
                [this] { PumpSession(); }, [this](const StopReason& reason) { OnStop(reason); }}));
  CUBE_TRY(WatchSignals());
  CUBE_TRY(trimmer_.Watch(&*loop_));
  CUBE_TRY(WatchTimeout());
  CUBE_TRY(MakeMachine());
  CUBE_TRY(SetUpControl());
  time_.created = MonotonicNow();
  CUBE_TRY(io_.SetUp(&*loop_, log_.is_open() ? &log_ : nullptr));
  MakeSession();
  return OkStatus();
}

Status Run::AdoptHost() {
  if (kvm_) return OkStatus();
  snapshot::LazyServer::Failed lost;
  if (options_.lazy) lost = [this](const Error& error) { OnMemoryLost(error); };
  CUBE_ASSIGN(Prepared prepared,
              PrepareHost(options_.kvm, options_.snapshot, options_.ring0, lost));
  ring0_ = prepared.ring0;
  kvm_ = std::move(prepared.kvm);
  base_ = std::move(prepared.base);
  return OkStatus();
}

Status Run::Rehearse() {
  CUBE_TRY(AdoptHost());
  CUBE_ASSIGN(loop_, EventLoop::Create());
  return MakeMachine();
}

Status Run::CheckMemory() const {
  struct sysinfo info = {};
  sysinfo(&info);
  uint64_t host_mib = static_cast<uint64_t>(info.totalram) * info.mem_unit / kMiB;
  if (options_.memory_mib <= host_mib) return OkStatus();
  return Errorf("guest memory of %llu MiB is more than the host's %llu MiB",
                static_cast<unsigned long long>(options_.memory_mib),
                static_cast<unsigned long long>(host_mib));
}

Status Run::MakeMachine() {
  config_.kernel = options_.kernel;
  config_.initrd = options_.initrd;
  config_.system_map = options_.system_map;
  CUBE_ASSIGN(config_.append, DeviceWords(options_.devices));
  if (!config_.append.empty() && !options_.append.empty()) config_.append += ' ';
  config_.append += options_.append;
  config_.memory = base_ != nullptr ? base_->manifest().memory_bytes : options_.memory_mib * kMiB;
  config_.cpus = base_ != nullptr ? base_->manifest().cpus : options_.cpus;
  config_.ring0 = ring0_;
  if (!options_.freeze_as.empty()) templates_.emplace(options_.freeze_as);
  if (base_ == nullptr && !inherited_ && !templates_) {
    templates_.emplace(options_, ring0_);
    std::optional<snapshot::Snapshot> found = templates_->Find();
    if (found) base_ = std::make_shared<const snapshot::Snapshot>(std::move(*found));
  }
  CUBE_ASSIGN(MadeDevices made, MakeOwnDevices());
  hardware_ = std::move(made.hardware);
  vsock_ = std::move(made.vsock);
  if (inherited_) {
    CUBE_ASSIGN(machine_, Machine::Restore(*kvm_, config_, std::move(inherited_->machine.memory),
                                           inherited_->state, std::move(made.devices), &*loop_,
                                           MakeEvents(), std::move(inherited_->machine.caches)));
    inherited_.reset();
    return OkStatus();
  }
  if (base_ == nullptr) {
    freezing_ = !templates_->path().empty();
    // Elsewhere a guest's idle seconds are the user's as well.
    if (freezing_ && ring0_ == Ring0Mode::kEngine) {
      config_.append += Format(" cube_settle=%u", kSettleSeconds);
    }
    CUBE_ASSIGN(machine_,
                Machine::Create(*kvm_, config_, std::move(made.devices), &*loop_, MakeEvents()));
    return OkStatus();
  }
  if (base_->manifest().ring0 != Ring0Name(ring0_)) {
    return Errorf("%s was taken with ring 0 %s, here it is %s", base_->path().c_str(),
                  base_->manifest().ring0.c_str(), Ring0Name(ring0_));
  }
  CUBE_ASSIGN(GuestMemory memory, base_->MapMemory());
  CUBE_ASSIGN(machine_,
              Machine::Restore(*kvm_, config_, std::move(memory), base_->state(),
                               std::move(made.devices), &*loop_, MakeEvents(),
                               rehearsal_ ? std::move(rehearsal_->caches) : std::nullopt));
  if (rehearsal_) {
    for (const snapshot::PageRun& run : rehearsal_->written) {
      machine_->memory().Populate(run.start, run.size);
    }
  }
  return OkStatus();
}

Result<MadeDevices> Run::MakeOwnDevices() {
  const DevicePlace place = {&*loop_, ScratchFolder(), VsockPath(id_)};
  DeviceOptions devices = options_.devices;
  devices.net_later = devices.net_later || options_.parked;
  if (inherited_) {
    return MakeCloneDevices(inherited_->hardware, inherited_->disks, devices, place);
  }
  if (base_ == nullptr) return MakeDevices(devices, place);
  return MakeCloneDevices(base_->manifest().hardware, base_->disks(), devices, place);
}

MachineEvents Run::MakeEvents() {
  MachineEvents events;
  events.console = [this](uint8_t byte) { io_.console().Append(byte); };
  events.command = [this](abi::Command command, uint32_t argument) {
    // The template is frozen where this store ends, so no vCPU may go on.
    if (command == abi::Command::kPark && freezing_) machine_->RequestStop();
    if (freezing_) machine_->SkipIdleTime(command == abi::Command::kSettle);
    inbox_.PostCommand(command, argument);
  };
  events.notify = [this] { inbox_.PostNotification(); };
  events.stopped = [this](StopReason reason) { inbox_.PostStop(std::move(reason)); };
  return events;
}

Status Run::WatchSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT}) sigaddset(&set, signal);
  // vCPU threads inherit the mask: only the event loop sees these.
  if (pthread_sigmask(SIG_BLOCK, &set, nullptr) != 0) return ErrnoError("pthread_sigmask");
  signal(SIGPIPE, SIG_IGN);
  // A write beyond a limit of file sizes, which a guest can cause on a share, is an error like
  // others.
  signal(SIGXFSZ, SIG_IGN);
  signals_.Reset(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_.valid()) return ErrnoError("signalfd");
  return loop_->Add(signals_.get(), EPOLLIN, [this](uint32_t) {
    signalfd_siginfo info;
    if (read(signals_.get(), &info, sizeof info) != sizeof info) return;
    Finish(128 + static_cast<int>(info.ssi_signo), Format("stopped by signal %u", info.ssi_signo));
  });
}

Status Run::WatchTimeout() {
  bool is_clone = !options_.snapshot.empty() && !options_.attach && !options_.parked;
  if (is_child_ || is_clone) {
    double seconds = is_child_ ? kBirthSeconds : kCloneSeconds;
    CUBE_TRY(LimitTime(&birth_limit_, seconds, kStatusVmmError,
                       Format("its agent was not ready within %g s", seconds)));
  }
  if (options_.timeout <= 0) return OkStatus();
  return LimitTime(&timeout_, options_.timeout, kStatusTimeout,
                   Format("time limit of %g s reached", options_.timeout));
}

Status Run::LimitTime(std::optional<Timer>* timer, double seconds, int status,
                      const std::string& reason) {
  CUBE_ASSIGN(*timer, Timer::Create());
  CUBE_TRY((*timer)->Set(static_cast<uint64_t>(seconds * 1e9)));
  return loop_->Add((*timer)->fd(), EPOLLIN, [this, timer, status, reason](uint32_t) {
    (*timer)->Acknowledge();
    Finish(status, reason);
  });
}

Status Run::MakeId() {
  if (options_.id.empty()) {
    CUBE_ASSIGN(std::string id, snapshot::NewSnapshotId());
    id_ = id.substr(0, kSandboxIdSize);
  } else {
    CUBE_TRY(CheckSandboxId(options_.id));
    id_ = options_.id;
  }
  CUBE_TRY(MakeRunFolder());
  CUBE_ASSIGN(claim_, ClaimId(id_));
  if (options_.log) return log_.Open(LogPath(id_));
  // Clones of a zygote and of a fork, of which many come at once, leave that to others.
  RemoveFilesOfDead();
  return OkStatus();
}

Status Run::SetUpControl() {
  SandboxControl::Owner owner;
  owner.kvm = &*kvm_;
  owner.config = &config_;
  owner.hardware = &hardware_;
  owner.machine = [this] { return machine_.get(); };
  owner.stop = [this] { Finish(0, ""); };
  owner.rolled_back = [this] { return OnRolledBack(); };
  owner.check_settled = [this] { return CheckSettled(); };
  owner.check_forkable = [this] { return CheckForkable(); };
  owner.born = [this](Newborn newborn) {
    newborn_ = std::move(newborn);
    loop_->Leave();
  };
  owner.other = [this](const ControlRequest& request, ControlConnection* from,
                       std::vector<UniqueFd> descriptors) {
    return OnStart(request, from, std::move(descriptors));
  };
  control_ = std::make_unique<SandboxControl>(&*loop_, std::move(owner), base_);
  control_->SetId(id_, vsock_);
  return control_->server().Listen(ControlPath(id_));
}

Status Run::CheckForkable() {
  if (time_.ready == 0) return Errorf("this sandbox is not ready yet: it cannot be forked");
  if (interactive_) return Errorf("a shell on a terminal cannot be forked");
  // Output that waits in the mailbox would be that of the children as well.
  CUBE_TRY(session_->Pump());
  return CheckSettled();
}

Status Run::CheckSettled() {
  if (session_->Idle()) return OkStatus();
  return Errorf("a command is being started in this sandbox: it cannot be frozen just now");
}

Status Run::OnRolledBack() {
  session_.reset();
  MakeSession();
  // The guest has the identity it had; its random numbers and its time must be new all the same.
  CUBE_TRY(WriteOwnIdentity());
  return Attach();
}

// Goes on with what runs in the guest. Its agent, if it slept when the machine was frozen, is told
// that there is an identity for it; one that is parked does not sleep, and finds it by itself.
Status Run::Attach() {
  CUBE_TRY(session_->Attach());
  machine_->WakeAgent();
  return OkStatus();
}

// Descriptors are TAPs for its NICs, in their order. A machine without one has no use for them.
Status Run::Plug(std::vector<UniqueFd> descriptors) {
  std::vector<::cube::devices::Net*> nics = NicsOf(*machine_);
  for (size_t i = 0; i < std::min(nics.size(), descriptors.size()); ++i) {
    CUBE_ASSIGN(auto tap, ::cube::devices::net::Tap::Adopt(std::move(descriptors[i])));
    CUBE_TRY(nics[i]->Plug(std::move(tap)));
  }
  // Those for which there is none are told so.
  for (::cube::devices::Net* nic : nics) {
    if (!nic->awaits_network()) continue;
    CUBE_TRY(nic->Plug(std::make_unique<::cube::devices::net::Unplugged>()));
  }
  return OkStatus();
}

Status Run::PlugVolumes(std::vector<UniqueFd>* descriptors) {
  const size_t count = given_.volumes.size();
  const auto shares = VolumeSharesOf(*machine_);
  if (count > shares.size()) {
    return Errorf("%zu volumes, the guest has devices for %zu", count, shares.size());
  }
  if (count > descriptors->size()) {
    return Errorf("%zu volumes, %zu descriptors came with the request", count, descriptors->size());
  }
  const size_t first = descriptors->size() - count;
  for (size_t i = 0; i < count; ++i) {
    CUBE_TRY(shares[i]->Plug(std::move((*descriptors)[first + i])));
  }
  descriptors->resize(first);
  return OkStatus();
}

Result<std::string> Run::OnStart(const ControlRequest& request, ControlConnection* from,
                                 std::vector<UniqueFd> descriptors) {
  CUBE_ASSIGN(std::string op, request.String("op"));
  if (op == "plug") {
    CUBE_TRY(Plug(std::move(descriptors)));
    return std::string("{\"ok\":true}");
  }
  if (op != "start") return Errorf("unknown operation \"%s\"", op.c_str());
  if (!options_.parked || start_asked_ != 0) return Errorf("this sandbox runs already");
  CUBE_ASSIGN(given_.volumes, request.Strings("volumes"));
  CUBE_TRY(PlugVolumes(&descriptors));
  CUBE_TRY(Plug(std::move(descriptors)));
  start_asked_ = MonotonicNow();
  CUBE_ASSIGN(given_.access_token, request.String("token", ""));
  CUBE_ASSIGN(given_.environment, request.Strings("environment"));
  CUBE_TRY(WriteOwnIdentity());
  CUBE_TRY(Attach());
  CUBE_TRY(machine_->Start());
  starter_ = from;
  return std::string();
}

void Run::SayParked() {
  JsonWriter answer;
  answer.BeginObject().Key("ok").Bool(true).Key("id").String(id_).Key("pid").Int(getpid());
  answer.Key("vsock").String(vsock_);
  answer.Key("ring0").String(ring0_ == Ring0Mode::kNative ? "native" : "emulated");
  answer.Key("ms").BeginObject();
  answer.Key("fork").Double(Milliseconds(time_.start, time_.probed));
  answer.Key("restore").Double(Milliseconds(time_.probed, time_.created));
  const Machine::Marks& marks = machine_->marks();
  answer.Key("restore: before the VM").Double(Milliseconds(time_.probed, marks.begun));
  answer.Key("restore: create VM").Double(Milliseconds(marks.begun, marks.vm));
  answer.Key("restore: memory slots").Double(Milliseconds(marks.vm, marks.memory));
  answer.Key("restore: devices").Double(Milliseconds(marks.memory, marks.devices));
  answer.Key("restore: vCPUs").Double(Milliseconds(marks.devices, marks.vcpus));
  answer.Key("restore: other state").Double(Milliseconds(marks.vcpus, marks.state));
  answer.Key("restore: after").Double(Milliseconds(marks.state, time_.created));
  answer.EndObject().EndObject();
  Report(answer.text() + "\n");
}

void Run::MakeSession() {
  GuestSession::Callbacks callbacks;
  callbacks.output = [this](abi::RingId stream, std::span<const uint8_t> bytes) -> size_t {
    // Its id is what is said first.
    if (serves() && time_.ready == 0) return 0;
    return io_.TakeOutput(stream, bytes, exiting_);
  };
  callbacks.output_closed = [this](abi::RingId stream) { return io_.OutputClosed(stream); };
  callbacks.wake_agent = [this] { machine_->WakeAgent(); };
  callbacks.started = [this](uint32_t) {
    time_.started = MonotonicNow();
    // The probe, the loader, and for the most part the decoder have done their work.
    trimmer_.Trim();
  };
  callbacks.start_failed = [this](uint32_t error, const std::string& text) {
    Finish(error == ENOENT ? kStatusNotFound : kStatusCannotRun, text);
  };
  session_ = std::make_unique<GuestSession>(&*loop_, machine_->memory().mailbox(),
                                            interactive_ || serves() ? -1 : STDIN_FILENO,
                                            std::move(callbacks));
}

Result<GuestCommand> Run::MakeCommand() const {
  const snapshot::Defaults defaults = TemplateDefaults();
  GuestCommand command;
  command.arguments = options_.command;
  if (options_.own_command) {
    command.arguments = defaults.entrypoint;
    const auto& rest = options_.command.empty() ? defaults.command : options_.command;
    command.arguments.insert(command.arguments.end(), rest.begin(), rest.end());
    if (command.arguments.empty()) return Errorf("this template has no command of its own");
  }
  command.directory = options_.directory.empty() ? defaults.directory : options_.directory;
  command.user = options_.user.empty() ? defaults.user : options_.user;
  command.environment = options_.environment;
  snapshot::AddMissingVariables(defaults.environment, &command.environment);
  for (const std::string& variable : options_.common_environment) {
    // That of another user than root is found where the user is.
    if (!command.user.empty() && variable.starts_with("HOME=")) continue;
    snapshot::AddMissingVariables({variable}, &command.environment);
  }
  return command;
}

Status Run::StartSession() {
  CUBE_ASSIGN(GuestCommand command, MakeCommand());
  command.on_console = interactive_;
  if (interactive_) {
    command.arguments = {"/bin/sh", "-l"};
    winsize size = {};
    if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0) {
      command.rows = size.ws_row;
      command.columns = size.ws_col;
    }
  }
  return session_->Start(command);
}

// Sandboxes that run beside others of the same snapshot must be told apart; what `run` starts for
// one command is "cube", cloned or booted.
std::string Run::HostName() const {
  bool one_of_many = is_child_ || options_.parked || !options_.snapshot.empty();
  return one_of_many ? "cube-" + id_.substr(0, 8) : "cube";
}

Status Run::WriteOwnIdentity() {
  Identity identity = given_;
  identity.sandbox_id = id_;
  identity.hostname = HostName();
  identity.environment.push_back("CUBE_SANDBOX_ID=" + id_);
  const snapshot::Defaults defaults = TemplateDefaults();
  snapshot::AddMissingVariables(defaults.environment, &identity.environment);
  auto add = [&](std::string name, const std::string& value) {
    if (value.empty()) return;
    snapshot::AddMissingVariables({name + "=" + value}, &identity.environment);
  };
  add(abi::kDefaultUserVariable, defaults.user);
  add(abi::kDefaultWorkdirVariable, defaults.directory);
  return WriteIdentity(machine_->memory().mailbox(), identity);
}

// Gives the guest its identity and its command. Before its vCPUs run, from the parking place or
// from the start.
Status Run::Begin() {
  CUBE_TRY(WriteOwnIdentity());
  return options_.attach || serves() ? Attach() : StartSession();
}

// The agent has parked, and every vCPU was asked to stop: the machine becomes a template, and goes
// on as its first clone would. A template that cannot be written is one line on stderr.
Status Run::Freeze() {
  freezing_ = false;
  machine_->Stop();
  bool only = !options_.freeze_as.empty();
  Status built = templates_->Build(*kvm_, config_, hardware_, options_.defaults, &*machine_, only);
  if (only) {
    Finish(built.ok() ? 0 : kStatusVmmError, built.ok() ? "" : built.error().message());
    return OkStatus();
  }
  if (built.ok()) built = control_->BecomeCloneOf(templates_->path());
  if (!built.ok()) {
    fprintf(stderr, "cube-vmm: no template was made: %s\n", built.error().message().c_str());
  }
  machine_->Resume();
  CUBE_TRY(Begin());
  return machine_->Start();
}

void Run::OnCommand(abi::Command command, uint32_t argument) {
  switch (command) {
    case abi::Command::kBooted:
      if (time_.booted == 0) time_.booted = MonotonicNow();
      return;
    case abi::Command::kSettle:
      return;
    case abi::Command::kReady:
      if (time_.ready == 0) OnReady(argument);
      return;
    case abi::Command::kPark: {
      if (!freezing_) return;
      Status frozen = Freeze();
      if (!frozen.ok()) Finish(kStatusVmmError, frozen.error().message());
      return;
    }
    case abi::Command::kExit:
      if (freezing_) {
        Finish(kStatusVmmError, "what was to be started before the template is frozen did not: " +
                                    io_.console().LastLine());
        return;
      }
      time_.exited = MonotonicNow();
      exiting_ = true;
      exit_status_ = static_cast<int>(argument & 0xff);
      return;
  }
}

void Run::OnReady(uint32_t failure) {
  time_.ready = MonotonicNow();
  if (base_ != nullptr && !base_->manifest().parent.empty()) {
    snapshot::Snapshot::ReadAhead(machine_->memory());
  }
  if (failure != 0 && starter_ != nullptr && control_->server().IsOpen(starter_)) {
    const size_t volume = (failure >> 16) - 1;
    errno = static_cast<int>(failure & 0xffff);
    const char* path = volume < given_.volumes.size() ? given_.volumes[volume].c_str()
                                                      : "a path that was not asked for";
    (void)starter_->Send(InvalidAnswer(ErrnoError("a volume cannot be mounted at %s", path)));
    starter_ = nullptr;
    return;
  }
  if (starter_ != nullptr && control_->server().IsOpen(starter_)) {
    (void)starter_->Send(
        Format("{\"ok\":true,\"ready_ms\":%.3f}", Milliseconds(start_asked_, time_.ready)));
    starter_ = nullptr;
    return;
  }
  if (birth_limit_) {
    loop_->Remove(birth_limit_->fd());
    birth_limit_.reset();
  }
  if (is_child_) {
    Report(ForkReport(id_, time_.start, time_.created, time_.ready));
  }
  // For whoever waits for a machine without a command.
  if (serves() && !options_.log) {
    printf("%s\n", id_.c_str());
    fflush(stdout);
  }
  if (serves()) PumpSession();
}

void Run::OnStop(const StopReason& reason) {
  std::string panic = io_.console().PanicMessage();
  std::string text = reason.text;
  if (!panic.empty()) {
    text = "the guest kernel panicked: " + panic;
  } else if (reason.kind != StopReason::Kind::kError) {
    std::string last = io_.console().LastLine();
    if (!last.empty()) text += ", its console's last line: " + last;
  }
  if (panic.empty()) dump_ = reason.detail;
  Finish(kStatusVmmError, text);
}

// On the thread that loads memory. The process ends by the event loop, which leaves nothing behind,
// unless that waits for such a page itself.
void Run::OnMemoryLost(const Error& error) {
  constexpr int kPatienceMs = 2000;
  memory_lost_ = true;
  inbox_.PostStop({.kind = StopReason::Kind::kError, .text = error.message()});
  poll(nullptr, 0, kPatienceMs);
  fprintf(stderr, "cube-vmm: %s\n", error.message().c_str());
  unlink(ControlPath(id_).c_str());
  _exit(kStatusVmmError);
}

void Run::PumpSession() {
  if (finished_) return;
  Status pumped = session_->Pump();
  if (!pumped.ok()) {
    Finish(kStatusVmmError, pumped.error().message());
    return;
  }
  if (exiting_ && session_->OutputDrained()) Finish(exit_status_, "");
}

void Run::Finish(int status, const std::string& reason) {
  if (finished_) return;
  finished_ = true;
  status_ = status;
  reason_ = reason;
  loop_->Stop();
}

Status Run::WriteProfile(const GuestProfiler& profiler) {
  CUBE_ASSIGN(std::string text, profiler.Report(options_.system_map));
  CUBE_ASSIGN(UniqueFd file, OpenFile(options_.profile, O_WRONLY | O_CREAT | O_TRUNC, 0644));
  return WriteAll(file.get(), {reinterpret_cast<const uint8_t*>(text.data()), text.size()},
                  options_.profile.c_str());
}

}  // namespace cube::vmm
