#ifndef CUBE_GUESTKERNEL_AGENT_TOOLS_WARM_UP_H_
#define CUBE_GUESTKERNEL_AGENT_TOOLS_WARM_UP_H_

#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace cube::agent {

// What is started before a template is frozen, so that its clones have it running: the file
// abi::kWarmUpPath.
struct WarmUp {
  static constexpr size_t kMaxSize = 256 * 1024;
  static constexpr uint32_t kMaxSeconds = 3600;

  static Result<WarmUp> Parse(const std::string& text);

  // Starts `start`, and `ready` again and again until it succeeds or the seconds are over. An error
  // says what did not come to be; the end of what `start` has written is in the lines before it.
  Status Run() const;

  uint32_t seconds = 0;
  std::string user;
  std::string directory;
  std::string start;
  std::string ready;                     // may be empty
  std::vector<std::string> environment;  // NAME=value
};

// Does so if the kernel's command line has the word for it.
Status WarmUpIfAsked();

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_TOOLS_WARM_UP_H_
