#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_SHA256_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_SHA256_H_

#include <array>
#include <cstdint>
#include <string_view>

namespace cube::agent::envd {

// SHA-256 (FIPS 180-4) of a text.
std::array<uint8_t, 32> Sha256(std::string_view text);

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_SHA256_H_
