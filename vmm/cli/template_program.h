#ifndef CUBE_VMM_CLI_TEMPLATE_PROGRAM_H_
#define CUBE_VMM_CLI_TEMPLATE_PROGRAM_H_

#include <string>

#include "vmm/cli/run_options.h"

namespace cube::vmm {

// What a template's root disk is made of, where it is not a disk.
struct TemplateSource {
  std::string image;  // an OCI layout's folder, or a tar
  std::string image_name;
  std::string steps;  // a file
  std::string context;
  std::string disk_size;

  bool given() const { return !image.empty() || !steps.empty(); }
};

// Becomes the program cube-template (templates/), which makes such a disk and then calls this one
// to boot and freeze the machine of `run`. It lies beside this one, or where the build has it.
// Returns, with the process's exit status, only if that cannot be.
int RunTemplateProgram(const std::string& name, const TemplateSource& source, const RunOptions& run,
                       const std::string& rootfs, bool has_initrd, bool json);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_TEMPLATE_PROGRAM_H_
