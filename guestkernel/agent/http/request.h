#ifndef CUBE_GUESTKERNEL_AGENT_HTTP_REQUEST_H_
#define CUBE_GUESTKERNEL_AGENT_HTTP_REQUEST_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "guestkernel/agent/http/url.h"

namespace cube::agent::http {

// The head of a request (RFC 9112 section 3).
struct Request {
  // The value of the first field `name`, which is in lower case, or null.
  const std::string* Field(std::string_view name) const;
  // The value of the first parameter `name` of the query, or null.
  const std::string* Parameter(std::string_view name) const;

  std::string method;
  std::string path;  // the target up to its '?', percent-encoding undone
  Parameters query;
  std::vector<std::pair<std::string, std::string>> fields;  // names in lower case
  bool keep_alive = false;  // the client wants the connection to stay
  bool expects_continue = false;
  bool old_version = false;  // HTTP/1.0, which has no chunks
  std::optional<uint64_t> content_length;
};

}  // namespace cube::agent::http

#endif  // CUBE_GUESTKERNEL_AGENT_HTTP_REQUEST_H_
