#ifndef CUBE_VMM_CLI_DISK_OPTION_H_
#define CUBE_VMM_CLI_DISK_OPTION_H_

#include <memory>
#include <string>

#include "base/result.h"
#include "devices/blk/blk.h"
#include "snapshot/hardware.h"

namespace cube::vmm {

// One `--disk
// FILE[:ro][:layer=FILE]...[:overlay=FILE|:temporary][:id=NAME][:bps=N][:iops=N][:engine=NAME]`.
struct DiskOption {
  ::cube::devices::blk::DiskFiles files;
  ::cube::devices::BlkOptions device;
  bool temporary = false;  // what is written goes to an overlay without a name, gone with the VM
};

// Errors name the word at fault. A colon ends a file's name.
Result<DiskOption> ParseDiskOption(const std::string& text);

// A disk and what a snapshot is to say of it.
struct MadeDisk {
  std::unique_ptr<::cube::devices::Blk> device;
  snapshot::DiskHardware hardware;
};

// Opens the files and makes the device `name` ("vda"); a temporary overlay is in the folder
// `scratch`. Errors name option and file.
Result<MadeDisk> MakeDisk(const std::string& text, const std::string& name,
                          const std::string& scratch, EventLoop* loop);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_DISK_OPTION_H_
