#ifndef CUBE_POOL_VOLUME_MOUNTS_H_
#define CUBE_POOL_VOLUME_MOUNTS_H_

#include <string>
#include <vector>

#include "pool/outcome.h"
#include "pool/records.h"

namespace cube::pool {

// What a client asks to be mounted where: `asked`, each path in the one form that it has and in an
// order in which none hides another. kInvalid: a path that is not absolute, leads up, is longer
// than 1,024 bytes, is the root or beneath /dev, /proc or /sys, or is there twice.
Outcome<std::vector<VolumeMount>> CheckVolumeMounts(std::vector<VolumeMount> asked);

// Those of a sandbox that goes on from a snapshot which has `saved`: these first, then what is new
// in `asked` (checked). kInvalid: another volume at a path that is taken.
Outcome<std::vector<VolumeMount>> AddVolumeMounts(std::vector<VolumeMount> saved,
                                                  const std::vector<VolumeMount>& asked);

// How many a machine that is cloned from the template or snapshot in `folder` can have.
Outcome<size_t> VolumeDevicesOf(const std::string& folder);

// kInvalid, with a reason, if `mounts` are more than `devices`. `what`: "template base".
Outcome<Done> CheckVolumeCount(const std::vector<VolumeMount>& mounts, size_t devices,
                               const std::string& what);

}  // namespace cube::pool

#endif  // CUBE_POOL_VOLUME_MOUNTS_H_
