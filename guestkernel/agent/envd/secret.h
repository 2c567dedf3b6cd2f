#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_SECRET_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_SECRET_H_

#include <string_view>

namespace cube::agent::envd {

// Compares what a client gives with a secret, in a time that tells nothing but the secret's length.
bool SameSecret(std::string_view given, std::string_view secret);

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_SECRET_H_
