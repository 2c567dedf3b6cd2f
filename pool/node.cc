#include "pool/node.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <filesystem>
#include <set>

#include "base/control_abi.h"
#include "base/monotonic.h"
#include "pool/descriptor_reserve.h"
#include "pool/sandbox_id.h"
#include "pool/volume_mounts.h"

namespace cube::pool {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxMetadata = 64;
constexpr size_t kMaxMetadataString = 4096;
constexpr size_t kMaxToken = 256;
// Of the mailbox's page of identity, what id and hostname need at most is left.
constexpr size_t kMaxIdentity = abi::kMaxIdentityStrings - 256;
// Parked clones that die as they are started: so many are tried.
constexpr int kTries = 3;
// Refills wait for so long after a create: the next one may come right behind.
constexpr uint64_t kQuietNs = 15'000'000;
constexpr milliseconds kRound(1000);
constexpr uint64_t kRoundsToLook = 60;  // for processes that nobody knows

Outcome<Done> CheckToken(const std::string& token) {
  if (token.size() <= kMaxToken && token.find('\0') == std::string::npos) return Done();
  return Refuse(Fault::kInvalid, "an access token has at most %zu characters", kMaxToken);
}

struct Counted {
  explicit Counted(uint32_t* count) : count_(count) { ++*count_; }
  ~Counted() { --*count_; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  uint32_t* count_;
};

}  // namespace

Result<std::unique_ptr<Node>> Node::Create(asio::io_context& io, Config config,
                                           std::unique_ptr<Launcher> launcher) {
  std::string folder = config.home + "/node";
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (failed) return Errorf("%s: %s", folder.c_str(), failed.message().c_str());
  CUBE_ASSIGN(Store store, Store::Open(folder + "/node.db"));
  // Beside the templates: what builds on one of them is seen there by `cube-vmm template rm`.
  auto context = std::make_unique<NodeContext>(io, std::move(launcher), std::move(store),
                                               config.home + "/snapshots");
  CUBE_TRY(context->shelf.Open());
  context->capacity.Configure(config);
  if (config.network.enabled) {
    auto network = NodeNetwork::Open(io, config.network);
    if (network.ok()) {
      context->network = std::move(*network);
    } else {
      spdlog::error("SANDBOXES HAVE NO NETWORK: {}", network.error().message());
    }
  }
  context->config = std::move(config);
  return std::unique_ptr<Node>(new Node(std::move(context), std::move(folder)));
}

Node::Node(std::unique_ptr<NodeContext> context, std::string folder)
    : context_(std::move(context)),
      folder_(std::move(folder)),
      registry_(
          context_->io, context_->config.home + "/templates",
          [this](const TemplateEntry& entry, const char* change) { OnTemplate(entry, change); }),
      rounds_(context_->io) {
  context_->make_room = [this](uint64_t memory_mib, uint32_t cpus) { MakeRoom(memory_mib, cpus); };
  context_->forget = [this](const std::string& id) { sandboxes_.erase(id); };
  context_->tidy = [this] { Tidy(); };
}

Node::~Node() = default;

Task<Outcome<Done>> Node::Start() {
  POOL_CO_TRY(co_await Recover());
  recovered_ = true;
  POOL_CO_TRY(registry_.Start());
  Spawn(context_->io, LookAfter());
  co_return Done();
}

void Node::Stop() {
  stopped_ = true;
  rounds_.cancel();
  registry_.Stop();
  while (!templates_.empty()) Remove(templates_.begin()->first);
  // Which machines are sandboxes' is not known yet: the next daemon finds it out.
  if (!recovered_) return;
  // What is just being started nobody was told of; but it would outlive this process.
  std::set<pid_t> kept;
  for (const auto& [id, sandbox] : sandboxes_) {
    if (sandbox->vm() != nullptr) kept.insert(sandbox->vm()->process().pid());
  }
  for (const ProcessHandle& process : context_->launcher->FindAll()) {
    if (!kept.contains(process.pid())) process.Kill();
  }
}

void Node::OnTemplate(const TemplateEntry& entry, const char* change) {
  spdlog::info("template {} {}", entry.name, change);
  context_->events.Template(entry.name, change);
  bool usable = entry.error.empty() && std::string_view(change) != "removed";
  if (!usable) {
    Remove(entry.name);
  } else if (templates_.contains(entry.name)) {
    Spawn(context_->io, Replace(entry));
  } else if (!stopped_ && !draining_) {
    auto made = templates_.emplace(entry.name, MakeTemplate(entry)).first;
    made->second.pool->Refill();
  }
}

Node::TemplateState Node::MakeTemplate(const TemplateEntry& entry) {
  TemplateState state;
  std::string name =
      Format("zygote-%d-%llu", getpid(), static_cast<unsigned long long>(next_zygote_++));
  state.zygote = std::make_shared<Zygote>(context_->io, context_->launcher.get(), &context_->events,
                                          entry, std::move(name));
  WarmPool::Hooks hooks;
  hooks.clone = [zygote = state.zygote](bool urgent) { return zygote->Clone(urgent); };
  hooks.make_room = context_->make_room;
  hooks.busy = [this] { return creating_ != 0 || MonotonicNow() - last_create_ < kQuietNs; };
  hooks.discard = [this](const std::shared_ptr<Vm>& vm) { Discard(vm); };
  state.pool =
      std::make_shared<WarmPool>(context_->io, &context_->capacity, entry.memory_mib, entry.cpus,
                                 context_->config.PoolOf(entry.name), std::move(hooks));
  return state;
}

// The old zygote serves until the new one does.
Task<void> Node::Replace(TemplateEntry entry) {
  TemplateState next = MakeTemplate(entry);
  auto started = co_await next.zygote->Start();
  auto current = registry_.entries().find(entry.name);
  bool is_newest = current != registry_.entries().end() && current->second.id == entry.id;
  if (!started.ok() || !is_newest || stopped_ || draining_) {
    next.zygote->Stop();
    co_return;
  }
  Remove(entry.name);
  next.pool->Refill();
  templates_[entry.name] = std::move(next);
}

void Node::Remove(const std::string& name) {
  auto found = templates_.find(name);
  if (found == templates_.end()) return;
  TemplateState gone = std::move(found->second);
  templates_.erase(found);
  gone.pool->Close();
  gone.zygote->Stop();
}

void Node::Discard(const std::shared_ptr<Vm>& vm) {
  vm->process().Kill();
  context_->ReleaseNetwork(vm->id());
  context_->launcher->Forget(vm->id());
}

void Node::MakeRoom(uint64_t memory_mib, uint32_t cpus) {
  while (!context_->capacity.Take(memory_mib, cpus).ok()) {
    WarmPool* fullest = nullptr;
    for (auto& [name, state] : templates_) {
      if (fullest == nullptr || state.pool->parked() > fullest->parked()) {
        fullest = state.pool.get();
      }
    }
    if (fullest == nullptr || !fullest->Evict()) return;
  }
}

Outcome<Done> Node::CheckTimeout(uint32_t seconds) const {
  if (seconds <= context_->config.max_timeout_seconds) return Done();
  return Refuse(Fault::kInvalid, "a timeout of %u s is more than the %u allowed here", seconds,
                context_->config.max_timeout_seconds);
}

Outcome<Done> Node::Check(CreateRequest* asked) const {
  const CreateRequest& request = *asked;
  if (request.template_name.empty() == request.snapshot.empty()) {
    return Refuse(Fault::kInvalid, "a sandbox is created from either a template or a snapshot");
  }
  if (request.timeout_seconds) POOL_TRY(CheckTimeout(*request.timeout_seconds));
  if (request.metadata.size() > kMaxMetadata) {
    return Refuse(Fault::kInvalid, "%zu entries of metadata are more than %zu",
                  request.metadata.size(), kMaxMetadata);
  }
  for (const auto& [key, value] : request.metadata) {
    if (key.size() > kMaxMetadataString || value.size() > kMaxMetadataString) {
      return Refuse(Fault::kInvalid, "metadata \"%.64s\" has more than %zu bytes", key.c_str(),
                    kMaxMetadataString);
    }
  }
  POOL_ASSIGN(asked->volumes, CheckVolumeMounts(std::move(asked->volumes)));
  size_t size = request.token.size();
  for (const VolumeMount& mount : request.volumes) size += mount.path.size() + 1;
  for (const std::string& variable : request.environment) {
    size_t equals = variable.find('=');
    if (equals == std::string::npos || equals == 0 || variable.find('\0') != std::string::npos) {
      return Refuse(Fault::kInvalid, "\"%.64s\" is not NAME=VALUE", variable.c_str());
    }
    size += variable.size() + 1;
  }
  POOL_TRY(CheckToken(request.token));
  if (size > kMaxIdentity) {
    return Refuse(Fault::kInvalid, "token, volumes and environment have %zu bytes of at most %zu",
                  size, kMaxIdentity);
  }
  return Done();
}

SandboxRecord Node::NewRecord(const CreateRequest& request) const {
  SandboxRecord record;
  record.created_ms = WallClockMs();
  record.timeout_seconds = request.timeout_seconds.value_or(context_->config.timeout_seconds);
  record.on_timeout = request.on_timeout.value_or(context_->config.on_timeout);
  record.limits = request.limits;
  record.network = request.network;
  record.volumes = request.volumes;
  record.token = request.token;
  record.environment = request.environment;
  record.metadata = request.metadata;
  record.annotation = request.annotation;
  return record;
}

Outcome<Done> Node::Admit() const {
  if (draining_) return Refuse(Fault::kDraining, "this node is being drained");
  uint32_t limit = context_->config.max_sandboxes;
  if (sandboxes_.size() < limit) return CheckDescriptors();
  return Refuse(Fault::kNoCapacity, "no capacity: there are %zu sandboxes of at most %u",
                sandboxes_.size(), limit);
}

Task<Outcome<Created>> Node::Create(CreateRequest request) {
  POOL_CO_TRY(Check(&request));
  POOL_CO_TRY(Admit());
  Counted counted(&creating_);
  Outcome<Created> created = Refusal();
  if (request.snapshot.empty()) {
    created = co_await CreateFromTemplate(std::move(request));
  } else {
    created = co_await CreateFromSnapshot(std::move(request));
  }
  last_create_ = MonotonicNow();
  ++(created.ok() ? creates_ : failed_creates_);
  co_return std::move(created);
}

Task<Outcome<Created>> Node::CreateFromTemplate(CreateRequest request) {
  Outcome<Created> failed = Refuse(Fault::kInternal, "no sandbox was tried");
  for (int i = 0; i < kTries; ++i) {
    POOL_CO_ASSIGN(TemplateEntry entry, registry_.Find(request.template_name));
    POOL_CO_TRY(CheckVolumeCount(request.volumes, entry.volume_devices, "template " + entry.name));
    auto found = templates_.find(request.template_name);
    if (found == templates_.end()) {
      co_return Refuse(Fault::kDraining, "this node is being drained");
    }
    auto pool = found->second.pool;
    auto zygote = found->second.zygote;
    auto taken = co_await pool->Take();
    if (!taken.ok()) co_return taken.refusal();
    SandboxRecord record = NewRecord(request);
    record.id = taken->vm->id();
    record.template_name = zygote->entry().name;
    record.base = zygote->entry().folder;
    record.memory_mib = zygote->entry().memory_mib;
    record.cpus = zygote->entry().cpus;
    auto sandbox = std::make_shared<Sandbox>(context_.get(), std::move(record));
    sandboxes_[sandbox->id()] = sandbox;
    bool was_parked = taken->was_parked;
    auto vm = taken->vm;
    auto begun = co_await sandbox->Begin(vm, std::move(taken->lease));
    if (begun.ok()) {
      Created created;
      created.sandbox = std::move(sandbox);
      created.was_parked = was_parked;
      co_return created;
    }
    sandboxes_.erase(sandbox->id());
    Discard(vm);
    failed = begun.refusal();
    spdlog::warn("sandbox {}: {}", sandbox->id(), begun.refusal().message);
    // What had been parked may have died there; what was made just now tells of something else.
    if (!was_parked || failed.refusal().fault != Fault::kInternal) break;
  }
  co_return failed;
}

Task<Outcome<Created>> Node::CreateFromSnapshot(CreateRequest request) {
  POOL_CO_ASSIGN(SnapshotRecord snapshot, context_->shelf.Find(request.snapshot));
  co_return co_await CreateFrom(std::move(snapshot), std::move(request));
}

Task<Outcome<Created>> Node::CreateFrom(SnapshotRecord snapshot, CreateRequest request) {
  POOL_CO_ASSIGN(request.volumes, AddVolumeMounts(snapshot.volumes, request.volumes));
  if (request.volumes.size() > snapshot.volumes.size()) {
    POOL_CO_ASSIGN(size_t devices, VolumeDevicesOf(snapshot.path));
    POOL_CO_TRY(CheckVolumeCount(request.volumes, devices, "snapshot " + snapshot.id));
  }
  MakeRoom(snapshot.memory_mib, snapshot.cpus);
  POOL_CO_ASSIGN(Capacity::Lease lease,
                 context_->capacity.Take(snapshot.memory_mib, snapshot.cpus));
  SandboxRecord record = NewRecord(request);
  POOL_CO_ASSIGN(record.id, NewSandboxId());
  record.template_name = snapshot.template_name;
  record.base = snapshot.path;
  record.memory_mib = snapshot.memory_mib;
  record.cpus = snapshot.cpus;
  auto sandbox = std::make_shared<Sandbox>(context_.get(), std::move(record));
  // From here on the snapshot is kept for it.
  sandboxes_[sandbox->id()] = sandbox;
  RestoreSpec spec = {snapshot.path, sandbox->id()};
  auto process = co_await context_->launcher->Restore(std::move(spec));
  Outcome<Done> begun = Done();
  if (!process.ok()) {
    begun = process.refusal();
  } else {
    auto vm =
        Vm::Connect(context_->io, sandbox->id(), context_->launcher->ControlPath(sandbox->id()));
    if (!vm.ok()) {
      begun = vm.refusal();
    } else {
      begun = co_await sandbox->Begin(*vm, std::move(lease));
    }
    if (!begun.ok()) process->Kill();
  }
  if (begun.ok()) {
    Created created;
    created.sandbox = std::move(sandbox);
    co_return created;
  }
  context_->ReleaseNetwork(sandbox->id());
  context_->launcher->Forget(sandbox->id());
  sandboxes_.erase(sandbox->id());
  Tidy();
  co_return begun.refusal();
}

Outcome<std::shared_ptr<Sandbox>> Node::Find(const std::string& id) const {
  auto found = sandboxes_.find(id);
  if (found != sandboxes_.end()) return found->second;
  return Refuse(Fault::kNotFound, "there is no sandbox \"%.64s\"", id.c_str());
}

Task<Outcome<std::vector<std::shared_ptr<Sandbox>>>> Node::Fork(std::string id, uint32_t count,
                                                                std::vector<std::string> tokens) {
  constexpr uint32_t kMaxClones = 100;
  POOL_CO_TRY(Admit());
  if (count < 1 || count > kMaxClones) {
    co_return Refuse(Fault::kInvalid, "%u clones at once are not between 1 and %u", count,
                     kMaxClones);
  }
  if (tokens.empty()) tokens.resize(count);
  if (tokens.size() != count) {
    co_return Refuse(Fault::kInvalid, "%zu tokens for %u clones", tokens.size(), count);
  }
  for (const std::string& token : tokens) POOL_CO_TRY(CheckToken(token));
  if (sandboxes_.size() + count > context_->config.max_sandboxes) {
    co_return Refuse(Fault::kNoCapacity, "no capacity: there are %zu sandboxes of at most %u",
                     sandboxes_.size(), context_->config.max_sandboxes);
  }
  POOL_CO_ASSIGN(std::shared_ptr<Sandbox> parent, Find(id));
  // The child of a fork is given nothing before it runs, and a volume comes with the start.
  if (!context_->launcher->CanFork() || !parent->record().volumes.empty()) {
    co_return co_await ForkBySnapshot(std::move(parent), std::move(tokens));
  }
  auto clones = co_await parent->Fork(std::move(tokens));
  if (clones.ok()) {
    for (const auto& clone : *clones) sandboxes_[clone->id()] = clone;
  }
  co_return std::move(clones);
}

Outcome<Done> Node::DeleteSnapshot(const std::string& id) {
  POOL_TRY(context_->shelf.Disown(id));
  Tidy();
  return Done();
}

Outcome<Done> Node::CheckVolumeUnused(const std::string& volume) const {
  for (const auto& [id, sandbox] : sandboxes_) {
    const SandboxRecord& record = sandbox->record();
    // What is dead does not come back.
    if (record.state == SandboxState::kDead) continue;
    for (const VolumeMount& mount : record.volumes) {
      if (mount.volume != volume) continue;
      return Refuse(Fault::kConflict, "volume \"%s\" is in use by sandbox %s, which is %s",
                    mount.name.c_str(), id.c_str(), StateName(record.state));
    }
  }
  return Done();
}

// Once for all that became superfluous meanwhile, and after whoever waits has been answered.
void Node::Tidy() {
  if (std::exchange(tidying_, true)) return;
  asio::post(context_->io, [this] {
    tidying_ = false;
    std::set<std::string> roots(held_.begin(), held_.end());
    for (const auto& [id, sandbox] : sandboxes_) {
      const SandboxRecord& record = sandbox->record();
      for (const std::string* path : {&record.base, &record.snapshot, &record.pending}) {
        if (!path->empty()) roots.insert(*path);
      }
    }
    context_->shelf.Collect(roots);
  });
}

Task<Outcome<Done>> Node::Drain(bool pause) {
  draining_ = true;
  context_->events.Node("draining");
  spdlog::info("draining: {} sandboxes", sandboxes_.size());
  while (!templates_.empty()) Remove(templates_.begin()->first);
  asio::steady_timer timer(context_->io);
  for (;;) {
    std::vector<std::shared_ptr<Sandbox>> busy;
    for (const auto& [id, sandbox] : sandboxes_) {
      if (sandbox->state() != SandboxState::kPaused && sandbox->state() != SandboxState::kDead) {
        busy.push_back(sandbox);
      }
    }
    if (busy.empty()) co_return Done();
    for (const auto& sandbox : busy) {
      if (!pause || sandbox->state() != SandboxState::kRunning) continue;
      auto paused = co_await sandbox->Pause();
      if (!paused.ok() && sandbox->state() == SandboxState::kRunning) co_return paused;
    }
    if (!co_await Sleep(timer, milliseconds(20))) co_return Done();
  }
}

void Node::Reload(Config config) {
  context_->capacity.Configure(config);
  context_->config = std::move(config);
  for (auto& [name, state] : templates_) state.pool->Configure(context_->config.PoolOf(name));
  context_->events.Node("reloaded");
}

Task<void> Node::LookAfter() {
  uint64_t round = 0;
  while (co_await Sleep(rounds_, kRound)) {
    if (stopped_) co_return;
    if (++round % kRoundsToLook == 0) EndUnknown();
    if (context_->capacity.UnderPressure()) {
      for (auto& [name, state] : templates_) state.pool->Evict();
    }
    std::vector<std::shared_ptr<Sandbox>> forgotten;
    for (const auto& [id, sandbox] : sandboxes_) {
      if (sandbox->state() == SandboxState::kDead &&
          sandbox->record().deadline_ms <= WallClockMs()) {
        forgotten.push_back(sandbox);
      }
    }
    for (const auto& sandbox : forgotten) (void)co_await sandbox->Kill();
  }
}

}  // namespace cube::pool
