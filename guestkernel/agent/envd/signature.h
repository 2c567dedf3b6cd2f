#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_SIGNATURE_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_SIGNATURE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "guestkernel/agent/http/request.h"

namespace cube::agent::envd {

// The signature of a URL that lets whoever has it do one thing ("read" or "write") with one file.
// Path and user are as in the URL, "" if they are not in it; so is the time it expires, in seconds
// of Unix time.
std::string Sign(std::string_view path, std::string_view operation, std::string_view user,
                 std::string_view token, const std::string* expiration);

// Why a request for /files may not be served: its access token and its signature are both missing
// or wrong, or the signature has expired. Nothing if it may, or if `token` is "", as then all may.
// `now` is Unix time in seconds.
std::optional<std::string> WhyUnsigned(const http::Request& request, std::string_view operation,
                                       const std::string& token, int64_t now);

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_SIGNATURE_H_
