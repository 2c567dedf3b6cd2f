#ifndef CUBE_GUESTKERNEL_AGENT_FORWARD_RELAY_H_
#define CUBE_GUESTKERNEL_AGENT_FORWARD_RELAY_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/unique_fd.h"
#include "guestkernel/agent/loop/event_loop.h"
#include "guestkernel/agent/loop/memory_budget.h"

namespace cube::agent {

// One client who names a port of this machine and from then on talks to whoever listens there, in
// any protocol. It sends "CONNECT PORT\n" and gets "OK\n", or "ERROR why\n" and the end. Of what
// one side sends at most one piece is kept until the other takes it; that one has closed its half
// is passed on. Of the loop's thread.
class Relay final : public std::enable_shared_from_this<Relay> {
 public:
  static constexpr size_t kMaxLine = 64;
  // How long a client may take to name its port.
  static constexpr uint64_t kLineNanoseconds = 10'000'000'000;

  // `loop`, `memory` and the memory of `scratch` outlive the relay. `on_closed` is called once,
  // from the loop; it may destroy the relay.
  Relay(EventLoop* loop, MemoryBudget* memory, std::span<char> scratch, UniqueFd client,
        std::function<void()> on_closed);
  ~Relay();

  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  // Begins to serve. An error leaves nothing to be done but to destroy it.
  Status Open();

 private:
  enum class State { kLine, kConnecting, kRelaying, kRefused, kClosed };
  // One of the two sockets, and what is to be written to it.
  struct Side {
    UniqueFd fd;
    bool readable = false;
    bool writable = true;
    bool watches_writable = false;
    bool ended = false;   // it sends no more
    bool ending = false;  // its end follows what can be read
    bool shut = false;    // it has been told that no more comes
    std::string out;
    size_t sent = 0;  // of that
  };

  Status Watch(Side* side, uint32_t events);
  void OnEvents(Side* side, uint32_t events);
  void Schedule();
  void Turn();
  void ReadLine();
  void Connect(std::string_view line);
  // Tries the next address; false if there is none left.
  bool TryNext();
  void OnConnected();
  void Refuse(const std::string& why);
  // Carries what `from` sends to `to`. True if there may be more to carry.
  bool Carry(Side* from, Side* to);
  // Sends what it can of `bytes`, and waits for room if that is not all. How much that was, or
  // nothing if the socket is gone.
  std::optional<size_t> SendTo(Side* side, std::string_view bytes);
  // Sends what is kept for it. False if the socket is gone.
  bool Flush(Side* side);
  void Close();

  EventLoop* loop_;
  MemoryBudget* budget_;
  std::span<char> scratch_;
  std::function<void()> on_closed_;
  State state_ = State::kLine;
  MemoryBudget::Lease memory_;  // for what both sides are to be sent
  Side client_;
  Side server_;
  std::string line_;
  uint16_t port_ = 0;
  int next_address_ = 0;
  int error_ = 0;  // errno of the first address
  bool scheduled_ = false;
  EventLoop::TimerId deadline_ = EventLoop::kNoTimer;
};

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_FORWARD_RELAY_H_
