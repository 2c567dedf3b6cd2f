#include "pool/zygote.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/json.hpp>

#include "base/monotonic.h"
#include "vmm/cli/control_server.h"

namespace cube::pool {
namespace {

namespace json = boost::json;

constexpr milliseconds kCloneLimit(20'000);
constexpr size_t kMaxAnswer = 64 * 1024;
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

// One request and its answer over a connection of its own.
Task<Outcome<std::string>> AskOnce(asio::io_context& io, std::string path, CloneRequest request) {
  POOL_CO_ASSIGN(UniqueFd fd, vmm::ConnectControl(path));
  std::vector<int> descriptors;
  for (const UniqueFd& one : request.descriptors) descriptors.push_back(one.get());
  POOL_CO_TRY(vmm::SendLine(fd.get(), request.line, descriptors));
  auto socket = std::make_shared<asio::local::stream_protocol::socket>(io);
  boost::system::error_code failed;
  socket->assign(asio::local::stream_protocol(), fd.get(), failed);
  if (failed) co_return Refuse(Fault::kInternal, "%s", failed.message().c_str());
  fd.Release();
  asio::steady_timer timer(io, kCloneLimit);
  timer.async_wait([socket](boost::system::error_code cancelled) {
    if (!cancelled) socket->cancel(cancelled);
  });
  std::string received;
  auto buffer = asio::dynamic_buffer(received, kMaxAnswer);
  auto [bad, size] = co_await asio::async_read_until(*socket, buffer, '\n', kAsTuple);
  timer.cancel();
  if (bad) {
    co_return Refuse(Fault::kInternal, "the zygote at %s has not answered: %s", path.c_str(),
                     bad.message().c_str());
  }
  co_return received.substr(0, size);
}

// Whether an answer tells of a clone.
Outcome<Done> CheckAnswer(const std::string& answer) {
  json::error_code failed;
  json::value value = json::parse(answer, failed);
  const json::object* object = failed ? nullptr : value.if_object();
  if (object == nullptr) return Refuse(Fault::kInternal, "a zygote answered what is no object");
  if (const json::value* error = object->if_contains("error"); error && error->is_string()) {
    return Refuse(Fault::kInternal, "%.900s", error->get_string().c_str());
  }
  return Done();
}

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
    auto answer = co_await AskOnce(io_, launcher_->ZygoteSocket(CurrentName()), std::move(request));
    if (answer.ok()) {
      Outcome<Done> made = CheckAnswer(*answer);
      if (made.ok()) co_return id;
      launcher_->Forget(id);
      co_return made.refusal();
    }
    // It may have been forked already: nobody will hear of it.
    launcher_->Forget(id);
    if (attempt == kAttempts) co_return answer.refusal();
    // A connection is lost a moment before its process counts as ended.
    if (asked == starts_ && !co_await AwaitExit(io_, process_.fd(), kEndLimit)) {
      co_return answer.refusal();
    }
  }
}

Task<Outcome<std::shared_ptr<Vm>>> Zygote::Clone() {
  auto self = shared_from_this();
  POOL_CO_ASSIGN(std::string id, co_await Ask());
  failures_ = 0;
  auto vm = Vm::Connect(io_, id, launcher_->ControlPath(id));
  // Killed meanwhile.
  if (!vm.ok()) launcher_->Forget(id);
  co_return std::move(vm);
}

void Zygote::Stop() {
  stopped_ = true;
  process_.Kill();
  launcher_->ForgetZygote(CurrentName());
}

}  // namespace cube::pool
