#ifndef CUBE_VMM_CLI_SHARE_OPTION_H_
#define CUBE_VMM_CLI_SHARE_OPTION_H_

#include <string>
#include <vector>

#include "base/result.h"
#include "devices/fs/fs.h"

namespace cube::vmm {

// `--share HOSTDIR:TAG[:OPTION,...]`, the options being ro, uid=N and gid=N (the host's user as
// whom files are accessed), guest-uid=N and guest-gid=N (to whom they belong in the guest). HOSTDIR
// has no colons. Errors name the whole value.
Result<devices::fs::ShareConfig> ParseShare(const std::string& value);

// All of them, each with a tag of its own.
Result<std::vector<devices::fs::ShareConfig>> ParseShares(const std::vector<std::string>& values);

// What the kernel's command line says of them, for the agent to mount them at /mnt/TAG.
std::string ShareWords(const std::vector<devices::fs::ShareConfig>& shares);

// So many without a directory, for volumes that are given to a clone when it starts.
std::vector<devices::fs::ShareConfig> SpareShares(size_t count);
// The tag of such a share, from 0 on.
std::string VolumeTag(size_t number);

// Lets the process have the descriptors that the shares may need, beside its own.
Status RaiseDescriptorLimit(const std::vector<devices::fs::ShareConfig>& shares);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_SHARE_OPTION_H_
