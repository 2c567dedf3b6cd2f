#ifndef CUBE_SNAPSHOT_PAGE_HASHER_H_
#define CUBE_SNAPSHOT_PAGE_HASHER_H_

#include <xxhash.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"

namespace cube::snapshot {

// xxh3-128 of pages and where they lie, however they were cut into pieces.
class PageHasher {
 public:
  PageHasher() : state_(XXH3_createState(), XXH3_freeState) { XXH3_128bits_reset(state_.get()); }
  void Add(const void* data, size_t size) { XXH3_128bits_update(state_.get(), data, size); }
  // Pieces of `page` bytes, the last one perhaps shorter, the first of them at `offset`.
  void AddPages(std::span<const uint8_t> pages, uint64_t offset, uint64_t page = 4096) {
    for (uint64_t at = 0; at < pages.size(); at += page) {
      uint64_t place = offset + at;
      Add(&place, sizeof place);
      Add(pages.data() + at, std::min<uint64_t>(page, pages.size() - at));
    }
  }
  std::string Hex() const {
    XXH128_hash_t hash = XXH3_128bits_digest(state_.get());
    return Format("%016llx%016llx", static_cast<unsigned long long>(hash.high64),
                  static_cast<unsigned long long>(hash.low64));
  }

 private:
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state_;
};

}  // namespace cube::snapshot

#endif  // CUBE_SNAPSHOT_PAGE_HASHER_H_
