#ifndef CUBE_TEMPLATES_BASE_DISK_H_
#define CUBE_TEMPLATES_BASE_DISK_H_

#include <string>
#include <vector>

#include "base/result.h"
#include "snapshot/defaults.h"
#include "templates/build_folder.h"
#include "templates/progress.h"

namespace cube::templates {

// A root disk: an image, layers over it, and what the template with it will say about programs.
struct BaseDisk {
  std::string image;
  std::vector<std::string> layers;
  snapshot::Defaults defaults;
  // What the disk holds: equal keys, equal disks.
  std::string key;

  // As `cube-vmm run --rootfs` takes it.
  std::string RootfsOption() const;
};

// The disk of a container image: `path` is an OCI layout's folder, or a tar of one or by `docker
// save`; `name` is which, if there are several. `size` is in bytes, 0 for the content's and room.
// Made only if `folder` does not have it.
struct ImageRequest {
  std::string path;
  std::string name;
  uint64_t size = 0;
};
// `cached` says whether it was there.
Result<BaseDisk> MakeImageDisk(const ImageRequest& request, const BuildFolder& folder,
                               bool* cached);

}  // namespace cube::templates

#endif  // CUBE_TEMPLATES_BASE_DISK_H_
