#include "net/testing/network.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "net/netlink.h"
#include "net/tap_device.h"
#include "net/testing/packet6.h"

namespace cube::net::testing {
namespace {

constexpr size_t kHeader = 12;
constexpr size_t kLargest = 65536 + 64;

bool IsIpv6(const std::string& address) { return address.find(':') != std::string::npos; }

// An address of either family, and how long it is.
struct At {
  At(const std::string& address, uint16_t port) {
    if (IsIpv6(address)) {
      auto* v6 = reinterpret_cast<sockaddr_in6*>(&storage);
      v6->sin6_family = AF_INET6;
      v6->sin6_port = htons(port);
      inet_pton(AF_INET6, address.c_str(), &v6->sin6_addr);
      size = sizeof *v6;
      return;
    }
    auto* v4 = reinterpret_cast<sockaddr_in*>(&storage);
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    if (!address.empty()) v4->sin_addr.s_addr = Address(address.c_str());
    size = sizeof *v4;
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }

  sockaddr_storage storage = {};
  socklen_t size;
};

Status SetUpGuest() {
  CUBE_ASSIGN(Netlink netlink, Netlink::Open());
  CUBE_ASSIGN(auto link, netlink.Find("eth0"));
  if (!link) return Errorf("the guest's interface");
  CUBE_TRY(netlink.SetMac(link->index, {0x02, 0xcb, 0, 0, 0, 0x15}));
  CUBE_TRY(netlink.SetUp(link->index));
  CUBE_TRY(netlink.SetUp(1));
  CUBE_TRY(netlink.AddAddress(link->index, Address("169.254.0.21"), 30));
  CUBE_TRY(netlink.AddRoute(0, 0, Address("169.254.0.22")));
  CUBE_TRY(netlink.AddAddress(link->index, Address6("fdcb:6375:6265::15"), 126));
  return netlink.AddRoute({}, 0, Address6("fdcb:6375:6265::16"));
}

}  // namespace

Result<NetNamespace> NetNamespace::Create() {
  UniqueFd fd;
  std::thread([&] {
    if (unshare(CLONE_NEWNET) < 0) return;
    fd.Reset(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  }).join();
  if (!fd.valid()) return ErrnoError("a network namespace");
  return NetNamespace(std::move(fd));
}

Result<NetNamespace> NetNamespace::Current() {
  CUBE_ASSIGN(UniqueFd fd, OpenFile("/proc/thread-self/ns/net", O_RDONLY));
  return NetNamespace(std::move(fd));
}

void NetNamespace::Run(const std::function<void()>& act) const {
  std::thread([&] {
    if (setns(fd_.get(), CLONE_NEWNET) == 0) act();
  }).join();
}

UniqueFd NetNamespace::Socket(int type, const std::string& address, uint16_t port,
                              bool listening) const {
  UniqueFd fd;
  Run([&] {
    fd.Reset(socket(IsIpv6(address) ? AF_INET6 : AF_INET, type | SOCK_CLOEXEC, 0));
    int one = 1;
    setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    timeval limit = {10, 0};
    setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (port == 0 && (address.empty() || address == "::")) return;
    At at(address, port);
    if (bind(fd.get(), at.get(), at.size) < 0) fd.Reset();
    if (type == SOCK_STREAM && listening && fd.valid()) listen(fd.get(), 128);
  });
  return fd;
}

int Connect(const UniqueFd& socket, const std::string& address, uint16_t port) {
  At at(address, port);
  return connect(socket.get(), at.get(), at.size) == 0 ? 0 : errno;
}

Result<std::unique_ptr<GuestStack>> GuestStack::Create(UniqueFd tap) {
  CUBE_ASSIGN(NetNamespace space, NetNamespace::Create());
  Result<UniqueFd> inner = Errorf("no thread");
  Status ready;
  space.Run([&] {
    inner = OpenTap("eth0");
    if (inner.ok()) ready = SetUpGuest();
  });
  if (!inner.ok()) return inner.error();
  CUBE_TRY(ready);
  for (int fd : {inner->get(), tap.get()}) {
    if (ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN) < 0) {
      return ErrnoError("offloads");
    }
  }
  CUBE_ASSIGN(UniqueFd stop, NewEventFd());
  return std::unique_ptr<GuestStack>(
      new GuestStack(std::move(space), std::move(*inner), std::move(tap), std::move(stop)));
}

GuestStack::GuestStack(NetNamespace space, UniqueFd inner, UniqueFd tap, UniqueFd stop)
    : space_(std::move(space)),
      inner_(std::move(inner)),
      tap_(std::move(tap)),
      stop_(std::move(stop)),
      thread_([this] { Pump(); }) {}

GuestStack::~GuestStack() {
  SignalEventFd(stop_.get());
  thread_.join();
}

void GuestStack::Pump() {
  std::vector<uint8_t> buffer(kLargest);
  for (;;) {
    pollfd fds[3] = {{inner_.get(), POLLIN, 0}, {tap_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    if (poll(fds, 3, -1) < 0 || fds[2].revents != 0) return;
    for (int i = 0; i < 2; ++i) {
      if ((fds[i].revents & POLLIN) == 0) continue;
      for (int n = 0; n < 64; ++n) {
        ssize_t size = read(fds[i].fd, buffer.data(), buffer.size());
        if (size <= 0) break;
        if (i == 1 && size > 26 && buffer[kHeader + 12] == 0x86 && buffer[kHeader + 13] == 0xdd) {
          ++ipv6_frames_;
        }
        while (write(fds[1 - i].fd, buffer.data(), static_cast<size_t>(size)) < 0 &&
               errno == EAGAIN) {
          pollfd full = {fds[1 - i].fd, POLLOUT, 0};
          poll(&full, 1, 1000);
        }
      }
    }
  }
}

FrameListener::FrameListener(const NetNamespace& space, const char* interface) {
  space.Run([&] {
    fd_.Reset(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL)));
    sockaddr_ll at = {};
    at.sll_family = AF_PACKET;
    at.sll_protocol = htons(ETH_P_ALL);
    at.sll_ifindex = static_cast<int>(if_nametoindex(interface));
    bind(fd_.get(), reinterpret_cast<sockaddr*>(&at), sizeof at);
  });
  int size = 32 << 20;
  setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
}

Bytes FrameListener::Next() {
  Bytes buffer(65536);
  ssize_t n = recv(fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  buffer.resize(n < 0 ? 0 : static_cast<size_t>(n));
  return buffer;
}

bool WriteFrame(int tap, const Bytes& frame) {
  uint8_t header[kHeader] = {};
  iovec parts[2] = {{header, sizeof header}, {const_cast<uint8_t*>(frame.data()), frame.size()}};
  ssize_t written;
  while ((written = writev(tap, parts, 2)) < 0 && errno == EAGAIN) {
    pollfd full = {tap, POLLOUT, 0};
    poll(&full, 1, 1000);
  }
  return written == static_cast<ssize_t>(sizeof header + frame.size());
}

Bytes ReadFrame(int tap, int milliseconds) {
  pollfd waited = {tap, POLLIN, 0};
  if (poll(&waited, 1, milliseconds) <= 0) return {};
  Bytes buffer(kLargest);
  ssize_t size = read(tap, buffer.data(), buffer.size());
  if (size < static_cast<ssize_t>(kHeader)) return {};
  return Bytes(buffer.begin() + kHeader, buffer.begin() + size);
}

EchoServer::EchoServer(UniqueFd socket) : socket_(std::move(socket)) {
  auto stop = NewEventFd();
  if (stop.ok()) stop_ = std::move(*stop);
  int type = 0;
  socklen_t size = sizeof type;
  getsockopt(socket_.get(), SOL_SOCKET, SO_TYPE, &type, &size);
  fcntl(socket_.get(), F_SETFL, O_NONBLOCK);
  thread_ = std::thread([this, type] { Serve(type == SOCK_DGRAM); });
}

EchoServer::~EchoServer() {
  SignalEventFd(stop_.get());
  thread_.join();
}

void EchoServer::Serve(bool datagrams) {
  std::vector<pollfd> fds = {{stop_.get(), POLLIN, 0}, {socket_.get(), POLLIN, 0}};
  std::vector<UniqueFd> connections;
  std::vector<uint8_t> buffer(1 << 17);
  while (poll(fds.data(), fds.size(), -1) >= 0 && fds[0].revents == 0) {
    for (size_t i = 1; i < fds.size(); ++i) {
      if (fds[i].revents == 0) continue;
      if (i == 1 && !datagrams) {
        connections.emplace_back(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        ++served_;
        fds.push_back({connections.back().get(), POLLIN, 0});
        break;
      }
      sockaddr_storage from = {};
      socklen_t length = sizeof from;
      ssize_t n = recvfrom(fds[i].fd, buffer.data(), buffer.size(), 0,
                           reinterpret_cast<sockaddr*>(&from), &length);
      if (datagrams && n >= 0) {
        ++served_;
        sendto(fds[i].fd, buffer.data(), static_cast<size_t>(n), 0,
               reinterpret_cast<sockaddr*>(&from), length);
      } else if (!datagrams && n > 0) {
        send(fds[i].fd, buffer.data(), static_cast<size_t>(n), MSG_NOSIGNAL);
      } else if (!datagrams) {
        connections.erase(connections.begin() + static_cast<long>(i - 2));
        fds.erase(fds.begin() + static_cast<long>(i));
        break;
      }
    }
  }
}

}  // namespace cube::net::testing
