#ifndef CUBE_POOL_CLIENT_COMPLETION_H_
#define CUBE_POOL_CLIENT_COMPLETION_H_

#include <CLI/CLI.hpp>
#include <string>

namespace cube::pool {

// The script by which a shell, "bash", "zsh" or "fish", completes the commands and options of
// `app`, and the ids that the node knows. An argument called "id" is one of its group's.
std::string CompletionScript(const CLI::App& app, const std::string& shell);

}  // namespace cube::pool

#endif  // CUBE_POOL_CLIENT_COMPLETION_H_
