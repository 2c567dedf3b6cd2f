#include "guestkernel/agent/envd/watch_call.h"

#include <cstdint>
#include <optional>
#include <utility>

namespace cube::agent::envd {

using connect::Message;
using connect::Outcome;

namespace {

constexpr char kStart[] = R"({"start":{}})";
constexpr char kKeepAlive[] = R"({"keepalive":{}})";

}  // namespace

WatchDirCall::~WatchDirCall() {
  if (watch_ != nullptr) watchers_->Remove(watch_.get());
}

void WatchDirCall::Begin(const Message& message) {
  Outcome<User> user = context_->UserOf(request());
  if (!user.ok()) return Fail(user.error());
  Outcome<std::optional<uint64_t>> limit = connect::TimeLimit(request());
  if (!limit.ok()) return Fail(limit.error());
  Outcome<WatchRequest> wanted = WatchRequest::Parse(*context_, message, *user);
  if (!wanted.ok()) return Fail(wanted.error());
  include_entry_ = wanted->include_entry;
  Outcome<std::unique_ptr<DirectoryWatch>> watch = DirectoryWatch::Create(
      context_->loop, wanted->path, wanted->recursive,
      [this](DirectoryWatch::Event event, const std::string& name) { OnEvent(event, name); });
  if (!watch.ok()) return Fail(watch.error());
  watch_ = std::move(watch).value();
  watchers_->Add(watch_.get());
  Send(kStart);
  KeepAlive(kKeepAlive);
  if (limit->has_value()) EndAfter(**limit);
}

void WatchDirCall::OnEvent(DirectoryWatch::Event event, const std::string& name) {
  Send("{\"filesystem\":" + WatchEventJson(&context_->users, *watch_, event, name, include_entry_) +
       "}");
  if (!response()->HasRoom()) watch_->Pause(true);
}

void WatchDirCall::OnDrained() {
  if (watch_ != nullptr) watch_->Pause(false);
}

}  // namespace cube::agent::envd
