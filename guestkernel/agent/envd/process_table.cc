#include "guestkernel/agent/envd/process_table.h"

#include <fcntl.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "base/monotonic.h"

namespace cube::agent::envd {

using connect::Code;
using connect::Outcome;
using connect::RpcError;

Outcome<std::shared_ptr<Process>> ProcessTable::Start(ProcessRequest request, const User& user) {
  if (!request.has_stdin && !nothing_.valid()) {
    Result<UniqueFd> nothing = OpenFile("/dev/null", O_RDONLY);
    if (!nothing.ok()) return RpcError{Code::kInternal, nothing.error().message()};
    nothing_ = std::move(nothing).value();
  }
  // The process does not end before it is in the table: its end is an event of a later turn.
  auto pid = std::make_shared<pid_t>(-1);
  Outcome<std::shared_ptr<Process>> process = Process::Start(
      context_, std::move(request), user, nothing_.get(), [this, pid] { OnEnd(*pid); });
  if (!process.ok()) return process;
  *pid = (*process)->pid();
  running_[*pid] = *process;
  return process;
}

void ProcessTable::OnEnd(pid_t pid) {
  auto found = running_.find(pid);
  if (found == running_.end()) return;
  ended_.push_back({std::move(found->second), MonotonicNow()});
  running_.erase(found);
  if (ended_.size() > kMaxEnded) ended_.pop_front();
}

Outcome<std::shared_ptr<Process>> ProcessTable::Find(const connect::Message& selector,
                                                     bool ended) const {
  const bool by_pid = selector.Has("pid");
  const pid_t pid = static_cast<pid_t>(selector.Uint32("pid"));
  const std::string tag = selector.String("tag");
  if (!selector.error().empty()) return RpcError{Code::kInvalidArgument, selector.error()};
  if (!by_pid && !selector.Has("tag")) {
    return RpcError{Code::kInvalidArgument, "a process is selected by its pid or its tag"};
  }
  auto matches = [&](const Process& process) {
    return by_pid ? process.pid() == pid : process.request().tag == tag;
  };
  for (const auto& [number, process] : running_) {
    if (matches(*process)) return process;
  }
  if (ended) {
    const uint64_t now = MonotonicNow();
    for (auto each = ended_.rbegin(); each != ended_.rend(); ++each) {
      if (now - each->when <= kEndedNanoseconds && matches(*each->process)) return each->process;
    }
  }
  return RpcError{Code::kNotFound, by_pid ? "process with pid " + std::to_string(pid) + " not found"
                                          : "process with tag '" + tag + "' not found"};
}

}  // namespace cube::agent::envd
