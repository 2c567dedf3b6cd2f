#include "guestkernel/agent/envd/settings.h"

namespace cube::agent::envd {

void SetVariable(Variables* variables, const std::string& name, const std::string& value) {
  for (auto& [known, old] : *variables) {
    if (known == name) {
      old = value;
      return;
    }
  }
  variables->emplace_back(name, value);
}

void Settings::Take(const Identity& identity) {
  *this = Settings();
  access_token = identity.access_token;
  default_user = identity.default_user;
  default_workdir = identity.default_workdir;
  SetVariable(&environment, "E2B_SANDBOX", "true");
  SetVariable(&environment, "E2B_SANDBOX_ID", identity.sandbox_id);
  for (const std::string& variable : identity.environment) {
    const size_t equals = variable.find('=');
    if (equals == std::string::npos || equals == 0) continue;
    SetVariable(&environment, variable.substr(0, equals), variable.substr(equals + 1));
  }
}

}  // namespace cube::agent::envd
