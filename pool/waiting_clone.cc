#include "pool/waiting_clone.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "vmm/cli/control_server.h"

namespace cube::pool {
namespace {

constexpr milliseconds kJailLimit(20'000);
constexpr size_t kMaxWord = 4096;

}  // namespace

Task<Outcome<std::shared_ptr<WaitingClone>>> WaitingClone::Make(asio::io_context& io,
                                                                std::string path,
                                                                CloneRequest request) {
  std::shared_ptr<WaitingClone> clone(new WaitingClone(io, request.id));
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
    co_return ErrnoError("socketpair");
  }
  UniqueFd own(ends[0]);
  request.descriptors.emplace_back(ends[1]);
  const int on = 1;
  if (setsockopt(own.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0) {
    co_return ErrnoError("SO_PASSCRED");
  }
  POOL_CO_ASSIGN(clone->channel_, AdoptSocket(io, std::move(own)));
  // {"op":"clone",...
  request.line.insert(1, "\"waits\":true,");
  POOL_CO_TRY(co_await AskZygote(io, std::move(path), std::move(request)));
  asio::steady_timer timer(io, kJailLimit);
  timer.async_wait([channel = clone->channel_](boost::system::error_code cancelled) {
    if (!cancelled) channel->cancel(cancelled);
  });
  auto [failed] = co_await clone->channel_->async_wait(
      asio::local::stream_protocol::socket::wait_read, kAsTuple);
  timer.cancel();
  if (failed) co_return Refuse(Fault::kInternal, "a clone's jail: %s", failed.message().c_str());
  POOL_CO_TRY(clone->Hear());
  co_return clone;
}

Outcome<Done> WaitingClone::Hear() {
  char text[kMaxWord];
  iovec data = {text, sizeof text};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))];
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t n = recvmsg(channel_->native_handle(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (n <= 0) return Refuse(Fault::kInternal, "a clone ended before it was in its jail");
  std::string line(text, static_cast<size_t>(n));
  if (line != "{\"ok\":true}\n")
    return Refuse(Fault::kInternal, "a clone's jail: %.900s", line.c_str());
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_type != SCM_CREDENTIALS) {
    return Refuse(Fault::kInternal, "a clone has not said who it is");
  }
  ucred sender;
  memcpy(&sender, CMSG_DATA(header), sizeof sender);
  POOL_ASSIGN(process_, ProcessHandle::Open(sender.pid));
  return Done();
}

Task<Outcome<Done>> WaitingClone::Begin(std::shared_ptr<WaitingClone> self) {
  if (send(self->channel_->native_handle(), "g", 1, MSG_NOSIGNAL | MSG_DONTWAIT) != 1) {
    co_return ErrnoError("a clone that waited in its jail has ended");
  }
  co_return co_await AwaitAnswer(self->io_, self->channel_, "a clone that waited in its jail");
}

}  // namespace cube::pool
