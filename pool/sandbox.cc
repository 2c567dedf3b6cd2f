#include "pool/sandbox.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>

#include "base/json_writer.h"
#include "base/unique_fd.h"
#include "pool/jail/place.h"

namespace cube::pool {
namespace {

// A timeout that could not be acted upon is tried again.
constexpr uint32_t kRetrySeconds = 10;

}  // namespace

Sandbox::Sandbox(NodeContext* context, SandboxRecord record)
    : context_(context), record_(std::move(record)), lock_(context->io), deadline_(context->io) {}

Outcome<Done> Sandbox::Enter(SandboxState state, Durability durability) {
  SandboxState before = std::exchange(record_.state, state);
  Status put = context_->store.Put(record_, durability);
  if (!put.ok()) {
    record_.state = before;
    return put.error();
  }
  if (before != state) context_->events.Sandbox(record_.id, StateName(state), record_.reason);
  return Done();
}

Outcome<Done> Sandbox::Require(SandboxState state) const {
  if (record_.state == state) return Done();
  if (record_.state == SandboxState::kDead) {
    return Refuse(Fault::kConflict, "sandbox %s is dead: %.800s", record_.id.c_str(),
                  record_.reason.c_str());
  }
  return Refuse(Fault::kConflict, "sandbox %s is %s, not %s", record_.id.c_str(),
                StateName(record_.state), StateName(state));
}

std::string Sandbox::StartRequest() const {
  JsonWriter json;
  json.BeginObject().Key("op").String("start").Key("token").String(record_.token);
  json.Key("environment").BeginArray();
  for (const std::string& variable : record_.environment) json.String(variable);
  json.EndArray().Key("volumes").BeginArray();
  for (const VolumeMount& mount : record_.volumes) json.String(mount.path);
  return json.EndArray().EndObject().text();
}

Outcome<Done> Sandbox::Settle(const std::shared_ptr<Vm>& vm) {
  record_.pid = vm->process().pid();
  record_.start_ticks = vm->process().start_ticks();
  record_.boot_id = context_->boot_id;
  record_.vsock = context_->launcher->VsockPath(record_.id);
  return context_->launcher->Confine(record_.id, vm->process(), record_.limits);
}

Outcome<std::vector<UniqueFd>> Sandbox::AttachNetwork() {
  std::vector<UniqueFd> taps;
  if (context_->network == nullptr) return taps;
  POOL_ASSIGN(UniqueFd tap, context_->network->Attach(record_.id, record_.network));
  for (const net::PortMapping& mapping : record_.ports) {
    Status mapped = context_->network->fabric().MapPort(record_.id, mapping);
    if (!mapped.ok()) spdlog::warn("sandbox {}: {}", record_.id, mapped.error().message());
  }
  if (tap.valid()) taps.push_back(std::move(tap));
  return taps;
}

Outcome<std::vector<UniqueFd>> Sandbox::StartDescriptors() {
  std::vector<UniqueFd> volumes;
  for (const VolumeMount& mount : record_.volumes) {
    const std::string folder = context_->config.home + "/volumes/" + mount.volume;
    if (access(folder.c_str(), F_OK) < 0) {
      return Refuse(Fault::kConflict, "volume \"%s\", which sandbox %s has at \"%s\", is gone",
                    mount.name.c_str(), record_.id.c_str(), mount.path.c_str());
    }
    POOL_ASSIGN(UniqueFd volume, context_->launcher->OpenVolume(record_.id, folder));
    volumes.push_back(std::move(volume));
  }
  POOL_ASSIGN(std::vector<UniqueFd> all, AttachNetwork());
  for (UniqueFd& volume : volumes) all.push_back(std::move(volume));
  return all;
}

Task<Outcome<Done>> Sandbox::SetNetwork(net::Policy policy) {
  auto self = shared_from_this();
  AsyncLock::Guard guard = co_await lock_.Acquire();
  if (record_.state != SandboxState::kPaused) POOL_CO_TRY(Require(SandboxState::kRunning));
  net::Policy before = std::exchange(record_.network, std::move(policy));
  Outcome<Done> set = Done();
  if (context_->network != nullptr) set = context_->network->SetPolicy(record_.id, record_.network);
  if (set.ok()) set = Enter(record_.state, Durability::kHard);
  if (set.ok()) co_return Done();
  record_.network = std::move(before);
  if (context_->network != nullptr) {
    (void)context_->network->SetPolicy(record_.id, record_.network);
  }
  co_return set;
}

Task<Outcome<Done>> Sandbox::MapPort(net::PortMapping mapping) {
  auto self = shared_from_this();
  AsyncLock::Guard guard = co_await lock_.Acquire();
  POOL_CO_TRY(Require(SandboxState::kRunning));
  Status mapped = context_->network->fabric().MapPort(record_.id, mapping);
  if (!mapped.ok()) {
    co_return Refuse(Fault::kInvalid, "%s", mapped.error().message().c_str());
  }
  if (std::ranges::count(record_.ports, mapping) != 0) co_return Done();
  record_.ports.push_back(mapping);
  Outcome<Done> entered = Enter(record_.state, Durability::kHard);
  if (entered.ok()) co_return entered;
  record_.ports.pop_back();
  (void)context_->network->fabric().UnmapPort(mapping.protocol, mapping.host_port);
  co_return entered;
}

Task<Outcome<Done>> Sandbox::UnmapPort(uint8_t protocol, uint16_t host_port) {
  auto self = shared_from_this();
  AsyncLock::Guard guard = co_await lock_.Acquire();
  if (record_.state != SandboxState::kPaused) POOL_CO_TRY(Require(SandboxState::kRunning));
  auto is_it = [&](const net::PortMapping& each) {
    return each.protocol == protocol && each.host_port == host_port;
  };
  auto found = std::ranges::find_if(record_.ports, is_it);
  if (found == record_.ports.end()) {
    co_return Refuse(Fault::kNotFound, "port %u does not lead to sandbox %s", host_port,
                     record_.id.c_str());
  }
  // It may be another's by now.
  if (std::ranges::any_of(context_->network->fabric().Ports(record_.id), is_it)) {
    (void)context_->network->fabric().UnmapPort(protocol, host_port);
  }
  record_.ports.erase(found);
  co_return Enter(record_.state, Durability::kHard);
}

Task<Outcome<Done>> Sandbox::Begin(std::shared_ptr<Vm> vm, Capacity::Lease lease) {
  auto self = shared_from_this();
  AsyncLock::Guard guard = co_await lock_.Acquire();
  POOL_CO_TRY(Settle(vm));
  // The guest wakes up while the store is written. A daemon that dies before that leaves a machine
  // which nobody knows, and which the next one ends.
  POOL_CO_ASSIGN(std::vector<UniqueFd> descriptors, StartDescriptors());
  POOL_CO_TRY(vm->Post(StartRequest(), descriptors));
  descriptors.clear();
  record_.state = SandboxState::kCreating;
  Outcome<Done> stored = Enter(SandboxState::kCreating);
  auto ready = co_await vm->Answer(std::chrono::seconds(context_->config.ready_seconds));
  Outcome<Done> running = Refusal();
  if (killed_) {
    running = Refuse(Fault::kConflict, "sandbox %s was killed", record_.id.c_str());
  } else if (!stored.ok()) {
    running = stored.refusal();
  } else if (!ready.ok()) {
    running = ready.refusal();
  } else {
    ArmTimer(record_.timeout_seconds);
    running = Enter(SandboxState::kRunning);
  }
  if (!running.ok()) {
    deadline_.cancel();
    (void)context_->store.RemoveSandbox(record_.id);
    co_return running;
  }
  vm_ = std::move(vm);
  lease_ = std::move(lease);
  Watch();
  SetTimer();
  co_return Done();
}

Outcome<Done> Sandbox::Adopt(std::shared_ptr<Vm> vm) {
  POOL_TRY(Settle(vm));
  POOL_TRY(Enter(record_.state));
  vm_ = std::move(vm);
  lease_ = context_->capacity.Adopt(record_.memory_mib, record_.cpus);
  if (context_->network != nullptr) {
    POOL_TRY(context_->network->Adopt(record_.id, record_.network));
  }
  Watch();
  SetTimer();
  return Done();
}

void Sandbox::Watch() {
  vm_->OnExit([weak = weak_from_this()] {
    if (auto sandbox = weak.lock()) Spawn(sandbox->context_->io, sandbox->OnExit());
  });
}

Task<void> Sandbox::OnExit() {
  auto self = shared_from_this();
  AsyncLock::Guard guard = co_await lock_.Acquire();
  // A request that was under way may have seen to it.
  if (vm_ == nullptr || vm_->Alive() || record_.state == SandboxState::kDead) co_return;
  Die(ReasonOfDeath());
}

// The last words of its log; else how the kernel says it ended.
std::string Sandbox::ReasonOfDeath() const {
  if (vm_ != nullptr) {
    std::string why = context_->launcher->WhyEnded(record_.id, vm_->process());
    if (!why.empty()) return why;
  }
  constexpr size_t kTail = 4096;
  std::string text;
  auto log = OpenNoLinks(context_->launcher->LogPath(record_.id), O_RDONLY | O_NONBLOCK);
  if (log.ok()) {
    off_t size = lseek(log->get(), 0, SEEK_END);
    text.resize(kTail);
    ssize_t n = pread(log->get(), text.data(), kTail, std::max<off_t>(0, size - off_t{kTail}));
    text.resize(n > 0 ? static_cast<size_t>(n) : 0);
  }
  constexpr std::string_view kPrefix = "cube-vmm: ";
  size_t place = text.rfind(kPrefix);
  if (place != std::string::npos && (place == 0 || text[place - 1] == '\n')) {
    place += kPrefix.size();
    return text.substr(place, text.find('\n', place) - place);
  }
  std::string how = vm_ != nullptr ? vm_->process().HowItEnded() : "";
  return how.empty() ? "its process ended without a word" : "its process was " + how;
}

void Sandbox::Die(const std::string& reason) {
  deadline_.cancel();
  record_.reason = reason;
  record_.pid = 0;
  record_.pending.clear();
  // From when on it need not be told of any more.
  record_.deadline_ms = WallClockMs() + int64_t{context_->config.keep_dead_seconds} * 1000;
  lease_.Release();
  context_->ReleaseNetwork(record_.id);
  vm_.reset();
  context_->launcher->Rest(record_.id);
  spdlog::warn("sandbox {} is dead: {}", record_.id, reason);
  Outcome<Done> entered = Enter(SandboxState::kDead);
  if (!entered.ok()) {
    // It is dead all the same; the next daemon will find that out again.
    record_.state = SandboxState::kDead;
    context_->events.Sandbox(record_.id, "dead", reason);
    spdlog::error("sandbox {}: {}", record_.id, entered.refusal().message);
  }
  context_->tidy();
}

void Sandbox::FoundDead(const std::string& reason) {
  Die(reason.empty() ? ReasonOfDeath() : reason);
}

void Sandbox::ArmTimer(uint32_t seconds) {
  record_.timeout_seconds = seconds;
  record_.deadline_ms = WallClockMs() + int64_t{seconds} * 1000;
}

void Sandbox::SetTimer() {
  deadline_.cancel();
  if (record_.deadline_ms == 0) return;
  deadline_.expires_after(milliseconds(std::max<int64_t>(0, record_.deadline_ms - WallClockMs())));
  deadline_.async_wait([weak = weak_from_this()](boost::system::error_code cancelled) {
    auto sandbox = weak.lock();
    if (!cancelled && sandbox != nullptr) Spawn(sandbox->context_->io, sandbox->OnDeadline());
  });
}

Task<void> Sandbox::OnDeadline() {
  auto self = shared_from_this();
  if (killed_ || record_.state == SandboxState::kPaused || record_.state == SandboxState::kDead) {
    co_return;
  }
  // It may have been given more time meanwhile; and the two clocks differ.
  if (record_.deadline_ms > WallClockMs()) {
    SetTimer();
    co_return;
  }
  spdlog::info("sandbox {}: its time is over", record_.id);
  Outcome<Done> done = Done();
  if (record_.on_timeout == OnTimeout::kPause) {
    done = co_await Pause();
  } else {
    done = co_await Kill();
  }
  if (done.ok() || killed_ || record_.state != SandboxState::kRunning) co_return;
  spdlog::error("sandbox {}: {}", record_.id, done.refusal().message);
  deadline_.expires_after(std::chrono::seconds(kRetrySeconds));
  deadline_.async_wait([weak = weak_from_this()](boost::system::error_code cancelled) {
    auto sandbox = weak.lock();
    if (!cancelled && sandbox != nullptr) Spawn(sandbox->context_->io, sandbox->OnDeadline());
  });
}

Task<Outcome<Done>> Sandbox::SetTimeout(uint32_t seconds) {
  auto self = shared_from_this();
  AsyncLock::Guard guard = co_await lock_.Acquire();
  POOL_CO_TRY(Require(SandboxState::kRunning));
  int64_t deadline = record_.deadline_ms;
  uint32_t timeout = record_.timeout_seconds;
  ArmTimer(seconds);
  Outcome<Done> entered = Enter(SandboxState::kRunning);
  if (!entered.ok()) {
    record_.deadline_ms = deadline;
    record_.timeout_seconds = timeout;
    co_return entered;
  }
  SetTimer();
  co_return Done();
}

Task<Outcome<Done>> Sandbox::Annotate(std::string annotation) {
  auto self = shared_from_this();
  AsyncLock::Guard guard = co_await lock_.Acquire();
  if (killed_) co_return Refuse(Fault::kNotFound, "sandbox %s was killed", record_.id.c_str());
  std::swap(record_.annotation, annotation);
  Outcome<Done> entered = Enter(record_.state);
  if (!entered.ok()) std::swap(record_.annotation, annotation);
  co_return entered;
}

Task<Outcome<Done>> Sandbox::Connect(std::optional<uint32_t> timeout) {
  auto self = shared_from_this();
  AsyncLock::Guard guard = co_await lock_.Acquire();
  if (record_.state == SandboxState::kPaused) co_return co_await ResumeLocked(timeout);
  POOL_CO_TRY(Require(SandboxState::kRunning));
  if (!timeout || WallClockMs() + int64_t{*timeout} * 1000 <= record_.deadline_ms) {
    co_return Done();
  }
  ArmTimer(*timeout);
  Outcome<Done> entered = Enter(SandboxState::kRunning);
  if (entered.ok()) SetTimer();
  co_return entered;
}

Task<Outcome<Done>> Sandbox::Kill() {
  auto self = shared_from_this();
  if (killed_) {
    co_return Refuse(Fault::kNotFound, "sandbox %s is being killed", record_.id.c_str());
  }
  killed_ = true;
  // Whoever has the lock is waiting for the machine: it need not wait longer.
  if (lock_.held() && vm_ != nullptr) vm_->process().Kill();
  AsyncLock::Guard guard = co_await lock_.Acquire();
  deadline_.cancel();
  // Not stopped by a store that is full: what is gone cannot be kept.
  Outcome<Done> entered = Enter(SandboxState::kKilling);
  if (!entered.ok()) spdlog::error("sandbox {}: {}", record_.id, entered.refusal().message);
  if (vm_ != nullptr) {
    auto vm = std::exchange(vm_, nullptr);
    vm->OnExit(nullptr);
    co_await vm->Kill();
  }
  lease_.Release();
  context_->ReleaseNetwork(record_.id);
  context_->launcher->Forget(record_.id);
  Status removed = context_->store.RemoveSandbox(record_.id);
  if (!removed.ok()) spdlog::error("sandbox {}: {}", record_.id, removed.error().message());
  context_->events.Sandbox(record_.id, "gone");
  context_->forget(record_.id);
  context_->tidy();
  co_return Done();
}

}  // namespace cube::pool
