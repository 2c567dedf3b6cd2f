#ifndef CUBE_POOL_JAIL_VOLUME_MOUNT_H_
#define CUBE_POOL_JAIL_VOLUME_MOUNT_H_

#include <sys/types.h>

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace cube::pool {

// A mount of the folder at `path` alone, attached nowhere, in which the host's user and group
// `user` are the folder's owner: what they make there is its owner's, and what is anybody else's is
// nobody's to them. So machines that run as different users have the same files. Links in it are
// not followed, and nothing in it is a device or gives its callers another user's power.
//
// mount_setattr(2), MOUNT_ATTR_IDMAP: Linux 5.12, on ext4, xfs, btrfs and tmpfs among others; an
// error says so where that is missing. The caller is root of the host. It forks for a moment.
Result<UniqueFd> MountVolume(const std::string& path, uid_t user);

}  // namespace cube::pool

#endif  // CUBE_POOL_JAIL_VOLUME_MOUNT_H_
