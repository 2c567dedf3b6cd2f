#include "guestkernel/agent/loop/listener.h"

#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

namespace cube::agent {
namespace {

constexpr int kBacklog = 1024;
constexpr uint64_t kRestNanoseconds = 100'000'000;

template <typename Address>
Status BindAndListen(int fd, const Address& address, const char* kind, uint32_t port) {
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0 ||
      listen(fd, kBacklog) < 0) {
    return ErrnoError("cannot listen on %s port %u", kind, port);
  }
  return OkStatus();
}

UniqueFd NewSocket(int family) {
  return UniqueFd(socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

}  // namespace

Result<std::unique_ptr<Listener>> Listener::Create(EventLoop* loop, UniqueFd socket,
                                                   OnAccept on_accept) {
  std::unique_ptr<Listener> listener(new Listener(loop, std::move(socket), std::move(on_accept)));
  Listener* raw = listener.get();
  // Level-triggered: one call for one client, and none to find that there is no second.
  CUBE_TRY(loop->Add(raw->socket_.get(), EPOLLIN, [raw](uint32_t) { raw->Accept(); }));
  return listener;
}

Listener::~Listener() {
  loop_->Cancel(rest_);
  loop_->Remove(socket_.get());
}

void Listener::Accept() {
  UniqueFd client(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (client.valid()) return on_accept_(std::move(client));
  if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) Rest();
}

void Listener::Rest() {
  if (!loop_->Modify(socket_.get(), 0).ok()) return;
  rest_ = loop_->After(kRestNanoseconds, [this] {
    // It has worked before; should it not now, the port stays deaf, and the agent lives.
    (void)loop_->Modify(socket_.get(), EPOLLIN).ok();
  });
}

Result<UniqueFd> ListenOnVsock(uint32_t port) {
  UniqueFd fd = NewSocket(AF_VSOCK);
  if (!fd.valid()) return ErrnoError("cannot open a vsock socket");
  sockaddr_vm address = {};
  address.svm_family = AF_VSOCK;
  address.svm_cid = VMADDR_CID_ANY;
  address.svm_port = port;
  CUBE_TRY(BindAndListen(fd.get(), address, "vsock", port));
  return fd;
}

Result<UniqueFd> ListenOnTcp(uint16_t port) {
  UniqueFd fd = NewSocket(AF_INET6);
  if (!fd.valid()) return ErrnoError("cannot open a TCP socket");
  const int on = 1;
  const int off = 0;
  setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  sockaddr_in6 address = {};
  address.sin6_family = AF_INET6;
  address.sin6_addr = in6addr_any;
  address.sin6_port = htons(port);
  CUBE_TRY(BindAndListen(fd.get(), address, "TCP", port));
  return fd;
}

}  // namespace cube::agent
