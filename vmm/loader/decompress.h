#ifndef CUBE_VMM_LOADER_DECOMPRESS_H_
#define CUBE_VMM_LOADER_DECOMPRESS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "base/mapping.h"
#include "base/result.h"

namespace cube::vmm {

// What came out of a compressed stream. It lies in a mapping of its own, not in the heap, so that
// all of its memory is given back to the host when this goes.
class DecompressedImage {
 public:
  DecompressedImage(Mapping mapping, size_t size) : mapping_(std::move(mapping)), size_(size) {}

  std::span<const uint8_t> bytes() const { return {mapping_.data(), size_}; }

 private:
  Mapping mapping_;
  size_t size_;
};

// Decompresses the payload of a Linux bzImage. The format is told from its first bytes: lz4 in the
// legacy frame Linux uses, gzip, zstd or xz; any other is an error that names it. What follows the
// end of the stream, such as the length the Linux build appends, is ignored. A stream that is
// corrupt, cut short or gives more than `limit` bytes is an error; address space of `limit` bytes
// is reserved meanwhile, memory only as far as it is filled.
Result<DecompressedImage> Decompress(std::span<const uint8_t> data, uint64_t limit);

}  // namespace cube::vmm

#endif  // CUBE_VMM_LOADER_DECOMPRESS_H_
