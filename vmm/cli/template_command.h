#ifndef CUBE_VMM_CLI_TEMPLATE_COMMAND_H_
#define CUBE_VMM_CLI_TEMPLATE_COMMAND_H_

#include <cstdint>
#include <string>

#include "vmm/cli/run_options.h"

namespace cube::vmm {

// `cube-vmm template ...`: each returns the process's exit status, says what went wrong in one
// line, and speaks JSON, errors as well, if `json`.

// Boots the machine of `options` to where its agent parks, and freezes it as template `name`.
int TemplateBuildCommand(const std::string& name, RunOptions options, bool json, uint64_t start);
int TemplateListCommand(bool json);
// What a template, or any snapshot's folder, holds, and whether this host can run it.
int TemplateInspectCommand(const std::string& name_or_path, bool json);
int TemplateRemoveCommand(const std::string& name, bool force, bool json);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_TEMPLATE_COMMAND_H_
