#include "vmm/cli/machine_inbox.h"

#include <sys/epoll.h>

namespace cube::vmm {

Status MachineInbox::Open(EventLoop* loop, Reader reader) {
  reader_ = std::move(reader);
  CUBE_ASSIGN(event_, NewEventFd());
  return loop->Add(event_.get(), EPOLLIN, [this](uint32_t) { OnPosted(); });
}

void MachineInbox::PostCommand(abi::Command command, uint32_t argument) {
  std::lock_guard lock(mutex_);
  // A guest that floods commands gains nothing: what was not taken yet is bounded.
  constexpr size_t kLimit = 64;
  if (commands_.size() < kLimit) commands_.emplace_back(command, argument);
  SignalEventFd(event_.get());
}

void MachineInbox::PostNotification() {
  std::lock_guard lock(mutex_);
  notified_ = true;
  SignalEventFd(event_.get());
}

void MachineInbox::PostStop(StopReason reason) {
  std::lock_guard lock(mutex_);
  stop_ = std::move(reason);
  SignalEventFd(event_.get());
}

void MachineInbox::OnPosted() {
  DrainEventFd(event_.get());
  std::deque<std::pair<abi::Command, uint32_t>> commands;
  std::optional<StopReason> stop;
  bool notified;
  {
    std::lock_guard lock(mutex_);
    commands.swap(commands_);
    stop.swap(stop_);
    notified = std::exchange(notified_, false);
  }
  for (auto [command, argument] : commands) reader_.command(command, argument);
  if (notified || !commands.empty()) reader_.notified();
  if (stop) reader_.stopped(*stop);
}

}  // namespace cube::vmm
