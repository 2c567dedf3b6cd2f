#include "snapshot/layer_file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <vector>

#include "base/byte_io.h"
#include "snapshot/page_hasher.h"

namespace cube::snapshot {

using ::cube::devices::blk::CopyBlocks;
using ::cube::devices::blk::OverlayFile;

Result<LayerFile> WriteLayer(const std::string& path,
                             std::span<const std::shared_ptr<const OverlayFile>> layers) {
  std::vector<const OverlayFile*> holding;
  for (const auto& layer : layers) {
    if (layer->present().Count() != 0) holding.push_back(layer.get());
  }
  LayerFile made;
  if (holding.empty()) return made;
  bool linked = false;
  if (holding.size() == 1 && holding[0]->temporary()) {
    CUBE_TRY(holding[0]->Seal());
    CUBE_ASSIGN(linked, holding[0]->Link(path));
  }
  if (linked) {
    made.blocks = holding[0]->present().Count();
    CUBE_ASSIGN(made.xxh3, HashLayer(*holding[0]));
  } else {
    const OverlayFile& top = *holding.back();
    CUBE_ASSIGN(OverlayFile copy, OverlayFile::Create(path, top.disk_size(), top.block_size()));
    CUBE_TRY(CopyBlocks(holding, &copy));
    CUBE_TRY(copy.Seal());
    // Like one that got its name: machines of other users begin from it.
    if (fchmod(copy.fd(), 0644) < 0) return ErrnoError("%s", path.c_str());
    made.blocks = copy.present().Count();
    CUBE_ASSIGN(made.xxh3, HashLayer(copy));
  }
  CUBE_ASSIGN(made.file, OpenFile(path, O_RDONLY));
  return made;
}

Result<std::string> HashLayer(const OverlayFile& layer) {
  PageHasher hasher;
  const uint64_t block = layer.block_size();
  const uint64_t blocks = layer.present().blocks();
  const uint64_t piece = std::max<uint64_t>(1, (1 << 20) / block);
  std::vector<uint8_t> buffer(piece * block);
  for (uint64_t at = 0; at < blocks;) {
    uint64_t run = layer.present().RunLength(at, blocks - at);
    if (!layer.present().Get(at)) {
      at += run;
      continue;
    }
    run = std::min(run, piece);
    uint64_t size = std::min(run * block, layer.disk_size() - at * block);
    auto bytes = std::span(buffer).first(size);
    CUBE_TRY(ReadExactAt(layer.fd(), bytes, layer.FileOffset(at * block), layer.path().c_str()));
    hasher.AddPages(bytes, at * block, block);
    at += run;
  }
  return hasher.Hex();
}

}  // namespace cube::snapshot
