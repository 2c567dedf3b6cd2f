#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <deque>
#include <filesystem>
#include <mutex>

#include "base/byte_io.h"
#include "base/json_writer.h"
#include "base/program_pages.h"
#include "vmm/assist/host_probe.h"
#include "vmm/cli/console_log.h"
#include "vmm/cli/guest_session.h"
#include "vmm/cli/run_options.h"
#include "vmm/cli/sandbox_control.h"
#include "vmm/cli/template_cache.h"
#include "vmm/cli/terminal.h"
#include "vmm/identity.h"
#include "vmm/cli/zygote_command.h"
#include "vmm/machine.h"
#include "vmm/memory_map.h"

namespace cube::vmm {
namespace {

uint64_t Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000 + static_cast<uint64_t>(now.tv_nsec);
}

double Milliseconds(uint64_t from, uint64_t to) {
  return to < from ? 0 : static_cast<double>(to - from) / 1e6;
}

// A guest that has made fewer exits than this since the last look is idle, and what ran it can give
// memory back. Looks are a second apart at first, and rarer the longer it stays idle.
constexpr uint64_t kIdleExits = 200;
constexpr uint64_t kFirstTrimSeconds = 1;
constexpr uint64_t kLastTrimSeconds = 64;

// When each phase of a run ended, CLOCK_MONOTONIC nanoseconds; 0 for what did not happen.
struct Timeline {
  uint64_t start = 0;
  uint64_t probed = 0;
  uint64_t created = 0;
  uint64_t booted = 0;
  uint64_t ready = 0;
  uint64_t started = 0;
  uint64_t exited = 0;
};

// One `cube-vmm run`: the machine, the session with its agent, and what ends it.
class Run {
 public:
  Run(const RunOptions& options, uint64_t start) : options_(options) { time_.start = start; }
  Run(const RunOptions& options, Prepared prepared, uint64_t start)
      : options_(options),
        ring0_(prepared.ring0),
        kvm_(std::move(prepared.kvm)),
        base_(std::move(prepared.base)) {
    time_.start = start;
  }

  Result<int> Execute();

 private:
  Status Prepare();
  Status PrepareHost();
  // The answer to a request for a start; empty if it comes once the agent is ready.
  Result<std::string> OnStart(const ControlRequest& request, ControlConnection* from);
  void SayParked();
  Status WatchSignals();
  Status WatchMachine();
  Status StartSession();
  Status Begin();
  Status Freeze();
  Status BecomeClone();
  Status SetUpControl();
  Status WriteOwnIdentity();
  void MakeSession();
  Status SetUpConsole();
  void TrimMemory();
  void ArmTrimTimer();

  // On vCPU threads: hand over to the event loop.
  void PostCommand(abi::Command command, uint32_t argument);
  void PostStop(StopReason reason);
  // On the event loop.
  void OnPosted();
  void OnCommand(abi::Command command, uint32_t argument);
  void OnStop(const StopReason& reason);
  void PumpSession();
  size_t TakeOutput(abi::RingId stream, std::span<const uint8_t> bytes);
  void WatchOutput(OutputSink* sink, bool* watched, bool wanted);
  void ForwardConsole();
  void OnTyped();
  void Finish(int status, const std::string& reason);
  Status WriteProfile(const GuestProfiler& profiler);
  void EmitJson(const JsonWriter& json);
  void ReportJson();

  const RunOptions& options_;
  Timeline time_;
  std::optional<EventLoop> loop_;
  UniqueFd posted_;
  UniqueFd signals_;
  std::optional<Timer> timer_;
  std::optional<Timer> trim_timer_;
  uint64_t trim_seconds_ = kFirstTrimSeconds;
  uint64_t trim_exits_ = 0;
  std::optional<RawTerminal> terminal_;
  ConsoleEscape escape_;
  ConsoleLog console_;
  UniqueFd console_file_;
  UniqueFd console_event_;
  std::deque<uint8_t> typed_;
  OutputSink stdout_{STDOUT_FILENO};
  OutputSink stderr_{STDERR_FILENO};
  bool stdout_watched_ = false;
  bool stderr_watched_ = false;
  bool interactive_ = false;
  bool exiting_ = false;
  bool finished_ = false;
  int status_ = kStatusVmmError;
  int exit_status_ = 0;
  std::string reason_;
  std::string dump_;  // for the one who looks into it; the reason stays one line
  Ring0Mode ring0_ = Ring0Mode::kNative;
  std::optional<Kvm> kvm_;
  MachineConfig config_;
  std::string id_;
  std::shared_ptr<const snapshot::Snapshot> base_;
  std::optional<TemplateCache> templates_;
  // The guest boots to become a template. Set before the vCPUs run, taken back when none does.
  bool freezing_ = false;

  std::mutex post_mutex_;
  std::deque<std::pair<abi::Command, uint32_t>> commands_;
  std::optional<StopReason> stop_;
  bool notified_ = false;

  std::unique_ptr<Machine> machine_;
  std::unique_ptr<GuestSession> session_;
  std::unique_ptr<SandboxControl> control_;
  uint64_t start_asked_ = 0;              // when, of a parked machine
  ControlConnection* starter_ = nullptr;  // who waits for kReady
};

Status Run::Prepare() {
  interactive_ = options_.command.empty() && !options_.attach && !options_.serve;
  if (interactive_ && isatty(STDIN_FILENO) == 0) {
    return Errorf("no command given, and stdin is not a terminal for a shell");
  }
  struct sysinfo info = {};
  sysinfo(&info);
  uint64_t host_mib = static_cast<uint64_t>(info.totalram) * info.mem_unit / kMiB;
  if (options_.memory_mib > host_mib) {
    return Errorf("guest memory of %llu MiB is more than the host's %llu MiB",
                  static_cast<unsigned long long>(options_.memory_mib),
                  static_cast<unsigned long long>(host_mib));
  }
  if (!kvm_) CUBE_TRY(PrepareHost());
  time_.probed = Now();
  CUBE_ASSIGN(loop_, EventLoop::Create());
  CUBE_ASSIGN(posted_, NewEventFd());
  CUBE_TRY(WatchSignals());

  config_.kernel = options_.kernel;
  config_.initrd = options_.initrd;
  config_.system_map = options_.system_map;
  CUBE_ASSIGN(config_.append, DeviceWords(options_.devices));
  if (!config_.append.empty() && !options_.append.empty()) config_.append += ' ';
  config_.append += options_.append;
  config_.memory = base_ != nullptr ? base_->manifest().memory_bytes : options_.memory_mib * kMiB;
  config_.cpus = base_ != nullptr ? base_->manifest().cpus : options_.cpus;
  config_.ring0 = ring0_;
  MachineEvents events;
  events.console = [this](uint8_t byte) { console_.Append(byte); };
  events.command = [this](abi::Command command, uint32_t argument) {
    // The template is frozen where this store ends, so no vCPU may go on.
    if (command == abi::Command::kPark && freezing_) machine_->RequestStop();
    PostCommand(command, argument);
  };
  events.notify = [this] {
    std::lock_guard lock(post_mutex_);
    notified_ = true;
    SignalEventFd(posted_.get());
  };
  events.stopped = [this](StopReason reason) { PostStop(std::move(reason)); };
  CUBE_ASSIGN(std::vector<NamedDevice> devices, MakeDevices(options_.devices, &*loop_));
  if (base_ == nullptr) {
    templates_.emplace(options_, ring0_);
    std::optional<snapshot::Snapshot> found = templates_->Find();
    if (found) base_ = std::make_shared<const snapshot::Snapshot>(std::move(*found));
  }
  if (base_ != nullptr) {
    if (base_->manifest().ring0 != Ring0Name(ring0_)) {
      return Errorf("%s was taken with ring 0 %s, here it is %s", base_->path().c_str(),
                    base_->manifest().ring0.c_str(), Ring0Name(ring0_));
    }
    CUBE_ASSIGN(GuestMemory memory, base_->MapMemory());
    CUBE_ASSIGN(machine_,
                Machine::Restore(*kvm_, config_, std::move(memory), base_->state(),
                                 std::move(devices), &*loop_, std::move(events)));
  } else {
    freezing_ = !templates_->path().empty();
    CUBE_ASSIGN(machine_, Machine::Create(*kvm_, config_, std::move(devices), &*loop_,
                                          std::move(events)));
  }
  CUBE_TRY(SetUpControl());
  time_.created = Now();
  return SetUpConsole();
}

// What a zygote has done before its clones are asked for.
Status Run::PrepareHost() {
  CUBE_TRY(Vcpu::InstallKickSignal());
  CUBE_ASSIGN(kvm_, Kvm::Open(options_.kvm));
  CUBE_ASSIGN(HostProbe probe, ProbeHost(*kvm_));
  if (!options_.snapshot.empty()) {
    CUBE_ASSIGN(snapshot::Snapshot opened, snapshot::Snapshot::Open(options_.snapshot));
    base_ = std::make_shared<const snapshot::Snapshot>(std::move(opened));
  }
  if (probe.emulated_ring0()) {
    ring0_ = options_.ring0 == "kvm" ? Ring0Mode::kEmulator : Ring0Mode::kEngine;
  } else if (options_.ring0 == "engine") {
    return Errorf("--ring0=engine: this host's KVM runs ring 0 itself");
  }
  return OkStatus();
}

Status Run::WatchSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT}) sigaddset(&set, signal);
  // vCPU threads inherit the mask: only the event loop sees these.
  if (pthread_sigmask(SIG_BLOCK, &set, nullptr) != 0) return ErrnoError("pthread_sigmask");
  signal(SIGPIPE, SIG_IGN);
  // A write beyond a limit of file sizes, which a guest can cause on a share, is an error like others.
  signal(SIGXFSZ, SIG_IGN);
  signals_.Reset(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_.valid()) return ErrnoError("signalfd");
  CUBE_TRY(loop_->Add(signals_.get(), EPOLLIN, [this](uint32_t) {
    signalfd_siginfo info;
    if (read(signals_.get(), &info, sizeof info) != sizeof info) return;
    Finish(128 + static_cast<int>(info.ssi_signo),
           Format("stopped by signal %u", info.ssi_signo));
  }));
  CUBE_ASSIGN(trim_timer_, Timer::Create());
  CUBE_TRY(loop_->Add(trim_timer_->fd(), EPOLLIN, [this](uint32_t) {
    trim_timer_->Acknowledge();
    uint64_t exits = machine_->exits();
    bool idle = exits - trim_exits_ < kIdleExits;
    trim_exits_ = exits;
    if (idle) TrimMemory();
    trim_seconds_ = idle ? std::min(2 * trim_seconds_, kLastTrimSeconds) : kFirstTrimSeconds;
    ArmTrimTimer();
  }));
  ArmTrimTimer();
  if (options_.timeout <= 0) return OkStatus();
  CUBE_ASSIGN(timer_, Timer::Create());
  CUBE_TRY(timer_->Set(static_cast<uint64_t>(options_.timeout * 1e9)));
  return loop_->Add(timer_->fd(), EPOLLIN, [this](uint32_t) {
    timer_->Acknowledge();
    Finish(kStatusTimeout, Format("time limit of %g s reached", options_.timeout));
  });
}

// A timer that cannot be set costs memory, nothing else.
void Run::ArmTrimTimer() { (void)trim_timer_->Set(trim_seconds_ * 1'000'000'000); }

void Run::TrimMemory() {
  ReleaseProgramPages();
  machine_->TrimMemory();
}

Status Run::SetUpControl() {
  CUBE_ASSIGN(std::string id, snapshot::NewSnapshotId());
  id_ = id.substr(0, 20);
  SandboxControl::Owner owner;
  owner.kvm = &*kvm_;
  owner.config = &config_;
  owner.machine = [this] { return machine_.get(); };
  owner.stop = [this] { Finish(0, ""); };
  owner.rolled_back = [this]() -> Status {
    session_.reset();
    MakeSession();
    // The guest has the identity it had; its random numbers and its time must be new all the same.
    CUBE_TRY(WriteOwnIdentity());
    CUBE_TRY(session_->Attach());
    machine_->WakeAgent();
    return OkStatus();
  };
  owner.other = [this](const ControlRequest& request, ControlConnection* from) {
    return OnStart(request, from);
  };
  control_ = std::make_unique<SandboxControl>(&*loop_, std::move(owner), base_);
  control_->SetId(id_);
  std::error_code failed;
  std::filesystem::create_directories(CubeHome() + "/run", failed);
  if (failed) return Errorf("%s/run: %s", CubeHome().c_str(), failed.message().c_str());
  return control_->server().Listen(ControlPath(id_));
}

Status Run::SetUpConsole() {
  if (!options_.console.empty() && options_.console != "-") {
    CUBE_ASSIGN(console_file_, OpenFile(options_.console, O_WRONLY | O_CREAT | O_TRUNC, 0644));
  }
  if (!interactive_ && options_.console.empty()) return OkStatus();
  CUBE_ASSIGN(console_event_, NewEventFd());
  console_.SetForward([this] { SignalEventFd(console_event_.get()); });
  CUBE_TRY(loop_->Add(console_event_.get(), EPOLLIN, [this](uint32_t) {
    DrainEventFd(console_event_.get());
    ForwardConsole();
  }));
  if (!interactive_) return OkStatus();
  CUBE_ASSIGN(RawTerminal raw, RawTerminal::Enter(STDIN_FILENO));
  terminal_.emplace(std::move(raw));
  fprintf(stderr, "cube-vmm: booting; leave with Ctrl-A x\r\n");
  return loop_->Add(STDIN_FILENO, EPOLLIN, [this](uint32_t) { OnTyped(); });
}

Status Run::WatchMachine() {
  CUBE_TRY(loop_->Add(posted_.get(), EPOLLIN, [this](uint32_t) { OnPosted(); }));
  MakeSession();
  return OkStatus();
}

void Run::MakeSession() {
  session_ = std::make_unique<GuestSession>(
      &*loop_, machine_->memory().mailbox(),
      interactive_ || (options_.serve && options_.command.empty()) ? -1 : STDIN_FILENO,
      GuestSession::Callbacks{
          [this](abi::RingId stream, std::span<const uint8_t> bytes) {
            return TakeOutput(stream, bytes);
          },
          [this](abi::RingId stream) {
            return stream == abi::RingId::kStdout ? stdout_.closed() : stderr_.closed();
          },
          [this] { machine_->WakeAgent(); },
          [this](uint32_t) {
            time_.started = Now();
            // The probe, the loader, and for the most part the decoder have done their work.
            TrimMemory();
          },
          [this](uint32_t error, const std::string& text) {
            Finish(error == ENOENT ? kStatusNotFound : kStatusCannotRun, text);
          }});
}

Status Run::StartSession() {
  GuestCommand command;
  command.arguments = options_.command;
  command.environment = options_.environment;
  command.directory = options_.directory;
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

// Gives the guest its identity and its command. Before its vCPUs run, from the parking place or from
// the start.
Status Run::Begin() {
  CUBE_TRY(WriteOwnIdentity());
  if (options_.attach) {
    CUBE_TRY(session_->Attach());
    machine_->WakeAgent();
    return OkStatus();
  }
  return options_.serve && options_.command.empty() ? OkStatus() : StartSession();
}

void Run::SayParked() {
  JsonWriter answer;
  answer.BeginObject().Key("ok").Bool(true).Key("id").String(id_).Key("pid").Int(getpid());
  answer.Key("ms").BeginObject();
  answer.Key("fork").Double(Milliseconds(time_.start, time_.probed));
  answer.Key("restore").Double(Milliseconds(time_.probed, time_.created));
  answer.EndObject().EndObject();
  const std::string& text = answer.text();
  // A zygote that has died meanwhile hears nothing; the clone can be reached by its socket.
  (void)WriteAll(options_.parked, {reinterpret_cast<const uint8_t*>(text.data()), text.size()},
                 "the zygote");
  close(options_.parked);
}

Result<std::string> Run::OnStart(const ControlRequest& request, ControlConnection* from) {
  CUBE_ASSIGN(std::string op, request.String("op"));
  if (op != "start") return Errorf("unknown operation \"%s\"", op.c_str());
  if (options_.parked < 0 || start_asked_ != 0) return Errorf("this sandbox runs already");
  start_asked_ = Now();
  Identity identity;
  identity.sandbox_id = id_;
  identity.hostname = "cube";
  CUBE_ASSIGN(identity.access_token, request.String("token", ""));
  CUBE_ASSIGN(identity.environment, request.Strings("environment"));
  identity.environment.push_back("CUBE_SANDBOX_ID=" + id_);
  CUBE_TRY(WriteIdentity(machine_->memory().mailbox(), identity));
  CUBE_TRY(machine_->Start());
  starter_ = from;
  return std::string();
}

Status Run::WriteOwnIdentity() {
  Identity identity;
  identity.sandbox_id = id_;
  identity.hostname = "cube";
  identity.environment = {"CUBE_SANDBOX_ID=" + id_};
  return WriteIdentity(machine_->memory().mailbox(), identity);
}

// The agent has parked, and every vCPU was asked to stop: the machine becomes a template, and goes
// on as its first clone would. A template that cannot be written is one line on stderr.
Status Run::Freeze() {
  freezing_ = false;
  machine_->Stop();
  Status built = templates_->Build(*kvm_, config_, &*machine_);
  if (built.ok()) built = BecomeClone();
  if (!built.ok()) {
    fprintf(stderr, "cube-vmm: no template was made: %s\n", built.error().message().c_str());
  }
  machine_->Resume();
  CUBE_TRY(Begin());
  return machine_->Start();
}

// The memory is that of the template just made, so that it is shared with its clones, and what
// differs from it can be told.
Status Run::BecomeClone() {
  CUBE_ASSIGN(snapshot::Snapshot opened, snapshot::Snapshot::Open(templates_->path()));
  std::vector<snapshot::PageRun> all;
  uint64_t offset = 0;
  for (const MemoryRegion& region : machine_->memory().regions()) {
    all.push_back({offset, region.host.size()});
    offset += region.host.size();
  }
  CUBE_TRY(opened.MapRuns(machine_->memory(), all));
  base_ = std::make_shared<const snapshot::Snapshot>(std::move(opened));
  control_->SetBase(base_);
  return OkStatus();
}

Result<int> Run::Execute() {
  CUBE_TRY(Prepare());
  CUBE_TRY(WatchMachine());
  // What is in the mailbox when a template is frozen would be in all its clones'.
  if (!freezing_ && options_.parked < 0) CUBE_TRY(Begin());
  GuestProfiler profiler;
  if (!options_.profile.empty()) machine_->Profile(&profiler);
  if (options_.parked >= 0) {
    SayParked();
  } else {
    CUBE_TRY(machine_->Start());
  }
  CUBE_TRY(loop_->Run());
  machine_->Stop();
  if (!options_.profile.empty()) CUBE_TRY(WriteProfile(profiler));
  if (interactive_ || !options_.console.empty()) ForwardConsole();
  // What follows is for a terminal that starts its lines at the left again.
  terminal_.reset();
  fputs(dump_.c_str(), stderr);
  if (options_.json) {
    ReportJson();
  } else if (!reason_.empty()) {
    fprintf(stderr, "cube-vmm: %s\n", reason_.c_str());
  }
  return status_;
}

Status Run::WriteProfile(const GuestProfiler& profiler) {
  CUBE_ASSIGN(std::string text, profiler.Report(options_.system_map));
  CUBE_ASSIGN(UniqueFd file, OpenFile(options_.profile, O_WRONLY | O_CREAT | O_TRUNC, 0644));
  return WriteAll(file.get(), {reinterpret_cast<const uint8_t*>(text.data()), text.size()},
                  options_.profile.c_str());
}

void Run::PostCommand(abi::Command command, uint32_t argument) {
  std::lock_guard lock(post_mutex_);
  // A guest that floods commands gains nothing: what was not taken yet is bounded.
  constexpr size_t kLimit = 64;
  if (commands_.size() < kLimit) commands_.emplace_back(command, argument);
  SignalEventFd(posted_.get());
}

void Run::PostStop(StopReason reason) {
  std::lock_guard lock(post_mutex_);
  stop_ = std::move(reason);
  SignalEventFd(posted_.get());
}

void Run::OnPosted() {
  DrainEventFd(posted_.get());
  std::deque<std::pair<abi::Command, uint32_t>> commands;
  std::optional<StopReason> stop;
  bool notified;
  {
    std::lock_guard lock(post_mutex_);
    commands.swap(commands_);
    stop.swap(stop_);
    notified = std::exchange(notified_, false);
  }
  for (auto [command, argument] : commands) OnCommand(command, argument);
  if (notified || !commands.empty()) PumpSession();
  if (stop) OnStop(*stop);
}

void Run::OnCommand(abi::Command command, uint32_t argument) {
  switch (command) {
    case abi::Command::kBooted:
      if (time_.booted == 0) time_.booted = Now();
      return;
    case abi::Command::kReady:
      if (time_.ready != 0) return;
      time_.ready = Now();
      if (starter_ != nullptr && control_->server().IsOpen(starter_)) {
        (void)starter_->Send(
            Format("{\"ok\":true,\"ready_ms\":%.3f}", Milliseconds(start_asked_, time_.ready)));
        starter_ = nullptr;
        return;
      }
      // For whoever waits for a machine without a command.
      if (options_.serve && options_.command.empty()) {
        printf("%s\n", id_.c_str());
        fflush(stdout);
      }
      return;
    case abi::Command::kPark: {
      if (!freezing_) return;
      Status frozen = Freeze();
      if (!frozen.ok()) Finish(kStatusVmmError, frozen.error().message());
      return;
    }
    case abi::Command::kExit:
      time_.exited = Now();
      exiting_ = true;
      exit_status_ = static_cast<int>(argument & 0xff);
      return;
  }
}

void Run::OnStop(const StopReason& reason) {
  std::string panic = console_.PanicMessage();
  std::string text = reason.text;
  if (!panic.empty()) {
    text = "the guest kernel panicked: " + panic;
  } else if (reason.kind != StopReason::Kind::kError) {
    std::string last = console_.LastLine();
    if (!last.empty()) text += ", its console's last line: " + last;
  }
  if (panic.empty()) dump_ = reason.detail;
  Finish(kStatusVmmError, text);
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

size_t Run::TakeOutput(abi::RingId stream, std::span<const uint8_t> bytes) {
  bool is_stdout = stream == abi::RingId::kStdout;
  if (options_.json) {
    std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    // A character cut in two at the end of the piece is left for the next one.
    size_t whole = bytes.size();
    for (size_t cut = 1; cut <= 3 && cut < bytes.size() && !IsUtf8(text.substr(0, whole)); ++cut) {
      if (IsUtf8(text.substr(0, bytes.size() - cut))) whole = bytes.size() - cut;
    }
    if (exiting_) whole = bytes.size();
    text = text.substr(0, whole);
    JsonWriter json;
    json.BeginObject().Key("event").String(is_stdout ? "stdout" : "stderr");
    if (IsUtf8(text)) {
      json.Key("text").String(text);
    } else {
      json.Key("base64").String(Base64(text));
    }
    json.EndObject();
    EmitJson(json);
    return whole;
  }
  OutputSink* sink = is_stdout ? &stdout_ : &stderr_;
  bool* watched = is_stdout ? &stdout_watched_ : &stderr_watched_;
  size_t taken = sink->Write(bytes);
  WatchOutput(sink, watched, taken < bytes.size() && !sink->closed());
  return taken;
}

void Run::WatchOutput(OutputSink* sink, bool* watched, bool wanted) {
  if (wanted == *watched) return;
  *watched = wanted;
  if (!wanted) {
    loop_->Remove(sink->fd());
    return;
  }
  Status added = loop_->Add(sink->fd(), EPOLLOUT, [this](uint32_t) { PumpSession(); });
  if (!added.ok()) Finish(kStatusVmmError, added.error().message());
}

void Run::ForwardConsole() {
  std::string text = console_.Take();
  if (text.empty()) return;
  int fd = console_file_.valid() ? console_file_.get()
           : interactive_        ? STDOUT_FILENO
                                 : STDERR_FILENO;
  auto bytes = std::span(reinterpret_cast<const uint8_t*>(text.data()), text.size());
  Status written = WriteAll(fd, bytes, "the console's output");
  if (!written.ok()) Finish(kStatusVmmError, written.error().message());
}

void Run::OnTyped() {
  uint8_t buffer[256];
  ssize_t n = read(STDIN_FILENO, buffer, sizeof buffer);
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (n <= 0) {
    Finish(0, "");
    return;
  }
  bool leave = false;
  std::string text = escape_.Filter({buffer, static_cast<size_t>(n)}, &leave);
  // What a queue of a thousand keys cannot take is lost, as on a real line.
  (void)machine_->serial().Receive({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  if (leave) Finish(0, "");
}

void Run::Finish(int status, const std::string& reason) {
  if (finished_) return;
  finished_ = true;
  status_ = status;
  reason_ = reason;
  loop_->Stop();
}

void Run::EmitJson(const JsonWriter& json) {
  std::string line = json.text() + "\n";
  Status written = WriteAll(STDOUT_FILENO,
                            {reinterpret_cast<const uint8_t*>(line.data()), line.size()}, "stdout");
  if (!written.ok()) Finish(kStatusVmmError, written.error().message());
}

void Run::ReportJson() {
  uint64_t end = Now();
  JsonWriter json;
  json.BeginObject().Key("event").String("exit").Key("status").Int(status_);
  if (!reason_.empty()) json.Key("reason").String(reason_);
  json.Key("ring0").String(Ring0Name(ring0_));
  json.Key("milliseconds").BeginObject();
  json.Key("probe").Double(Milliseconds(time_.start, time_.probed));
  json.Key("create").Double(Milliseconds(time_.probed, time_.created));
  if (time_.booted != 0) json.Key("boot").Double(Milliseconds(time_.created, time_.booted));
  // From the agent's first words, or, in a clone, from where it was parked.
  if (time_.ready != 0) {
    json.Key("agent").Double(
        Milliseconds(time_.booted != 0 ? time_.booted : time_.created, time_.ready));
  }
  if (time_.started != 0) json.Key("start").Double(Milliseconds(time_.ready, time_.started));
  if (time_.exited != 0) json.Key("command").Double(Milliseconds(time_.started, time_.exited));
  json.Key("total").Double(Milliseconds(time_.start, end));
  json.EndObject();
  json.Key("exits").Uint(machine_->exits());
  json.Key("emulated_instructions").Uint(machine_->Statistic("insn_emulation"));
  json.Key("assists").BeginObject();
  for (const auto& [name, count] : machine_->Ring0Counts()) {
    if (count != 0) json.Key(name).Uint(count);
  }
  json.EndObject();
  json.Key("devices").BeginObject();
  for (const auto& device : machine_->virtio()) {
    json.Key(device->name()).BeginObject();
    std::string failure = device->failure();
    if (!failure.empty()) json.Key("failure").String(failure);
    device->Metrics([&json](const char* name, uint64_t value) { json.Key(name).Uint(value); });
    json.EndObject();
  }
  json.EndObject().EndObject();
  EmitJson(json);
}

}  // namespace

int RunCommand(const RunOptions& options, uint64_t start) {
  // The Run is gone, and a terminal as it was, before an error is written.
  auto status = Run(options, start).Execute();
  if (status.ok()) return *status;
  fprintf(stderr, "cube-vmm: %s\n", status.error().message().c_str());
  return kStatusVmmError;
}

int RunPrepared(const RunOptions& options, Prepared prepared, uint64_t start) {
  auto status = Run(options, std::move(prepared), start).Execute();
  if (status.ok()) return *status;
  const std::string answer = ErrorAnswer(status.error());
  (void)WriteAll(options.parked, {reinterpret_cast<const uint8_t*>(answer.data()), answer.size()},
                 "the zygote");
  fprintf(stderr, "cube-vmm: %s\n", status.error().message().c_str());
  return kStatusVmmError;
}

}  // namespace cube::vmm
