#ifndef CUBE_GUESTKERNEL_AGENT_INTERPRETER_SERVICE_H_
#define CUBE_GUESTKERNEL_AGENT_INTERPRETER_SERVICE_H_

#include <memory>

#include "guestkernel/agent/http/exchange.h"
#include "guestkernel/agent/interpreter/interpreter.h"

namespace cube::agent::interpreter {

// What the code interpreter's HTTP interface does with a request: GET /health, POST /execute
// (events as lines of JSON), GET and POST /contexts, DELETE /contexts/ID, POST
// /contexts/ID/restart. Errors are texts. `interpreter` outlives the handler.
std::unique_ptr<http::Handler> Route(Interpreter* interpreter, const http::Request& request,
                                     http::Response* response);

}  // namespace cube::agent::interpreter

#endif  // CUBE_GUESTKERNEL_AGENT_INTERPRETER_SERVICE_H_
