#include "vmm/cli/disk_command.h"

#include <cstdio>

#include "devices/blk/disk.h"
#include "vmm/cli/command_answer.h"

namespace cube::vmm {
namespace {

Status Flatten(const std::vector<std::string>& files) {
  using ::cube::devices::blk::Disk;
  if (files.size() < 3) return Errorf("disk flatten: BASE, OVERLAY and OUT are needed");
  // All of them to be read only, the overlay like the layers.
  CUBE_ASSIGN(Disk disk,
              Disk::Open({.base = files.front(), .layers = {files.begin() + 1, files.end() - 1}}));
  return ::cube::devices::blk::FlattenDisk(disk, files.back());
}

}  // namespace

int FlattenCommand(const std::vector<std::string>& files, bool json) {
  Status status = Flatten(files);
  if (!status.ok()) return AnswerError(status.error(), json);
  if (json) printf("{\"ok\":true}\n");
  return 0;
}

}  // namespace cube::vmm
