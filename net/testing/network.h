#ifndef CUBE_NET_TESTING_NETWORK_H_
#define CUBE_NET_TESTING_NETWORK_H_

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "net/testing/packet.h"

namespace cube::net::testing {

// A network namespace beside this one. Sockets made in it stay in it, whoever uses them.
class NetNamespace {
 public:
  static Result<NetNamespace> Create();
  // That of this process.
  static Result<NetNamespace> Current();
  int fd() const { return fd_.get(); }
  // Runs `act` in it, on a thread of its own, to its end.
  void Run(const std::function<void()>& act) const;

  // A socket bound to `address`:`port` ("", or "::" for IPv6, and 0: not bound), listening if it is
  // a TCP one that is bound, unless `connect`s are to go out of it. With a timeout of 10 s both
  // ways.
  UniqueFd Socket(int type, const std::string& address = "", uint16_t port = 0,
                  bool listening = true) const;

 private:
  explicit NetNamespace(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

// connect(2): 0 or errno.
int Connect(const UniqueFd& socket, const std::string& address, uint16_t port);

// A guest: a network stack of the kernel's in a namespace of its own, whose frames go to and from a
// TAP of the fabric's as a VMM's would, with the offloads that the guest's kernel makes use of.
class GuestStack {
 public:
  // `tap`: with a virtio header.
  static Result<std::unique_ptr<GuestStack>> Create(UniqueFd tap);
  ~GuestStack();
  const NetNamespace& space() const { return space_; }
  // How many frames of IPv6 the guest was given.
  uint64_t ipv6_frames() const { return ipv6_frames_; }

 private:
  GuestStack(NetNamespace space, UniqueFd inner, UniqueFd tap, UniqueFd stop);
  void Pump();

  NetNamespace space_;
  UniqueFd inner_, tap_, stop_;
  std::atomic<uint64_t> ipv6_frames_ = 0;
  std::thread thread_;
};

// All frames that an interface receives or sends from now on.
class FrameListener {
 public:
  FrameListener(const NetNamespace& space, const char* interface);
  // The next one; empty if there is none now.
  Bytes Next();

 private:
  UniqueFd fd_;
};

// Writes a frame as a guest without offloads would.
bool WriteFrame(int tap, const Bytes& frame);
// The next frame; empty if none comes within `milliseconds`.
Bytes ReadFrame(int tap, int milliseconds);

// Echoes what comes to it until it goes: datagrams, and connections one after another or at once.
class EchoServer {
 public:
  // `socket`: bound, and listening if it is TCP's.
  explicit EchoServer(UniqueFd socket);
  ~EchoServer();
  uint64_t served() const { return served_; }

 private:
  void Serve(bool datagrams);

  UniqueFd socket_, stop_;
  std::atomic<uint64_t> served_ = 0;
  std::thread thread_;
};

}  // namespace cube::net::testing

#endif  // CUBE_NET_TESTING_NETWORK_H_
