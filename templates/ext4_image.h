#ifndef CUBE_TEMPLATES_EXT4_IMAGE_H_
#define CUBE_TEMPLATES_EXT4_IMAGE_H_

#include <cstdint>
#include <string>

#include "base/result.h"

namespace cube::templates {

// What a text like "512M" or "4G" means, in bytes: from 32 MiB to 16 TiB.
Result<uint64_t> ParseDiskSize(const std::string& text);

// A disk for so much content: with 2 GiB to spare, which cost nothing until they are written.
uint64_t DiskSizeFor(uint64_t content_bytes, uint64_t entries);

// Makes the ext4 file system `image`, a sparse file of `bytes`, with all that is in `folder`, by
// mke2fs(8): nothing is mounted. Errors are its words.
Status MakeExt4(const std::string& folder, const std::string& image, uint64_t bytes);

}  // namespace cube::templates

#endif  // CUBE_TEMPLATES_EXT4_IMAGE_H_
