#ifndef CUBE_VMM_CLI_DISK_OPTION_H_
#define CUBE_VMM_CLI_DISK_OPTION_H_

#include <string>

#include "base/result.h"
#include "devices/blk/blk.h"

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

// Opens the files and makes the device. Errors name option and file.
Result<std::unique_ptr<::cube::devices::Blk>> MakeDisk(const std::string& text,
                                                       const std::string& default_id,
                                                       EventLoop* loop);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_DISK_OPTION_H_
