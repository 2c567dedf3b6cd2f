#include <algorithm>
#include <cstring>

#include "base/byte_io.h"
#include "devices/blk/disk.h"
#include "devices/blk/overlay_format.h"
#include "devices/blk/testing/scratch.h"

namespace {

using namespace cube::devices::blk;

// An overlay file of any content over a good base: refused, or a disk of which every byte can be
// asked for. Every other input gets a header that holds together.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr uint64_t kSize = 256 * 1024;
  static const testing::Scratch scratch;
  static const std::string base = scratch.Write("base", std::vector<uint8_t>(kSize));
  if (size < 2) return 0;
  std::vector<uint8_t> bytes(data + 2, data + size);
  if ((data[0] & 1) != 0) {
    bytes.resize(std::max(bytes.size(), sizeof(OverlayHeader)));
    OverlayHeader header;
    memcpy(&header, bytes.data(), sizeof header);
    memcpy(header.magic, kOverlayMagic, sizeof header.magic);
    header.version = kOverlayVersion;
    header.state &= 1;
    if ((data[0] & 2) != 0) header.disk_size = kSize;
    if ((data[0] & 4) != 0) header.block_size = 4096u << (data[1] % 9);
    header.checksum = OverlayChecksum(header);
    memcpy(bytes.data(), &header, sizeof header);
    // The bitmap follows at once in the input, and the file has its length.
    std::vector<uint8_t> bitmap(bytes.begin() + sizeof header, bytes.end());
    bytes.resize(sizeof header);
    bytes.resize(kBitmapOffset);
    bytes.insert(bytes.end(), bitmap.begin(), bitmap.end());
    if ((data[0] & 8) != 0) bytes.resize(kBitmapOffset + 4096 + kSize);
  }
  std::string path = scratch.Write("overlay", bytes);
  DiskFiles files = {.base = base};
  if ((data[0] & 16) != 0) {
    files.layers = {path};
  } else {
    files.overlay = path;
  }
  auto disk = Disk::Open(files);
  if (!disk.ok()) return 0;
  std::vector<Disk::Extent> extents;
  disk->Map(0, disk->size(), &extents);
  std::vector<uint8_t> buffer(disk->size());
  uint64_t sum = 0;
  for (const Disk::Extent& extent : extents) {
    auto part = std::span(buffer).first(extent.size);
    if (!cube::ReadExactAt(extent.fd, part, extent.file_offset, "disk").ok()) __builtin_trap();
    sum += extent.size;
  }
  if (sum != disk->size()) __builtin_trap();
  return 0;
}

}  // namespace
