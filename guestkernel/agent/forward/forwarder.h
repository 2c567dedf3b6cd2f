#ifndef CUBE_GUESTKERNEL_AGENT_FORWARD_FORWARDER_H_
#define CUBE_GUESTKERNEL_AGENT_FORWARD_FORWARDER_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "guestkernel/agent/forward/relay.h"
#include "guestkernel/agent/loop/event_loop.h"
#include "guestkernel/agent/loop/listener.h"
#include "guestkernel/agent/loop/memory_budget.h"

namespace cube::agent {

// The vsock port at which the host reaches every TCP port of the machine that listens on localhost.
inline constexpr uint32_t kForwardPort = 49982;

// Takes clients and relays each to the port it names. Of the loop's thread.
class Forwarder {
 public:
  // Beyond so many clients new ones are closed at once.
  static constexpr size_t kMaxRelays = 4096;

  // Both outlive the forwarder.
  Forwarder(EventLoop* loop, MemoryBudget* memory);

  Forwarder(const Forwarder&) = delete;
  Forwarder& operator=(const Forwarder&) = delete;

  // Serves those who connect to `socket`, which listens and does not block.
  Status Serve(UniqueFd socket);

 private:
  void Accept(UniqueFd client);

  EventLoop* loop_;
  MemoryBudget* memory_;
  std::unique_ptr<char[]> scratch_;  // of pages that are not there before they are used
  std::list<std::shared_ptr<Relay>> relays_;
  std::vector<std::unique_ptr<Listener>> listeners_;
};

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_FORWARD_FORWARDER_H_
