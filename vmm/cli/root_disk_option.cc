#include "vmm/cli/root_disk_option.h"

#include <unistd.h>

#include "vmm/cli/disk_option.h"

namespace cube::vmm {

Result<RootDisk> ParseRootDisk(const std::string& text, const std::string& images) {
  Result<DiskOption> option = ParseDiskOption(text);
  if (!option.ok()) return Error(option.error()).Wrap("--rootfs " + text);
  const std::string& image = option->files.base;
  RootDisk root = {.disk = text, .kernel_argument = "cube.root=/dev/vda"};
  if (image.find('/') == std::string::npos) {
    root.disk = images + "/" + image + ".ext4";
    if (access(root.disk.c_str(), F_OK) < 0) {
      return Errorf("--rootfs: there is no %s; 'tools/images.sh %s' builds it", root.disk.c_str(),
                    image.c_str());
    }
    root.disk += text.substr(image.size());
  }
  if (option->files.read_only) {
    root.kernel_argument += ":ro";
  } else if (option->files.overlay.empty() && !option->temporary) {
    root.disk += ":temporary";
  }
  return root;
}

}  // namespace cube::vmm
