#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_REST_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_REST_H_

#include <memory>
#include <string>

#include "guestkernel/agent/envd/context.h"
#include "guestkernel/agent/envd/metrics.h"
#include "guestkernel/agent/envd/watcher_table.h"
#include "guestkernel/agent/http/exchange.h"

namespace cube::agent::envd {

// The plain routes: /health, /envs, /metrics, /init and /files.
class Rest {
 public:
  // Both outlive it.
  Rest(Context* context, WatcherTable* watchers) : context_(context), watchers_(watchers) {}

  // The handler of a request; null if there is no such route.
  std::unique_ptr<http::Handler> Call(const http::Request& request, http::Response* response);

 private:
  std::unique_ptr<http::Handler> Files(const http::Request& request, http::Response* response);
  // Takes over what the body of POST /init says.
  void Init(http::Response* response, const std::string& body);

  Context* context_;
  WatcherTable* watchers_;
  Metrics metrics_;
};

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_REST_H_
