#ifndef CUBE_VMM_IDENTITY_H_
#define CUBE_VMM_IDENTITY_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace cube::vmm {

// Who a clone is (docs/design.md, "Freshness contract").
struct Identity {
  std::string sandbox_id;
  std::string hostname;
  std::string access_token;
  std::vector<std::string> environment;  // NAME=value
  std::vector<std::string> volumes;      // where in the guest (base/control_abi.h)
};

// Writes `identity` to the mailbox, with the host's time and entropy that nobody else has. Before
// the vCPUs run. Errors: a string with a zero byte, or more than the mailbox has room for.
Status WriteIdentity(std::span<uint8_t> mailbox, const Identity& identity);

}  // namespace cube::vmm

#endif  // CUBE_VMM_IDENTITY_H_
