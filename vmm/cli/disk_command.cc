#include "vmm/cli/disk_command.h"

#include <cstdio>

#include "devices/blk/disk.h"
#include "vmm/cli/run_options.h"

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

int FlattenCommand(const std::vector<std::string>& files) {
  Status status = Flatten(files);
  if (status.ok()) return 0;
  fprintf(stderr, "cube-vmm: %s\n", status.error().message().c_str());
  return kStatusVmmError;
}

}  // namespace cube::vmm
