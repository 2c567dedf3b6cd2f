#ifndef CUBE_POOL_CLIENT_TOOLS_H_
#define CUBE_POOL_CLIENT_TOOLS_H_

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "pool/client_exec.h"

namespace cube::pool {

// The commands of `cube` that do something themselves, beside asking cubed.
struct ToolWords {
  std::string id, user, from, to, template_name, vmm;
  ExecWords exec;
  bool input = false;
};

// exec and cp.
void AddSandboxTools(CLI::App* group, ToolWords* words);
// build and rm. What `build` is given behind its own options is cube-vmm's: remaining().
CLI::App* AddTemplateTools(CLI::App* group, ToolWords* words);

// How the agent of the sandbox is reached, as cubed at `socket` says.
Result<GuestAccess> AccessTo(const std::string& socket, const std::string& id);

// The command's exit status.
Result<int> ExecTool(const std::string& socket, const ToolWords& words);
Result<int> CopyTool(const std::string& socket, const ToolWords& words, bool as_json);
// Becomes cube-vmm template build, and returns only if there is none.
Error BecomeBuild(const std::string& home, const ToolWords& words,
                  const std::vector<std::string>& arguments);

}  // namespace cube::pool

#endif  // CUBE_POOL_CLIENT_TOOLS_H_
