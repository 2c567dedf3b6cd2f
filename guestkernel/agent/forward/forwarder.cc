#include "guestkernel/agent/forward/forwarder.h"

#include <span>
#include <utility>

namespace cube::agent {
namespace {

constexpr size_t kScratch = 256 * 1024;

}  // namespace

Forwarder::Forwarder(EventLoop* loop, MemoryBudget* memory)
    : loop_(loop), memory_(memory), scratch_(new char[kScratch]) {}

Status Forwarder::Serve(UniqueFd socket) {
  CUBE_ASSIGN(std::unique_ptr<Listener> listener,
              Listener::Create(loop_, std::move(socket),
                               [this](UniqueFd client) { Accept(std::move(client)); }));
  listeners_.push_back(std::move(listener));
  return OkStatus();
}

void Forwarder::Accept(UniqueFd client) {
  if (relays_.size() >= kMaxRelays) return;
  auto place = relays_.emplace(relays_.end());
  *place = std::make_shared<Relay>(loop_, memory_, std::span(scratch_.get(), kScratch),
                                   std::move(client), [this, place] { relays_.erase(place); });
  if (!(*place)->Open().ok()) relays_.erase(place);
}

}  // namespace cube::agent
