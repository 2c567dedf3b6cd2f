#ifndef CUBE_VMM_CLI_TEMPLATE_FOLDER_H_
#define CUBE_VMM_CLI_TEMPLATE_FOLDER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "snapshot/manifest.h"

namespace cube::vmm {

// Where templates are, each a snapshot's folder under its name: CubeHome()/templates.
std::string TemplatesFolder();

// Whether `name`, which may be anything, can be a template's: 1 to 64 letters, digits, dots,
// hyphens and underscores, beginning with a letter or a digit. So it is one entry of the folder,
// and shown.
Status CheckTemplateName(const std::string& name);

// The folder of what was given as a template: a path if there is a slash in it, else a template's
// name. An error if there is no such template.
Result<std::string> FindTemplate(const std::string& name_or_path);

// Folders directly in `folder` that are not on their way to or from being snapshots, by name.
std::vector<std::string> VisibleFolders(const std::string& folder);

struct TemplateInfo {
  std::string name;
  std::string path;
  std::optional<snapshot::Manifest> manifest;  // nothing if it cannot be read
  std::string error;                           // why not
  uint64_t disk_bytes = 0;                     // allocated
};

// What stands in a snapshot's folder, by its manifest alone.
TemplateInfo ReadTemplate(const std::string& path);
// All templates, by name.
Result<std::vector<TemplateInfo>> ListTemplates();

// Deletes a template in one step, as seen by whoever looks for it. Refuses, unless `force`, while a
// process has it open (they hold a lock, Snapshot::Open) or a snapshot in a folder of CubeHome()
// builds on it; snapshots that are kept elsewhere are not known.
Status RemoveTemplate(const std::string& name, bool force);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_TEMPLATE_FOLDER_H_
