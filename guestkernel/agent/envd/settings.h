#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_SETTINGS_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_SETTINGS_H_

#include <string>
#include <utility>
#include <vector>

#include "guestkernel/agent/identity.h"

namespace cube::agent::envd {

// Names and values, in their order.
using Variables = std::vector<std::pair<std::string, std::string>>;

// Sets `name` to `value`, in place of what it was.
void SetVariable(Variables* variables, const std::string& name, const std::string& value);

// What holds for all requests: from the identity of the machine, and from POST /init.
struct Settings {
  // Becomes what a new identity says; nothing of the one before stays.
  void Take(const Identity& identity);

  Variables environment;        // of every program
  std::string access_token;     // "": none is needed
  std::string default_user;     // USER[:GROUP]; "": `user` if there is one, else root
  std::string default_workdir;  // "": the user's home
  // Unix time in nanoseconds of the last POST /init that was heeded.
  int64_t initialized = 0;
};

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_SETTINGS_H_
