#ifndef CUBE_GUESTKERNEL_AGENT_HTTP_SIMPLE_HANDLERS_H_
#define CUBE_GUESTKERNEL_AGENT_HTTP_SIMPLE_HANDLERS_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "guestkernel/agent/http/exchange.h"

namespace cube::agent::http {

// Responds at once and has no use for the request's body.
std::unique_ptr<Handler> Answer(Response* response, int status, const Response::Fields& fields,
                                std::string_view body);

// Collects the request's body and gives it to `use`, which responds. `refuse` responds to one of
// more than `limit` bytes (413), or for which there is no memory (503), with what is to be said.
std::unique_ptr<Handler> CollectBody(
    Response* response, size_t limit, std::function<void(std::string body)> use,
    std::function<void(int status, const std::string& why)> refuse);

}  // namespace cube::agent::http

#endif  // CUBE_GUESTKERNEL_AGENT_HTTP_SIMPLE_HANDLERS_H_
