#ifndef CUBE_GUESTKERNEL_AGENT_LOOP_LISTENER_H_
#define CUBE_GUESTKERNEL_AGENT_LOOP_LISTENER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "guestkernel/agent/loop/event_loop.h"

namespace cube::agent {

// A listening stream socket and what becomes of those who connect. Of the loop's thread.
class Listener {
 public:
  // Is given each new connection, which does not block.
  using OnAccept = std::function<void(UniqueFd socket)>;

  // `loop` outlives the listener; `socket` listens and does not block.
  static Result<std::unique_ptr<Listener>> Create(EventLoop* loop, UniqueFd socket,
                                                  OnAccept on_accept);
  ~Listener();

  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

 private:
  Listener(EventLoop* loop, UniqueFd socket, OnAccept on_accept)
      : loop_(loop), socket_(std::move(socket)), on_accept_(std::move(on_accept)) {}

  void Accept();
  // Accepts nothing for a while: there are no descriptors, or no memory, to be had.
  void Rest();

  EventLoop* loop_;
  UniqueFd socket_;
  OnAccept on_accept_;
  EventLoop::TimerId rest_ = EventLoop::kNoTimer;
};

// Sockets that listen on a port at every address of the machine: for the host by vsock(7), for the
// machine itself and its network by TCP, IPv6 and IPv4 in one. An error if the kernel has no such
// sockets.
Result<UniqueFd> ListenOnVsock(uint32_t port);
Result<UniqueFd> ListenOnTcp(uint16_t port);

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_LOOP_LISTENER_H_
