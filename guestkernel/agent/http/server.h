#ifndef CUBE_GUESTKERNEL_AGENT_HTTP_SERVER_H_
#define CUBE_GUESTKERNEL_AGENT_HTTP_SERVER_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "guestkernel/agent/http/connection.h"
#include "guestkernel/agent/http/exchange.h"
#include "guestkernel/agent/loop/listener.h"

namespace cube::agent::http {

// Serves HTTP on any number of listening stream sockets. Of the loop's thread.
class Server {
 public:
  // Beyond so many connections new ones are closed at once.
  static constexpr size_t kMaxConnections = 4096;
  static constexpr uint64_t kIdleNanoseconds = 640'000'000'000;

  // `loop`, `memory` and the memory of `scratch` outlive the server. `fixed_fields`: lines, each
  // ended by CRLF, that every response has.
  Server(EventLoop* loop, MemoryBudget* memory, std::span<char> scratch, std::string fixed_fields,
         Route route);

  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Serves those who connect to `socket`, which listens and does not block.
  Status Serve(UniqueFd socket);
  // Serves one client, who has connected already.
  void Accept(UniqueFd socket);

  size_t connections() const { return connections_.size(); }

 private:
  Shared shared_;
  std::list<std::shared_ptr<Connection>> connections_;
  std::vector<std::unique_ptr<Listener>> listeners_;
};

}  // namespace cube::agent::http

#endif  // CUBE_GUESTKERNEL_AGENT_HTTP_SERVER_H_
