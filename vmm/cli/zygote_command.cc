#include "vmm/cli/zygote_command.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <map>

#include "base/byte_io.h"
#include "base/monotonic.h"
#include "vmm/cli/clone_jail.h"
#include "vmm/cli/command_answer.h"
#include "vmm/cli/control_request.h"
#include "vmm/cli/control_server.h"
#include "vmm/cli/cube_home.h"
#include "vmm/cli/filters.h"
#include "vmm/cli/option_words.h"
#include "vmm/cli/prepared.h"
#include "vmm/cli/run_command.h"
#include "vmm/cli/run_files.h"
#include "vmm/cli/template_folder.h"

namespace cube::vmm {
namespace {

// "fd=N" of a request counts the descriptors that came with it.
Result<DeviceOptions> DevicesOf(const ControlRequest& request,
                                const std::vector<UniqueFd>& descriptors) {
  DeviceOptions devices;
  CUBE_ASSIGN(devices.net, request.Strings("net"));
  for (std::string& net : devices.net) {
    if (!net.starts_with("fd=")) continue;
    size_t end = std::min(net.find(','), net.size());
    auto number = WholeNumber(std::string_view(net).substr(3, end - 3), UINT32_MAX);
    if (!number || *number >= descriptors.size()) {
      return Errorf("\"%s\": %zu descriptors came with the request", net.c_str(),
                    descriptors.size());
    }
    net = Format("fd=%d", descriptors[*number].get()) + net.substr(end);
  }
  CUBE_ASSIGN(std::string vsock, request.String("vsock", ""));
  if (!vsock.empty()) devices.vsock = vsock;
  CUBE_ASSIGN(devices.shares, request.Strings("shares"));
  return devices;
}

class Zygote {
 public:
  // A clone that is being made: it says on `answer` that it is parked, or why it is not.
  struct Birth {
    UniqueFd answer;
    ControlConnection* to;
  };

  // `filter`: what jailed clones may ask of the kernel.
  Zygote(EventLoop* loop, Prepared prepared, SyscallFilter filter, uint64_t pending)
      : loop_(loop),
        prepared_(std::move(prepared)),
        filter_(std::move(filter)),
        pending_(pending),
        server_(loop, [this](ControlConnection* from, const std::string& line,
                             std::vector<UniqueFd> descriptors) {
          OnRequest(from, line, std::move(descriptors));
        }) {}

  Status Listen(const std::string& path) { return server_.Listen(path); }

  // In the child of a fork, once the loop has been left: where to say that it is parked.
  bool is_clone() const { return parked_.valid(); }
  UniqueFd TakeParked() { return std::move(parked_); }
  Prepared TakePrepared() { return std::move(prepared_); }
  uint64_t asked() const { return asked_; }
  // What it is to be called; empty: a new id.
  const std::string& id() const { return id_; }
  // What the host has behind the clone's devices.
  const DeviceOptions& devices() const { return devices_; }

 private:
  void OnRequest(ControlConnection* from, const std::string& line,
                 std::vector<UniqueFd> descriptors) {
    auto request = ControlRequest::Parse(line);
    auto op = request.ok() ? request->String("op") : Result<std::string>(request.error());
    Status done = !op.ok()         ? Status(op.error())
                  : *op == "clone" ? Clone(*request, std::move(descriptors), from)
                  : *op == "stop"  ? Stop(from)
                                   : Status(Errorf("unknown operation \"%s\"", op->c_str()));
    if (!done.ok() && server_.IsOpen(from)) (void)from->Send(ErrorAnswer(done.error()));
  }

  Status Stop(ControlConnection* from) {
    (void)from->Send("{\"ok\":true}");
    loop_->Stop();
    return OkStatus();
  }

  Status Clone(const ControlRequest& request, std::vector<UniqueFd> descriptors,
               ControlConnection* from) {
    if (births_.size() >= pending_) {
      return Errorf("%zu clones are being made, which is the limit: ask again once one is there",
                    births_.size());
    }
    asked_ = MonotonicNow();
    CUBE_ASSIGN(bool waits, request.Bool("waits", false));
    UniqueFd word;
    if (waits) {
      if (descriptors.empty()) return Errorf("a clone that waits has nothing to be told it by");
      word = std::move(descriptors.back());
      descriptors.pop_back();
    }
    CUBE_ASSIGN(std::string id, request.String("id", ""));
    if (!id.empty()) CUBE_TRY(CheckSandboxId(id));
    CUBE_ASSIGN(CloneJail jail, CloneJail::Of(request, &descriptors));
    CUBE_ASSIGN(DeviceOptions devices, DevicesOf(request, descriptors));
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) return ErrnoError("pipe");
    UniqueFd reader(ends[0]), writer(ends[1]);
    pid_t child = fork();
    if (child < 0) return ErrnoError("fork");
    if (child == 0) {
      // The clone has nothing to do with the zygote's peers, nor with its loop.
      births_.clear();
      server_.ForgetAfterFork();
      if (waits) writer = std::move(word);
      if (jail.uid != 0) EnterOrSayWhyNot(&jail, writer.get());
      if (waits) AwaitWord(writer.get());
      parked_ = std::move(writer);
      id_ = std::move(id);
      devices_ = std::move(devices);
      for (UniqueFd& descriptor : descriptors) descriptor.Release();  // a device's from here on
      loop_->Leave();
      return OkStatus();
    }
    if (waits) {
      (void)from->Send("{\"ok\":true}");
      return OkStatus();
    }
    int fd = reader.get();
    CUBE_TRY(loop_->Add(fd, EPOLLIN, [this, fd](uint32_t) { OnBorn(fd); }));
    births_.emplace(fd, Birth{std::move(reader), from});
    return OkStatus();
  }

  // In the child of a fork.
  void EnterOrSayWhyNot(CloneJail* jail, int to) {
    Status entered = jail->Enter();
    if (entered.ok()) entered = filter_.Apply();
    if (entered.ok()) return;
    std::string answer = ErrorAnswer(Error(entered.error()).Wrap("a clone's jail")) + "\n";
    (void)WriteAll(to, {reinterpret_cast<const uint8_t*>(answer.data()), answer.size()},
                   "the answer");
    _exit(kStatusVmmError);
  }

  // In a child as well: says that it is there. Whoever does not come to say that it is to go on has
  // ended, or needs it no more.
  void AwaitWord(int with) {
    prctl(PR_SET_NAME, "cube-waiting");
    constexpr char kThere[] = "{\"ok\":true}\n";
    char word;
    ssize_t n = write(with, kThere, sizeof kThere - 1);
    if (n == sizeof kThere - 1) {
      while ((n = read(with, &word, 1)) < 0 && errno == EINTR) {
      }
    }
    if (n != 1) _exit(0);
    prctl(PR_SET_NAME, "cube-vmm");
    asked_ = MonotonicNow();
  }

  void OnBorn(int fd) {
    auto found = births_.find(fd);
    if (found == births_.end()) return;
    char text[4096];
    ssize_t n = read(fd, text, sizeof text);
    loop_->Remove(fd);
    std::string line = n > 0 ? std::string(text, static_cast<size_t>(n))
                             : ErrorAnswer(Errorf("the clone died before it was parked"));
    if (line.ends_with('\n')) line.pop_back();  // Send() ends it
    if (server_.IsOpen(found->second.to)) (void)found->second.to->Send(line);
    births_.erase(found);
  }

  EventLoop* loop_;
  Prepared prepared_;
  SyscallFilter filter_;
  size_t pending_;
  ControlServer server_;
  std::map<int, Birth> births_;
  UniqueFd parked_;
  std::string id_;
  DeviceOptions devices_;
  uint64_t asked_ = 0;
};

// Without it all goes on, slower.
void Rehearse(Prepared* prepared) {
  auto rehearse = [prepared]() -> Result<Rehearsal> {
    std::optional<EventLoop> loop;
    CUBE_ASSIGN(loop, EventLoop::Create());
    const snapshot::Manifest& manifest = prepared->base->manifest();
    MachineConfig config;
    config.memory = manifest.memory_bytes;
    config.cpus = manifest.cpus;
    config.ring0 = prepared->ring0;
    const std::string id = Format("rehearsal-%d", getpid());
    CUBE_ASSIGN(UniqueFd claim, ClaimId(id));
    const DevicePlace place = {&*loop, ScratchFolder(), VsockPath(id)};
    DeviceOptions options;
    options.net_later = true;
    CUBE_ASSIGN(MadeDevices made,
                MakeCloneDevices(manifest.hardware, prepared->base->disks(), options, place));
    return Rehearsal::Run(*prepared->kvm, *prepared->base, config, std::move(made.devices), &*loop);
  };
  auto rehearsal = rehearse();
  if (rehearsal.ok()) {
    prepared->rehearsal = std::move(*rehearsal);
  } else {
    fprintf(stderr, "cube-vmm: %s\n", rehearsal.error().message().c_str());
  }
}

Result<int> RunZygote(const ZygoteOptions& zygote_options) {
  CUBE_ASSIGN(std::string path, FindTemplate(zygote_options.name));
  CUBE_ASSIGN(Filters filters, Filters::Of(zygote_options.filters));
  RunOptions options;
  CUBE_ASSIGN(Prepared prepared, PrepareHost(options.kvm, path, options.ring0));
  CUBE_TRY(MakeRunFolder());
  RemoveFilesOfDead();
  Rehearse(&prepared);
  // Clones that end are nobody's to wait for.
  signal(SIGCHLD, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
  std::optional<EventLoop> loop;
  CUBE_ASSIGN(loop, EventLoop::Create());
  std::optional<Zygote> zygote;
  const bool emulated = prepared.ring0 != Ring0Mode::kNative;
  zygote.emplace(&*loop, std::move(prepared), std::move(filters.machine), zygote_options.pending);
  CUBE_TRY(zygote->Listen(zygote_options.socket));
  if (zygote_options.json) {
    printf("{\"event\":\"ready\",\"ring0\":\"%s\"}\n", emulated ? "emulated" : "native");
  } else {
    puts("ready");
  }
  fflush(stdout);
  CUBE_TRY(loop->Run());
  if (!zygote->is_clone()) return 0;
  signal(SIGCHLD, SIG_DFL);
  // Who reads the zygote's output waits for its end, not for that of its clones.
  CUBE_ASSIGN(UniqueFd null, OpenFile("/dev/null", O_RDWR));
  for (int fd = 0; fd < 3; ++fd) dup2(null.get(), fd);
  options.serve = options.parked = options.log = true;
  options.devices = zygote->devices();
  options.id = zygote->id();
  uint64_t asked = zygote->asked();
  UniqueFd parked = zygote->TakeParked();
  prepared = zygote->TakePrepared();
  prepared.report = std::move(parked);
  zygote.reset();
  // The descriptor of the zygote's loop is another process's; it is closed, not used.
  loop.reset();
  return RunPrepared(options, std::move(prepared), asked);
}

}  // namespace

int ZygoteCommand(const ZygoteOptions& options) {
  auto status = RunZygote(options);
  return status.ok() ? *status : AnswerError(status.error(), options.json);
}

}  // namespace cube::vmm
