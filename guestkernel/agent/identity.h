#ifndef CUBE_GUESTKERNEL_AGENT_IDENTITY_H_
#define CUBE_GUESTKERNEL_AGENT_IDENTITY_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace cube::agent {

// Who this clone is, as the host wrote it to the mailbox (base/control_abi.h).
struct Identity {
  std::string sandbox_id;
  std::string hostname;
  std::string access_token;
  std::vector<std::string> volumes;      // where they are to be mounted
  std::vector<std::string> environment;  // NAME=value, without the next two
  std::string default_user;
  std::string default_workdir;
  int64_t realtime_nanoseconds = 0;
  std::vector<uint8_t> entropy;

  // From the mailbox's memory, kMailboxSize bytes; an error says what of it makes no sense.
  static Result<Identity> Parse(std::span<const uint8_t> mailbox);
};

// Makes this machine another than all clones of its snapshot: kernel entropy, hostname, time. What
// it needs is opened before the machine is frozen, so that only the few calls that must come after
// come after.
class Freshness {
 public:
  // Opens what Apply() needs.
  static Result<Freshness> Prepare();
  // Each step is tried, whatever becomes of the others; the first error is returned.
  Status Apply(const Identity& identity) const;

 private:
  explicit Freshness(UniqueFd random) : random_(std::move(random)) {}

  UniqueFd random_;
};

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_IDENTITY_H_
