#include "vmm/cli/sandbox_control.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>

#include "base/byte_io.h"
#include "base/monotonic.h"
#include "snapshot/huge_pages.h"
#include "snapshot/page_scan.h"
#include "snapshot/snapshot_writer.h"
#include "vmm/cli/cube_home.h"
#include "vmm/cli/machine_disks.h"
#include "vmm/cli/machine_manifest.h"

namespace cube::vmm {

using ::cube::devices::blk::DiskStack;

namespace {

// Some milliseconds' worth: devices wait meanwhile.
constexpr uint64_t kCollapseBytes = 8 << 20;

// In the process that writes: all of it. The answer's text.
Result<std::string> WriteSnapshot(const std::string& path, bool durable,
                                  const snapshot::Manifest& about, const MachineState& state,
                                  const GuestMemory& memory, const std::vector<DiskStack>& disks,
                                  const snapshot::Snapshot* base, bool diff) {
  uint64_t start = MonotonicNow();
  CUBE_ASSIGN(snapshot::SnapshotWriter writer, snapshot::SnapshotWriter::Create(path, about));
  uint64_t pages = 0;
  CUBE_ASSIGN(std::vector<snapshot::PageRun> runs, snapshot::PrivateRuns(memory));
  if (diff) {
    for (const snapshot::PageRun& run : runs) pages += run.size / kPageSize;
    runs = snapshot::MappableRuns(memory, snapshot::LimitRuns(std::move(runs), snapshot::kMaxRuns));
    CUBE_TRY(writer.WriteDiff(state, memory, runs, *base));
  } else {
    // What nobody has written to is zeros, or as it is in the base.
    if (base != nullptr) {
      CUBE_ASSIGN(std::vector<snapshot::PageRun> data, base->DataRuns());
      runs = snapshot::MergeRuns(runs, data);
    }
    CUBE_TRY(writer.WriteBase(state, memory, runs));
  }
  CUBE_TRY(writer.WriteDisks(disks, diff ? base : nullptr));
  uint64_t written = MonotonicNow();
  CUBE_ASSIGN(std::string id, writer.Publish(durable));
  JsonWriter answer;
  answer.BeginObject().Key("ok").Bool(true).Key("id").String(id).Key("path").String(path);
  if (diff) answer.Key("pages").Uint(pages);
  answer.Key("memory_file_bytes").Uint(writer.manifest().memory_file_bytes);
  uint64_t blocks = 0;
  for (const auto& disk : writer.manifest().hardware.disks) blocks += disk.layer_blocks;
  answer.Key("disk_blocks").Uint(blocks);
  answer.Key("write_ms").Double(Milliseconds(start, written));
  const uint64_t synced = durable ? writer.synced_at() : written;
  answer.Key("sync_ms").Double(Milliseconds(written, synced));
  answer.Key("publish_ms").Double(Milliseconds(synced, MonotonicNow()));
  return answer.text();  // the caller ends the object
}

}  // namespace

struct SandboxControl::Writer {
  pid_t pid = -1;
  UniqueFd answer;  // a pipe from the process
  ControlConnection* to = nullptr;
  double paused_ms = 0;
  uint64_t start = 0;
  // Of a diff: where it is, and what the disks were made of when it was taken.
  std::string diff;
  CapturedDisks disks;
};

SandboxControl::SandboxControl(EventLoop* loop, Owner owner,
                               std::shared_ptr<const snapshot::Snapshot> base)
    : loop_(loop),
      owner_(std::move(owner)),
      base_(std::move(base)),
      server_(loop,
              [this](ControlConnection* from, const std::string& line,
                     std::vector<UniqueFd> descriptors) {
                OnRequest(from, line, std::move(descriptors));
              }),
      forks_(loop, &server_) {}

SandboxControl::~SandboxControl() {
  for (auto& [fd, writer] : writers_) {
    loop_->Remove(fd);
    // What it has not published it was asked for by somebody who is no longer told.
    kill(writer.pid, SIGKILL);
    waitpid(writer.pid, nullptr, 0);
  }
}

void SandboxControl::OnRequest(ControlConnection* from, const std::string& line,
                               std::vector<UniqueFd> descriptors) {
  auto request = ControlRequest::Parse(line);
  Result<std::string> answer = request.ok() ? Carry(*request, from, std::move(descriptors))
                                            : Result<std::string>(request.error());
  // Empty: it comes later.
  if (answer.ok() && answer->empty()) return;
  (void)from->Send(answer.ok() ? *answer : ErrorAnswer(answer.error()));
}

Result<std::string> SandboxControl::Carry(const ControlRequest& request, ControlConnection* from,
                                          std::vector<UniqueFd> descriptors) {
  CUBE_ASSIGN(std::string op, request.String("op"));
  const std::string done = "{\"ok\":true}";
  Machine* machine = owner_.machine();
  if (op == "info") return Info();
  if (op == "stop") {
    owner_.stop();
    return done;
  }
  if (!broken_.empty()) {
    return Errorf("the sandbox is broken, and can only be stopped: %s", broken_.c_str());
  }
  if (op == "pause") {
    if (!paused_) machine->Stop();
    paused_ = true;
    return done;
  }
  if (op == "resume") {
    if (paused_) CUBE_TRY(machine->Start());
    paused_ = false;
    return done;
  }
  if (op == "snapshot") {
    CUBE_TRY(TakeSnapshot(request, from));
    return std::string();
  }
  if (op == "fork") {
    CUBE_TRY(Fork(request, from));
    return std::string();
  }
  if (op == "rollback") {
    uint64_t start = MonotonicNow();
    CUBE_ASSIGN(std::string path, request.String("path"));
    CUBE_TRY(Rollback(path));
    JsonWriter answer;
    answer.BeginObject().Key("ok").Bool(true).Key("ms").Double(Milliseconds(start, MonotonicNow()));
    answer.EndObject();
    return answer.text();
  }
  if (owner_.other) return owner_.other(request, from, std::move(descriptors));
  return Errorf("unknown operation \"%s\"", op.c_str());
}

std::string SandboxControl::Info() const {
  JsonWriter answer;
  answer.BeginObject().Key("ok").Bool(true).Key("id").String(id_).Key("pid").Int(getpid());
  answer.Key("state").String(!broken_.empty() ? "broken" : paused_ ? "paused" : "running");
  if (!broken_.empty()) answer.Key("reason").String(broken_);
  answer.Key("memory_mib").Uint(owner_.config->memory / kMiB).Key("cpus").Uint(owner_.config->cpus);
  answer.Key("vsock").String(vsock_);
  answer.Key("base").String(base_ != nullptr ? base_->path() : "");
  answer.EndObject();
  return answer.text();
}

Result<Frozen> SandboxControl::Freeze(Machine* machine) {
  Frozen frozen;
  CUBE_ASSIGN(frozen.state, machine->Save(*owner_.kvm));
  CUBE_ASSIGN(frozen.disks, CaptureDisks(machine, *owner_.hardware, base_.get()));
  return frozen;
}

Result<pid_t> SandboxControl::ForkFrozen(Frozen* frozen, double* pause_ms) {
  // The child has no thread to load what it finds missing.
  if (base_ != nullptr) CUBE_TRY(base_->LoadAll());
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return ErrnoError("pipe");
  UniqueFd resumed(ends[0]), resuming(ends[1]);
  Machine* machine = owner_.machine();
  uint64_t start = MonotonicNow();
  if (!paused_) machine->Stop();
  auto saved = Freeze(machine);
  // The process has one thread while the vCPUs are stopped, so a fork of it is whole. It has the
  // memory as it is now, whatever the guest does from here on.
  pid_t child = saved.ok() ? fork() : -1;
  if (child == 0) {
    *frozen = std::move(*saved);
    // What is done here does not compete with the guest's going on.
    resuming.Reset();
    uint8_t end;
    while (read(resumed.get(), &end, 1) < 0 && errno == EINTR) {
    }
    return child;
  }
  int fork_error = errno;
  machine->Resume();
  if (!paused_) CUBE_TRY(machine->Start());
  *pause_ms = Milliseconds(start, MonotonicNow());
  if (!saved.ok()) return saved.error();
  if (child > 0) return child;
  errno = fork_error;
  return ErrnoError("fork");
}

Status SandboxControl::TakeSnapshot(const ControlRequest& request, ControlConnection* from) {
  CUBE_ASSIGN(std::string path, request.String("path"));
  CUBE_ASSIGN(bool diff, request.Bool("diff", false));
  CUBE_ASSIGN(bool durable, request.Bool("durable", true));
  if (diff && base_ == nullptr) {
    return Errorf("this sandbox was booted: it needs a full snapshot before a diff");
  }
  CUBE_TRY(owner_.check_settled());
  if (base_ == nullptr) {
    CUBE_ASSIGN(std::string answer, SnapshotBooted(path, durable));
    (void)from->Send(answer);
    return OkStatus();
  }
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return ErrnoError("pipe");
  UniqueFd reader(ends[0]), writer(ends[1]);
  uint64_t start = MonotonicNow();
  Frozen frozen;
  double pause_ms = 0;
  CUBE_ASSIGN(pid_t child, ForkFrozen(&frozen, &pause_ms));
  if (child == 0) {
    const Machine& machine = *owner_.machine();
    auto answer = WriteSnapshot(
        path, durable,
        DescribeMachine(*owner_.config, *owner_.hardware, machine, base_->manifest().defaults),
        frozen.state, machine.memory(), frozen.disks, base_.get(), diff);
    std::string text = answer.ok() ? *answer : ErrorAnswer(answer.error());
    (void)WriteAll(writer.get(), {reinterpret_cast<const uint8_t*>(text.data()), text.size()},
                   "the answer");
    _exit(answer.ok() ? 0 : 1);
  }
  int fd = reader.get();
  Status added = loop_->Add(fd, EPOLLIN, [this, fd](uint32_t) { OnWriterDone(fd); });
  if (!added.ok()) {
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    return added;
  }
  Writer entry{child, std::move(reader), from, pause_ms, start, {}, {}};
  if (diff) entry.diff = std::filesystem::absolute(path);
  if (diff) entry.disks = CapturedDisks{std::move(frozen.disks), base_};
  writers_.emplace(fd, std::move(entry));
  return OkStatus();
}

// What a machine without a base writes from here on could not be told: by KVM's log neither the
// devices' nor the ring-0 engine's stores. So the guest waits until its snapshot is written, and
// its memory becomes a private mapping of that, in which every store makes a page private.
Result<std::string> SandboxControl::SnapshotBooted(const std::string& path, bool durable) {
  Machine* machine = owner_.machine();
  uint64_t start = MonotonicNow();
  if (!paused_) machine->Stop();
  auto write = [&]() -> Result<std::string> {
    CUBE_ASSIGN(Frozen frozen, Freeze(machine));
    CUBE_ASSIGN(std::string text,
                WriteSnapshot(path, durable,
                              DescribeMachine(*owner_.config, *owner_.hardware, *machine, {}),
                              frozen.state, machine->memory(), frozen.disks, nullptr, false));
    CUBE_TRY(BecomeCloneOf(path));
    return text;
  };
  Result<std::string> written = write();
  machine->Resume();
  if (!paused_) CUBE_TRY(machine->Start());
  if (!written.ok()) return written.error();
  double pause_ms = Milliseconds(start, MonotonicNow());
  return *written + Format(",\"paused_ms\":%.3f,\"total_ms\":%.3f}", pause_ms, pause_ms);
}

Status SandboxControl::BecomeCloneOf(const std::string& path) {
  CUBE_ASSIGN(snapshot::Snapshot opened, snapshot::Snapshot::Open(path));
  CUBE_TRY(opened.MapAll(owner_.machine()->memory()));
  CUBE_TRY(RebaseDisks(owner_.machine(), opened));
  base_ = std::make_shared<const snapshot::Snapshot>(std::move(opened));
  return OkStatus();
}

Status SandboxControl::Fork(const ControlRequest& request, ControlConnection* from) {
  CUBE_ASSIGN(uint64_t count, request.Number("count", 1, UINT32_MAX));
  if (count < 1 || count > SandboxForks::kMaxChildren) {
    return Errorf("%llu clones of a sandbox at once are not between 1 and %llu",
                  static_cast<unsigned long long>(count),
                  static_cast<unsigned long long>(SandboxForks::kMaxChildren));
  }
  CUBE_ASSIGN(std::vector<std::string> ids, request.Strings("ids"));
  CUBE_ASSIGN(std::vector<std::string> tokens, request.Strings("tokens"));
  for (const auto* list : {&ids, &tokens}) {
    if (list->empty() || list->size() == count) continue;
    return Errorf("%zu ids or tokens for %llu clones", list->size(),
                  static_cast<unsigned long long>(count));
  }
  for (const std::string& id : ids) CUBE_TRY(CheckSandboxId(id));
  CUBE_TRY(owner_.check_forkable());
  CUBE_ASSIGN(SandboxForks::Pipe pipe, SandboxForks::MakePipe());
  SandboxForks::Pending pending;
  pending.asked = MonotonicNow();
  pending.to = from;
  pending.count = count;
  Newborn newborn;
  CUBE_ASSIGN(pending.forker, ForkFrozen(&newborn.machine, &pending.pause_ms));
  if (pending.forker == 0) {
    uint64_t place = SandboxForks::Multiply(count, pipe.writer.get());
    if (!ids.empty()) newborn.id = ids[place];
    if (!tokens.empty()) newborn.token = tokens[place];
    server_.ForgetAfterFork();
    newborn.report = std::move(pipe.writer);
    newborn.asked = pending.asked;
    owner_.born(std::move(newborn));
    return OkStatus();
  }
  pending.reports = std::move(pipe.reader);
  return forks_.Await(std::move(pending));
}

bool SandboxControl::CollapseMemory() {
  const GuestMemory& memory = owner_.machine()->memory();
  std::vector<snapshot::PageRun> stretches = {{0, GuestMemory::ImageSize(memory.ram_size())}};
  if (base_ != nullptr) stretches = base_->AnonymousRuns();
  auto collapsed = snapshot::CollapsePrivate(memory, stretches, kCollapseBytes);
  // A host that has no huge pages now may have some later.
  return collapsed.ok() && collapsed->left != 0;
}

void SandboxControl::OnWriterDone(int fd) {
  auto found = writers_.find(fd);
  if (found == writers_.end()) return;
  Writer& writer = found->second;
  std::string text;
  char piece[4096];
  for (ssize_t n; (n = read(fd, piece, sizeof piece)) > 0;)
    text.append(piece, static_cast<size_t>(n));
  int status = 0;
  waitpid(writer.pid, &status, 0);
  loop_->Remove(fd);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    SquashLayers(writer);
    text += Format(",\"paused_ms\":%.3f,\"total_ms\":%.3f}", writer.paused_ms,
                   Milliseconds(writer.start, MonotonicNow()));
  } else if (text.empty()) {
    text = ErrorAnswer(Errorf("the process that wrote the snapshot ended with status %#x", status));
  }
  if (server_.IsOpen(writer.to)) (void)writer.to->Send(text);
  writers_.erase(found);
}

// A diff's layer holds all that the disk had written since its base: it takes the place of the
// layers that earlier snapshots have left, of which reads would look at each.
void SandboxControl::SquashLayers(const Writer& writer) {
  if (writer.diff.empty()) return;
  Machine* machine = owner_.machine();
  machine->Quiesce();
  writer.disks.Squash(DisksOf(*machine), *owner_.hardware, writer.diff);
  machine->Resume();
}

Status SandboxControl::Rollback(const std::string& path) {
  if (base_ == nullptr) {
    return Errorf("this sandbox was booted: it has no snapshot to go back to");
  }
  // The one it came from needs no second look.
  std::shared_ptr<const snapshot::Snapshot> target = base_;
  if (path != base_->path()) {
    CUBE_ASSIGN(snapshot::Snapshot opened, snapshot::Snapshot::Open(path));
    target = std::make_shared<const snapshot::Snapshot>(std::move(opened));
  }
  Machine* machine = owner_.machine();
  if (!IsOfMachine(target->manifest(), *owner_.config, *owner_.hardware)) {
    return Errorf("%s is of another machine than this sandbox", path.c_str());
  }
  machine->Stop();
  Status loaded = Load(target);
  if (loaded.ok() && !paused_) loaded = machine->Start();
  if (loaded.ok()) return OkStatus();
  // Neither what it was nor what it was to be.
  broken_ = loaded.error().message();
  return Errorf("the sandbox is broken, and can only be stopped: %s", broken_.c_str());
}

Status SandboxControl::Load(const std::shared_ptr<const snapshot::Snapshot>& target) {
  Machine* machine = owner_.machine();
  // What is under way would still write to the memory.
  machine->Quiesce();
  const GuestMemory& memory = machine->memory();
  if (target == base_) {
    CUBE_ASSIGN(std::vector<snapshot::PageRun> runs, snapshot::PrivateRuns(memory));
    for (const snapshot::PageRun& run : runs) {
      auto slice = memory.ImageSlice(run.start, run.size);
      if (slice && madvise(slice->data(), slice->size(), MADV_DONTNEED) < 0) {
        return ErrnoError("dropping private memory");
      }
    }
  } else {
    CUBE_TRY(target->MapAll(memory));
  }
  CUBE_TRY(RebaseDisks(machine, *target));
  CUBE_TRY(machine->Reload(target->state()));
  base_ = target;
  return owner_.rolled_back();
}

}  // namespace cube::vmm
