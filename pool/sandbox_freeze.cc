// What of a sandbox's life goes by snapshots: pause and resume, snapshots, rollback, fork, and what
// a daemon that died has left half-done.
#include <spdlog/spdlog.h>

#include <boost/json.hpp>
#include <filesystem>

#include "base/json_writer.h"
#include "pool/sandbox.h"
#include "snapshot/manifest.h"
#include "vmm/cli/cube_home.h"

namespace cube::pool {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr milliseconds kControlLimit(10'000);
// A guest with gigabytes written takes its time.
constexpr milliseconds kSnapshotLimit(120'000);

std::string Plain(const char* op) { return std::string("{\"op\":\"") + op + "\"}"; }

}  // namespace

std::string Sandbox::SnapshotRequest(const std::string& path, bool durable) {
  // A chain that has become long begins anew, with all of the memory.
  bool diff = context_->shelf.Depth(record_.base) + 1 < context_->config.max_chain;
  JsonWriter json;
  json.BeginObject().Key("op").String("snapshot").Key("path");
  json.String(context_->launcher->WritePath(record_.id, path));
  return json.Key("diff").Bool(diff).Key("durable").Bool(durable).EndObject().text();
}

SnapshotRecord Sandbox::Describe(const std::string& path) const {
  SnapshotRecord about;
  about.id = fs::path(path).filename();
  about.path = path;
  about.sandbox = record_.id;
  about.template_name = record_.template_name;
  about.created_ms = WallClockMs();
  about.memory_mib = record_.memory_mib;
  about.cpus = record_.cpus;
  about.volumes = record_.volumes;
  return about;
}

// After a request that came to nothing: the machine goes on, or it is dead.
Task<void> Sandbox::BackToRunning() {
  auto self = shared_from_this();
  record_.pending.clear();
  bool alive = vm_ != nullptr && vm_->Alive();
  if (alive) {
    auto resumed = co_await vm_->Ask(Plain("resume"), kControlLimit);
    if (resumed.ok()) {
      Outcome<Done> entered = Enter(SandboxState::kRunning);
      // The store still says what was to be; it does so again after the next change.
      if (!entered.ok()) record_.state = SandboxState::kRunning;
      SetTimer();
      context_->tidy();
      co_return;
    }
    spdlog::error("sandbox {}: {}", record_.id, resumed.refusal().message);
    // It does not answer any more, or is broken: nobody could use it.
    co_await vm_->Kill();
    if (!killed_) Die(resumed.refusal().message);
    co_return;
  }
  if (!killed_) Die(ReasonOfDeath());
}

Task<Outcome<Done>> Sandbox::Pause() {
  auto self = shared_from_this();
  AsyncLock::Guard guard = co_await lock_.Acquire();
  POOL_CO_TRY(Require(SandboxState::kRunning));
  co_return co_await PauseLocked();
}

Task<Outcome<Done>> Sandbox::PauseLocked() {
  auto self = shared_from_this();
  POOL_CO_ASSIGN(std::string path, context_->shelf.NewPath());
  record_.pending = path;
  Outcome<Done> entered = Enter(SandboxState::kPausing);
  if (!entered.ok()) {
    record_.pending.clear();
    co_return entered;
  }
  deadline_.cancel();
  auto vm = vm_;
  auto done = co_await vm->Ask(Plain("pause"), kControlLimit);
  if (done.ok()) done = co_await vm->Ask(SnapshotRequest(path), kSnapshotLimit);
  Outcome<Done> paused = Done();
  if (done.ok()) paused = context_->launcher->Collect(record_.id, path, record_.base);
  if (!done.ok()) {
    paused = done.refusal();
  } else if (paused.ok()) {
    Status added = context_->shelf.Add(Describe(path));
    if (!added.ok()) paused = added.error();
  }
  if (paused.ok()) {
    record_.snapshot = path;
    record_.pending.clear();
    pid_t pid = std::exchange(record_.pid, 0);
    paused = Enter(SandboxState::kPaused, Durability::kHard);
    if (!paused.ok()) {
      record_.snapshot.clear();
      record_.pid = pid;
    }
  }
  if (!paused.ok()) {
    co_await BackToRunning();
    co_return paused;
  }
  vm_.reset();
  vm->OnExit(nullptr);
  context_->ReleaseNetwork(record_.id);
  co_await vm->Kill();
  context_->launcher->Rest(record_.id);
  lease_.Release();
  context_->tidy();
  co_return Done();
}

Task<Outcome<Done>> Sandbox::Resume(std::optional<uint32_t> timeout) {
  auto self = shared_from_this();
  AsyncLock::Guard guard = co_await lock_.Acquire();
  POOL_CO_TRY(Require(SandboxState::kPaused));
  co_return co_await ResumeLocked(timeout);
}

Task<Outcome<Done>> Sandbox::ResumeLocked(std::optional<uint32_t> timeout) {
  auto self = shared_from_this();
  context_->make_room(record_.memory_mib, record_.cpus);
  POOL_CO_ASSIGN(Capacity::Lease lease, context_->capacity.Take(record_.memory_mib, record_.cpus));
  lease_ = std::move(lease);
  Outcome<Done> resumed = Enter(SandboxState::kResuming);
  if (resumed.ok()) {
    resumed = co_await RestoreLocked();
    if (resumed.ok()) {
      SandboxRecord before = record_;
      ArmTimer(timeout.value_or(record_.timeout_seconds));
      record_.base = std::exchange(record_.snapshot, "");
      resumed = Enter(SandboxState::kRunning);
      if (!resumed.ok()) record_ = before;
    }
  }
  if (resumed.ok()) {
    Watch();
    SetTimer();
    context_->tidy();
    co_return Done();
  }
  // Whatever has run of it, nobody was told: it is as it was.
  if (vm_ != nullptr) {
    auto vm = std::exchange(vm_, nullptr);
    co_await vm->Kill();
  }
  context_->ReleaseNetwork(record_.id);
  context_->launcher->Rest(record_.id);
  lease_.Release();
  record_.pid = 0;
  if (!Enter(SandboxState::kPaused).ok()) record_.state = SandboxState::kPaused;
  co_return resumed;
}

// A process that goes on from the snapshot; READY.
Task<Outcome<Done>> Sandbox::RestoreLocked() {
  auto self = shared_from_this();
  RestoreSpec spec = {record_.snapshot, record_.id};
  auto started = co_await context_->launcher->Restore(std::move(spec));
  if (!started.ok()) co_return started.refusal();
  auto vm = Vm::Connect(context_->io, record_.id, context_->launcher->ControlPath(record_.id));
  if (!vm.ok()) {
    started->Kill();
    co_return vm.refusal();
  }
  vm_ = std::move(*vm);
  POOL_CO_TRY(Settle(vm_));
  if (killed_) co_return Refuse(Fault::kConflict, "sandbox %s was killed", record_.id.c_str());
  auto limit = std::chrono::seconds(context_->config.ready_seconds);
  POOL_CO_ASSIGN(std::vector<UniqueFd> descriptors, StartDescriptors());
  auto ready = co_await vm_->Ask(StartRequest(), limit, std::move(descriptors));
  if (!ready.ok()) co_return ready.refusal();
  co_return Done();
}

Task<Outcome<SnapshotRecord>> Sandbox::Snapshot(std::string name) {
  auto self = shared_from_this();
  AsyncLock::Guard guard = co_await lock_.Acquire();
  if (record_.state == SandboxState::kPaused) {
    // What it is resumed from is one already; the record is another, with an id of its own.
    POOL_CO_ASSIGN(std::string unused, context_->shelf.NewPath());
    SnapshotRecord about = Describe(record_.snapshot);
    about.id = fs::path(unused).filename();
    about.name = std::move(name);
    about.named = true;
    POOL_CO_TRY(context_->shelf.Add(about));
    co_return about;
  }
  POOL_CO_TRY(Require(SandboxState::kRunning));
  POOL_CO_ASSIGN(std::string path, context_->shelf.NewPath());
  SnapshotRecord about = Describe(path);
  about.name = std::move(name);
  about.named = true;
  POOL_CO_TRY(co_await WriteLocked(about, /*durable=*/true));
  co_return about;
}

Task<Outcome<SnapshotRecord>> Sandbox::SnapshotForFork(std::string path) {
  auto self = shared_from_this();
  AsyncLock::Guard guard = co_await lock_.Acquire();
  POOL_CO_TRY(Require(SandboxState::kRunning));
  SnapshotRecord about = Describe(path);
  POOL_CO_TRY(co_await WriteLocked(about, /*durable=*/false));
  co_return about;
}

Task<Outcome<Done>> Sandbox::WriteLocked(SnapshotRecord about, bool durable) {
  auto self = shared_from_this();
  record_.pending = about.path;
  Outcome<Done> entered = Enter(SandboxState::kSnapshotting);
  if (!entered.ok()) {
    record_.pending.clear();
    co_return entered;
  }
  auto vm = vm_;
  auto written = co_await vm->Ask(SnapshotRequest(about.path, durable), kSnapshotLimit);
  Outcome<Done> taken = Done();
  if (!written.ok()) {
    taken = written.refusal();
  } else {
    taken = context_->launcher->Collect(record_.id, about.path, record_.base);
  }
  if (taken.ok()) {
    Status added = context_->shelf.Add(about);
    if (!added.ok()) taken = added.error();
  }
  if (!taken.ok()) {
    co_await BackToRunning();
    co_return taken;
  }
  record_.pending.clear();
  co_return Enter(SandboxState::kRunning);
}

Task<Outcome<Done>> Sandbox::Rollback(std::string snapshot) {
  auto self = shared_from_this();
  AsyncLock::Guard guard = co_await lock_.Acquire();
  POOL_CO_TRY(Require(SandboxState::kRunning));
  POOL_CO_ASSIGN(SnapshotRecord target, context_->shelf.Find(snapshot));
  if (target.volumes != record_.volumes) {
    co_return Refuse(Fault::kConflict, "snapshot %s has other volumes than sandbox %s",
                     snapshot.c_str(), record_.id.c_str());
  }
  // Both are needed until it is known which one the memory is a mapping of.
  record_.pending = target.path;
  Outcome<Done> entered = Enter(SandboxState::kSnapshotting);
  if (!entered.ok()) {
    record_.pending.clear();
    co_return entered;
  }
  JsonWriter request;
  request.BeginObject().Key("op").String("rollback").Key("path").String(target.path).EndObject();
  auto vm = vm_;
  Outcome<Done> done = co_await context_->launcher->Show(vm->process(), target.path);
  if (done.ok()) {
    auto rolled = co_await vm->Ask(request.text(), kSnapshotLimit);
    if (!rolled.ok()) done = rolled.refusal();
  }
  if (!done.ok()) {
    co_await BackToRunning();
    co_return done;
  }
  record_.base = std::exchange(record_.pending, "");
  entered = Enter(SandboxState::kRunning);
  if (!entered.ok()) {
    // The store has the new base as `pending`, which it keeps as well.
    record_.state = SandboxState::kRunning;
    co_return entered;
  }
  context_->tidy();
  co_return Done();
}

Task<Outcome<std::vector<std::shared_ptr<Sandbox>>>> Sandbox::Fork(
    std::vector<std::string> tokens) {
  auto self = shared_from_this();
  AsyncLock::Guard guard = co_await lock_.Acquire();
  POOL_CO_TRY(Require(SandboxState::kRunning));
  std::vector<Capacity::Lease> leases;
  std::vector<std::string> ids;
  for (size_t i = 0; i < tokens.size(); ++i) {
    context_->make_room(record_.memory_mib, record_.cpus);
    POOL_CO_ASSIGN(Capacity::Lease lease,
                   context_->capacity.Take(record_.memory_mib, record_.cpus));
    leases.push_back(std::move(lease));
    POOL_CO_ASSIGN(std::string id, snapshot::NewSnapshotId());
    ids.push_back(id.substr(0, vmm::kSandboxIdSize));
  }
  JsonWriter request;
  request.BeginObject().Key("op").String("fork").Key("count").Uint(tokens.size());
  request.Key("ids").BeginArray();
  for (const std::string& id : ids) request.String(id);
  request.EndArray().Key("tokens").BeginArray();
  for (const std::string& token : tokens) request.String(token);
  request.EndArray().EndObject();
  auto vm = vm_;
  auto answer = co_await vm->Ask(request.text(), kSnapshotLimit);
  if (!answer.ok()) {
    // Some may have come up.
    for (const std::string& id : ids) {
      auto clone = Vm::Connect(context_->io, id, context_->launcher->ControlPath(id));
      if (clone.ok()) co_await clone.value()->Kill();
      context_->launcher->Forget(id);
    }
    co_return answer.refusal();
  }
  // Each takes a share of its own in place of the one that was kept for it.
  leases.clear();
  co_return co_await AdoptClones(std::move(ids), std::move(tokens));
}

Task<Outcome<std::vector<std::shared_ptr<Sandbox>>>> Sandbox::AdoptClones(
    std::vector<std::string> ids, std::vector<std::string> tokens) {
  auto self = shared_from_this();
  std::vector<std::shared_ptr<Sandbox>> clones;
  Outcome<Done> all = Done();
  for (size_t i = 0; i < ids.size(); ++i) {
    SandboxRecord record = record_;
    record.id = ids[i];
    record.token = tokens[i];
    record.created_ms = WallClockMs();
    record.state = SandboxState::kRunning;
    record.pending.clear();
    record.ports.clear();
    auto vm = Vm::Connect(context_->io, record.id, context_->launcher->ControlPath(record.id));
    if (!vm.ok()) {
      all = vm.refusal();
      continue;
    }
    auto clone = std::make_shared<Sandbox>(context_, std::move(record));
    clone->ArmTimer(record_.timeout_seconds);
    Outcome<Done> adopted = clone->Adopt(*vm);
    if (adopted.ok()) adopted = co_await clone->PlugIn();
    if (!adopted.ok()) {
      all = adopted.refusal();
      vm.value()->process().Kill();
      context_->launcher->Forget(ids[i]);
      continue;
    }
    clones.push_back(std::move(clone));
  }
  if (all.ok()) co_return clones;
  for (auto& clone : clones) (void)co_await clone->Kill();
  co_return all.refusal();
}

// A clone of a fork runs already, and its NICs have no network.
Task<Outcome<Done>> Sandbox::PlugIn() {
  auto self = shared_from_this();
  POOL_CO_ASSIGN(std::vector<UniqueFd> taps, AttachNetwork());
  if (taps.empty()) co_return Done();
  auto vm = vm_;
  auto plugged = co_await vm->Ask(Plain("plug"), kControlLimit, std::move(taps));
  if (!plugged.ok()) co_return plugged.refusal();
  co_return Done();
}

Outcome<Done> Sandbox::FoundPaused() {
  if (record_.state == SandboxState::kPausing) {
    record_.snapshot = std::exchange(record_.pending, "");
    POOL_TRY(context_->shelf.Add(Describe(record_.snapshot)));
  }
  record_.pid = 0;
  return Enter(SandboxState::kPaused, Durability::kHard);
}

Task<void> Sandbox::Recover() {
  auto self = shared_from_this();
  AsyncLock::Guard guard = co_await lock_.Acquire();
  if (record_.state == SandboxState::kPausing) {
    // It was asked for. What was written before is either not whole or will not be needed.
    record_.pending.clear();
    Outcome<Done> paused = co_await PauseLocked();
    if (!paused.ok()) spdlog::error("sandbox {}: {}", record_.id, paused.refusal().message);
    co_return;
  }
  if (record_.state != SandboxState::kSnapshotting) co_return;
  // A rollback may have come to its end: the machine knows what its memory is a mapping of.
  auto info = co_await vm_->Ask(Plain("info"), kControlLimit);
  if (info.ok()) {
    const json::value* base = info->if_contains("base");
    // Of the two there are; it has no say in what it is shown.
    if (base != nullptr && base->is_string() && base->get_string() == record_.pending) {
      record_.base = record_.pending;
    }
  }
  co_await BackToRunning();
}

}  // namespace cube::pool
