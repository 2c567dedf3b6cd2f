#include "pool/zygote.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/monotonic.h"
#include "pool/zygote_request.h"

namespace cube::pool {
namespace {

// A zygote that dies over a request does not fail it: the next one is asked. Not for ever, as the
// request may be what kills it.
constexpr int kAttempts = 2;
constexpr milliseconds kEndLimit(1'000);
// How long a zygote that died, or could not be started, is left alone: doubled each time.
constexpr uint64_t kFirstPauseMs = 50;
constexpr uint64_t kLastPauseMs = 10'000;
// So many failures in a row are taken for lasting.
constexpr uint32_t kPatience = 3;
// One that has lived so long was all right.
constexpr uint64_t kGoodLifeNs = 10'000'000'000;

// Clones that wait in their jails: 0.3 MB each.
constexpr size_t kWaiting = 4;

}  // namespace

Zygote::Zygote(asio::io_context& io, Launcher* launcher, Events* events, TemplateEntry entry,
               std::string name)
    : io_(io),
      launcher_(launcher),
      events_(events),
      entry_(std::move(entry)),
      name_(std::move(name)),
      starting_(io) {}

Task<Outcome<Done>> Zygote::Start() {
  auto self = shared_from_this();
  AsyncLock::Guard guard = co_await starting_.Acquire();
  if (running()) co_return Done();
  // Whoever wants a clone need not wait for what will hardly come.
  if (failures_ >= kPatience && MonotonicNow() < not_before_) {
    co_return Refuse(Fault::kInternal, "template %s has no zygote: %.800s", entry_.name.c_str(),
                     last_error_.c_str());
  }
  co_await Pause();
  if (stopped_)
    co_return Refuse(Fault::kConflict, "the zygote of %s is stopped", entry_.name.c_str());
  ++starts_;
  uint64_t pause_ms = std::min(kFirstPauseMs << std::min(failures_, 16u), kLastPauseMs);
  not_before_ = MonotonicNow() + pause_ms * 1'000'000;
  ++failures_;
  ZygoteSpec spec = {entry_.folder, CurrentName()};
  auto started = co_await launcher_->StartZygote(std::move(spec));
  if (!started.ok()) {
    last_error_ = started.refusal().message;
    spdlog::error("template {}: no zygote: {}", entry_.name, last_error_);
    co_return started.refusal();
  }
  process_ = std::move(*started);
  if (stopped_) {
    process_.Kill();
    co_return Refuse(Fault::kConflict, "the zygote of %s is stopped", entry_.name.c_str());
  }
  spdlog::info("template {}: zygote {} is ready", entry_.name, process_.pid());
  events_->Zygote(entry_.name, "ready");
  Spawn(io_, AwaitEnd());
  Spawn(io_, Restock());
  co_return Done();
}

Task<void> Zygote::AwaitEnd() {
  auto self = shared_from_this();
  uint64_t start = MonotonicNow();
  const std::string name = CurrentName();
  constexpr milliseconds kForEver = std::chrono::hours(24 * 365);
  co_await AwaitExit(io_, process_.fd(), kForEver);
  launcher_->ForgetZygote(name);
  if (stopped_ || process_.Alive()) co_return;
  // They could become machines; but they are of the one that has ended.
  DropWaiting();
  if (MonotonicNow() - start > kGoodLifeNs) failures_ = 0;
  last_error_ = process_.HowItEnded();
  if (last_error_.empty()) last_error_ = "it has ended";
  spdlog::warn("template {}: zygote {}: {}", entry_.name, process_.pid(), last_error_);
  events_->Zygote(entry_.name, "ended", last_error_);
  while (!stopped_ && !running()) {
    co_await Pause();
    (void)co_await Start();
  }
}

Task<void> Zygote::Pause() {
  uint64_t now = MonotonicNow();
  if (now >= not_before_) co_return;
  asio::steady_timer pause(io_);
  co_await Sleep(pause, milliseconds((not_before_ - now) / 1'000'000 + 1));
}

Task<Outcome<std::string>> Zygote::Ask() {
  for (int attempt = 1;; ++attempt) {
    POOL_CO_TRY(co_await Start());
    const uint64_t asked = starts_;
    POOL_CO_ASSIGN(CloneRequest request, launcher_->PrepareClone(CurrentName()));
    const std::string id = request.id;
    bool lost = false;
    auto made =
        co_await AskZygote(io_, launcher_->ZygoteSocket(CurrentName()), std::move(request), &lost);
    if (made.ok()) co_return id;
    // It may have been forked already: nobody will hear of it.
    launcher_->Forget(id);
    if (!lost || attempt == kAttempts) co_return made.refusal();
    // A connection is lost a moment before its process counts as ended.
    if (asked == starts_ && !co_await AwaitExit(io_, process_.fd(), kEndLimit)) {
      co_return made.refusal();
    }
  }
}

Task<std::string> Zygote::TakeWaiting() {
  while (!waiting_.empty()) {
    std::shared_ptr<WaitingClone> clone = std::move(waiting_.front());
    waiting_.pop_front();
    auto begun = co_await WaitingClone::Begin(clone);
    if (begun.ok()) co_return clone->id();
    spdlog::warn("template {}: {}", entry_.name, begun.refusal().message);
    launcher_->Forget(clone->id());
  }
  co_return "";
}

Task<Outcome<std::shared_ptr<Vm>>> Zygote::Clone(bool urgent) {
  auto self = shared_from_this();
  urgent_ += urgent;
  Outcome<std::string> id = std::string();
  if (urgent) id = co_await TakeWaiting();
  if (id->empty()) id = co_await Ask();
  urgent_ -= urgent;
  if (urgent && urgent_ == 0) Spawn(io_, Restock());
  if (!id.ok()) co_return id.refusal();
  failures_ = 0;
  auto vm = Vm::Connect(io_, *id, launcher_->ControlPath(*id));
  // Killed meanwhile.
  if (!vm.ok()) launcher_->Forget(*id);
  co_return std::move(vm);
}

Task<void> Zygote::Restock() {
  auto self = shared_from_this();
  if (std::exchange(restocking_, true)) co_return;
  while (running() && !stopped_ && urgent_ == 0 && waiting_.size() < kWaiting) {
    const uint64_t asked = starts_;
    auto request = launcher_->PrepareClone(CurrentName());
    if (!request.ok()) break;
    const std::string id = request->id;
    auto made = co_await WaitingClone::Make(io_, launcher_->ZygoteSocket(CurrentName()),
                                            std::move(*request));
    if (made.ok() && !stopped_ && asked == starts_ && running()) {
      waiting_.push_back(std::move(*made));
      continue;
    }
    launcher_->Forget(id);
    // The next clone that is asked for goes without, and tries again after that.
    if (!made.ok()) spdlog::warn("template {}: {}", entry_.name, made.refusal().message);
    break;
  }
  restocking_ = false;
}

void Zygote::DropWaiting() {
  for (const auto& clone : std::exchange(waiting_, {})) {
    clone->process().Kill();
    launcher_->Forget(clone->id());
  }
}

void Zygote::AddPids(std::set<pid_t>* pids) const {
  pids->insert(process_.pid());
  for (const auto& clone : waiting_) pids->insert(clone->process().pid());
}

void Zygote::Stop() {
  stopped_ = true;
  DropWaiting();
  process_.Kill();
  launcher_->ForgetZygote(CurrentName());
}

}  // namespace cube::pool
