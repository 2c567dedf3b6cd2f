#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_PROCESS_SERVICE_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_PROCESS_SERVICE_H_

#include <memory>
#include <string_view>

#include "guestkernel/agent/envd/context.h"
#include "guestkernel/agent/envd/process_table.h"
#include "guestkernel/agent/http/exchange.h"

namespace cube::agent::envd {

// The service process.Process: starts processes, carries their streams, tells of their ends.
class ProcessService {
 public:
  // `context` outlives the service.
  explicit ProcessService(Context* context) : context_(context), table_(context) {}

  // The handler of a call of `method`; null if the service has no such method.
  std::unique_ptr<http::Handler> Call(std::string_view method, const http::Request& request,
                                      http::Response* response);

 private:
  Context* context_;
  ProcessTable table_;
};

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_PROCESS_SERVICE_H_
