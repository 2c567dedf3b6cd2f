#include "guestkernel/agent/log.h"

#include <unistd.h>

namespace cube::agent {

void Log(const std::string& line) {
  std::string text = "cube-agent: " + line + "\n";
  // There is nowhere to report that reporting has failed.
  [[maybe_unused]] ssize_t n = write(STDERR_FILENO, text.data(), text.size());
}

}  // namespace cube::agent
