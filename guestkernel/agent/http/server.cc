#include "guestkernel/agent/http/server.h"

#include <utility>

namespace cube::agent::http {

Server::Server(EventLoop* loop, MemoryBudget* memory, std::span<char> scratch,
               std::string fixed_fields, Route route)
    : shared_{.loop = loop,
              .route = std::move(route),
              .fixed_fields = std::move(fixed_fields),
              .scratch = scratch,
              .idle_nanoseconds = kIdleNanoseconds,
              .memory = memory} {}

Status Server::Serve(UniqueFd socket) {
  CUBE_ASSIGN(std::unique_ptr<Listener> listener,
              Listener::Create(shared_.loop, std::move(socket),
                               [this](UniqueFd client) { Accept(std::move(client)); }));
  listeners_.push_back(std::move(listener));
  return OkStatus();
}

void Server::Accept(UniqueFd socket) {
  if (connections_.size() >= kMaxConnections) return;
  auto place = connections_.emplace(connections_.end());
  *place = std::make_shared<Connection>(&shared_, std::move(socket),
                                        [this, place] { connections_.erase(place); });
  if (!(*place)->Open().ok()) connections_.erase(place);
}

}  // namespace cube::agent::http
