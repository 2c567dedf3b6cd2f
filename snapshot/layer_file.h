#ifndef CUBE_SNAPSHOT_LAYER_FILE_H_
#define CUBE_SNAPSHOT_LAYER_FILE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "devices/blk/disk.h"

namespace cube::snapshot {

// A snapshot's part of a disk: one frozen overlay file (devices/blk/overlay_file.h).
struct LayerFile {
  uint64_t blocks = 0;  // 0: no file was made
  std::string xxh3;     // xxh3-128 of the blocks and where they lie
  UniqueFd file;
};

// Makes the file `path` of what `layers`, the lowest first, hold together. If one of them alone has
// all of it, and is a temporary file of the same file system, it gets that name: nothing is copied.
Result<LayerFile> WriteLayer(
    const std::string& path,
    std::span<const std::shared_ptr<const ::cube::devices::blk::OverlayFile>> layers);

// The checksum of what is there now, to hold against the manifest.
Result<std::string> HashLayer(const ::cube::devices::blk::OverlayFile& layer);

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_LAYER_FILE_H_
