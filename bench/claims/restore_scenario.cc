#include "bench/claims/restore_scenario.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "bench/claims/qemu_peer.h"
#include "bench/claims/stopwatch.h"
#include "pool/spawn.h"

namespace cube::bench {
namespace {

constexpr char kGroup[] = "from a file to its first word";
constexpr double kLimitMs = 120'000;
constexpr size_t kMaxSaid = 1 << 20;

// A program that talks: it ends with this.
class Talker {
 public:
  static Result<Talker> Start(const std::vector<std::string>& arguments,
                              const std::vector<std::string>& environment = {}) {
    CUBE_ASSIGN(pool::Spawned spawned, pool::SpawnProcess(arguments, environment));
    return Talker(std::move(spawned));
  }
  ~Talker() {
    if (!spawned_.process.valid()) return;
    spawned_.process.Kill();
    while (waitpid(spawned_.process.pid(), nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  Talker(Talker&&) = default;
  Talker& operator=(Talker&&) = delete;

  Status Say(std::string_view line) {
    return write(spawned_.input.get(), line.data(), line.size()) ==
                   static_cast<ssize_t>(line.size())
               ? OkStatus()
               : Status(ErrnoError("writing to %s", kQemu));
  }
  // Until it has said `word`, or all of it and ended.
  Status Await(const std::string& word) {
    for (Stopwatch watch; said_.find(word) == std::string::npos;) {
      pollfd readable = {spawned_.output.get(), POLLIN, 0};
      const double left = kLimitMs - watch.Ms();
      int ready = left <= 0 ? 0 : poll(&readable, 1, static_cast<int>(left) + 1);
      if (ready < 0 && errno == EINTR) continue;
      char piece[4096];
      ssize_t size = ready <= 0 ? 0 : read(spawned_.output.get(), piece, sizeof piece);
      if (size <= 0 || said_.size() > kMaxSaid) {
        return Errorf("no \"%s\": %.300s", word.c_str(),
                      said_.substr(said_.size() - std::min<size_t>(said_.size(), 300)).c_str());
      }
      said_.append(piece, static_cast<size_t>(size));
    }
    return OkStatus();
  }
  // Until it has ended by itself.
  Status AwaitEnd() const {
    pollfd ended = {spawned_.process.fd(), POLLIN, 0};
    return poll(&ended, 1, static_cast<int>(kLimitMs)) == 1 ? OkStatus()
                                                            : Status(Errorf("it does not end"));
  }

 private:
  explicit Talker(pool::Spawned spawned) : spawned_(std::move(spawned)) {}

  pool::Spawned spawned_;
  std::string said_;
};

Result<Talker> StartQemu(const TrialOptions& options, const std::vector<std::string>& more) {
  std::vector<std::string> arguments = QemuCommand(
      options, " rdinit=/bin/sh -- -c \"echo WAITING; while read x; do echo READY; done\"");
  arguments.insert(arguments.end(), more.begin(), more.end());
  return Talker::Start(arguments);
}

// Has QEMU's monitor write the machine to `path` and end.
Status Migrate(Talker* qemu, const std::string& monitor, const std::string& path) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return ErrnoError("socket");
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
  if (monitor.size() >= sizeof address.sun_path) return Errorf("%s: too long", monitor.c_str());
  memcpy(address.sun_path, monitor.data(), monitor.size());
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    return ErrnoError("%s", monitor.c_str());
  }
  // The second waits for the end of the first.
  const std::string commands = "migrate \"exec:cat > " + path + "\"\nquit\n";
  if (send(fd.get(), commands.data(), commands.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(commands.size())) {
    return ErrnoError("%s", monitor.c_str());
  }
  CUBE_TRY(qemu->AwaitEnd());
  std::error_code failed;
  if (std::filesystem::file_size(path, failed) < 1 << 20 || failed) {
    return Errorf("QEMU wrote no machine to %s", path.c_str());
  }
  return OkStatus();
}

}  // namespace

Status MeasureRestores(const TrialOptions& options, const TrialNode& node, Report* report) {
  Measurement clone = {kGroup, "cube-vmm clone, a process: until READY", "ms"};
  Measurement peer = {kGroup,
                      "QEMU, TCG, -incoming: until it has answered",
                      "ms",
                      {},
                      "microvm, the same kernel and memory, no root disk; the file is in the page "
                      "cache",
                      true,
                      true};
  const std::string path = node.folder() + "/qemu-machine", monitor = node.folder() + "/monitor";
  bool has_qemu = HasQemu(options);
  if (has_qemu) {
    auto prepare = [&]() -> Status {
      CUBE_ASSIGN(Talker qemu,
                  StartQemu(options, {"-monitor", "unix:" + monitor + ",server=on,wait=off"}));
      CUBE_TRY(qemu.Await("WAITING"));
      return Migrate(&qemu, monitor, path);
    };
    Status prepared = prepare();
    has_qemu = prepared.ok();
    if (!has_qemu) report->warnings.push_back("QEMU -incoming: " + prepared.error().message());
  } else {
    report->warnings.push_back("no qemu-system-x86_64: its -incoming was not measured");
  }
  for (uint64_t round = 0; round < 1 + options.Rounds(5); ++round) {
    Stopwatch watch;
    {
      CUBE_ASSIGN(Talker vmm, Talker::Start({options.vmm, "clone", TrialNode::kCold, "--vsock",
                                             node.folder() + "/clone.vsock"},
                                            {"CUBE_HOME=" + node.folder()}));
      CUBE_TRY(vmm.Await("\n"));
      if (round > 0) clone.samples.push_back(watch.Ms());
    }
    if (!has_qemu) continue;
    watch = Stopwatch();
    CUBE_ASSIGN(Talker qemu, StartQemu(options, {"-incoming", "exec:cat " + path}));
    CUBE_TRY(qemu.Say("go\n"));
    CUBE_TRY(qemu.Await("READY"));
    if (round > 0) peer.samples.push_back(watch.Ms());
  }
  std::error_code ignored;
  std::filesystem::remove(path, ignored);
  report->measurements.push_back(std::move(clone));
  if (!peer.samples.empty()) report->measurements.push_back(std::move(peer));
  return OkStatus();
}

}  // namespace cube::bench
