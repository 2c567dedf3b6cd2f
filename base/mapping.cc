#include "base/mapping.h"

#include <sys/mman.h>

namespace cube {

Result<Mapping> Mapping::Map(size_t size, int protection, int flags, int fd, uint64_t offset,
                             const char* what) {
  void* data = mmap(nullptr, size, protection, flags, fd, static_cast<off_t>(offset));
  if (data == MAP_FAILED) return ErrnoError("cannot map %zu bytes for %s", size, what);
  return Mapping(static_cast<uint8_t*>(data), size);
}

void Mapping::Reset() {
  if (data_ != nullptr) munmap(data_, size_);
  data_ = nullptr;
  size_ = 0;
}

}  // namespace cube
