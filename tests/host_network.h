#ifndef CUBE_TESTS_HOST_NETWORK_H_
#define CUBE_TESTS_HOST_NETWORK_H_

#include <cstdint>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace cube::testing {

// Moves the calling thread, to be the process's only one, into a network namespace of its own with
// the TAP `name`, which has `address` (A.B.C.D/P) and stays as long as the namespace. Needs root.
Status EnterNetworkWithTap(const std::string& name, const std::string& address);

// A TCP socket that listens on all addresses; ends the test if there is none.
UniqueFd ListenTcp(uint16_t port);

}  // namespace cube::testing

#endif  // CUBE_TESTS_HOST_NETWORK_H_
