#ifndef CUBE_GUESTKERNEL_AGENT_START_REQUEST_H_
#define CUBE_GUESTKERNEL_AGENT_START_REQUEST_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace cube::agent {

// What a child is to be started with: the payload of a kStart frame (base/control_abi.h).
struct StartRequest {
  // Takes a payload apart. Everything that execve(2) could not be given, and everything that is
  // left over, is an error.
  static Result<StartRequest> Parse(std::span<const uint8_t> payload);

  // The value of a variable of the child's environment, or null.
  const char* Variable(const char* name) const;

  // Adds those of `defaults` (NAME=value) whose names the request does not set itself.
  void AddDefaults(const std::vector<std::string>& defaults);

  bool on_console = false;
  uint16_t rows = 0;  // the terminal's size, 0 if not known
  uint16_t columns = 0;
  std::vector<std::string> arguments;  // at least one; the first is not empty
  std::vector<std::string> variables;  // NAME=VALUE
  std::string directory;               // "" stands for "/"
};

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_START_REQUEST_H_
