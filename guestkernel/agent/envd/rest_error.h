#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_REST_ERROR_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_REST_ERROR_H_

#include <memory>
#include <string>

#include "guestkernel/agent/connect/rpc_error.h"
#include "guestkernel/agent/http/exchange.h"

namespace cube::agent::envd {

// Sends an error as the REST routes have them: {"code":404,"message":"..."}.
void SendError(http::Response* response, int status, const std::string& message);
// The same for what failed with a code of the other services.
void SendError(http::Response* response, const connect::RpcError& error);

// Handles a request by such an answer.
std::unique_ptr<http::Handler> AnswerError(http::Response* response, int status,
                                           const std::string& message);

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_REST_ERROR_H_
