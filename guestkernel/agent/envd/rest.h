#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_REST_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_REST_H_

#include <memory>
#include <string>

#include "guestkernel/agent/envd/context.h"
#include "guestkernel/agent/envd/metrics.h"
#include "guestkernel/agent/http/exchange.h"

namespace cube::agent::envd {

// The plain routes: /health, /envs, /metrics and /init.
class Rest {
 public:
  // `context` outlives it.
  explicit Rest(Context* context) : context_(context) {}

  // The handler of a request; null if there is no such route.
  std::unique_ptr<http::Handler> Call(const http::Request& request, http::Response* response);

 private:
  // Takes over what the body of POST /init says.
  void Init(http::Response* response, const std::string& body);

  Context* context_;
  Metrics metrics_;
};

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_REST_H_
