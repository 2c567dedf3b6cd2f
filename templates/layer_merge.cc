#include "templates/layer_merge.h"

#include <fcntl.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "base/byte_io.h"
#include "base/unique_fd.h"
#include "devices/blk/disk.h"
#include "templates/digest.h"

namespace cube::templates {
namespace {

using ::cube::devices::blk::CopyBlocks;
using ::cube::devices::blk::OverlayFile;

constexpr size_t kMostSeparate = 4;

std::string KeyOf(const BaseDisk& disk) {
  Sha256 sum;
  sum.AddField("merged 1");
  sum.AddField(disk.image);
  for (const std::string& layer : disk.layers) sum.AddField(layer);
  return sum.Finish();
}

Status Merge(const BaseDisk& disk, const std::string& path) {
  CUBE_ASSIGN(UniqueFd image, OpenFile(disk.image, O_RDONLY));
  CUBE_ASSIGN(uint64_t size, RegularFileSize(image.get(), disk.image.c_str()));
  size = size / 512 * 512;
  std::vector<OverlayFile> layers;
  std::vector<const OverlayFile*> from;
  for (const std::string& layer : disk.layers) {
    CUBE_ASSIGN(OverlayFile opened, OverlayFile::Open(layer, size, OverlayFile::Access::kReadOnly));
    layers.push_back(std::move(opened));
  }
  for (const OverlayFile& layer : layers) from.push_back(&layer);
  CUBE_ASSIGN(OverlayFile merged, OverlayFile::Create(path, size, layers.back().block_size()));
  CUBE_TRY(CopyBlocks(from, &merged));
  return merged.Freeze();
}

}  // namespace

Status MergeLayers(const BuildFolder& folder, BaseDisk* disk) {
  if (disk->layers.size() <= kMostSeparate) return OkStatus();
  const std::string path = folder.layer(KeyOf(*disk));
  if (access(path.c_str(), R_OK) < 0) {
    const std::string made = folder.work() + "/merged";
    CUBE_TRY(Merge(*disk, made));
    CUBE_TRY(PublishFile(made, path));
  }
  disk->layers = {path};
  return OkStatus();
}

}  // namespace cube::templates
