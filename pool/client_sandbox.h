#ifndef CUBE_POOL_CLIENT_SANDBOX_H_
#define CUBE_POOL_CLIENT_SANDBOX_H_

#include <CLI/CLI.hpp>
#include <string>

#include "pool/client_ask.h"

namespace cube::pool {

// Adds `cube sandbox ...`. The words outlive the application.
void AddSandboxCommands(CLI::App* app, Words* words);

// Carries one out; the exit status.
int SandboxCommand(const std::string& action, const Words& words);

}  // namespace cube::pool

#endif  // CUBE_POOL_CLIENT_SANDBOX_H_
