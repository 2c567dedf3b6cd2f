#ifndef CUBE_GUESTKERNEL_AGENT_CONNECT_BASE64_H_
#define CUBE_GUESTKERNEL_AGENT_CONNECT_BASE64_H_

#include <optional>
#include <string>
#include <string_view>

namespace cube::agent::connect {

// What `text` encodes, by RFC 4648 sections 4 or 5, with or without padding: all of these are bytes
// in the JSON form of a message. Nothing if it is neither.
std::optional<std::string> DecodeBase64(std::string_view text);

}  // namespace cube::agent::connect

#endif  // CUBE_GUESTKERNEL_AGENT_CONNECT_BASE64_H_
