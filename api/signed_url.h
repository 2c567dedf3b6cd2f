#ifndef CUBE_API_SIGNED_URL_H_
#define CUBE_API_SIGNED_URL_H_

#include <optional>

#include "api/message.h"
#include "api/sandbox_address.h"
#include "pool/node.h"

namespace cube::api {

// A signed URL of a file (GET or POST /files) that a client was given for one address of all
// sandboxes names none of them. Its signature is made with the access token of one: that one is
// meant. Whether it is in time the sandbox itself says.
std::optional<SandboxAddress> SignedFor(const pool::Node& node, const Request& request);

}  // namespace cube::api

#endif  // CUBE_API_SIGNED_URL_H_
