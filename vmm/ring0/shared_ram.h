#ifndef CUBE_VMM_RING0_SHARED_RAM_H_
#define CUBE_VMM_RING0_SHARED_RAM_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/mapping.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace cube::vmm::ring0 {

// The RAM of a guest seen twice, for lockstep: as it is, by the engine, which is watched for what
// it writes; and by a second vCPU as it was when the watch began, whose own stores stay apart. One
// object per process, which the RAM itself need not outlive, since it owns SIGSEGV. While the RAM
// is watched only one thread, and no system call, may write it.
class SharedRam {
 public:
  // Moves the content of `ram`, page-aligned and not yet shown to threads, into a file that is then
  // mapped in its place.
  static Result<std::unique_ptr<SharedRam>> Create(std::span<uint8_t> ram);
  ~SharedRam();
  SharedRam(const SharedRam&) = delete;
  SharedRam& operator=(const SharedRam&) = delete;

  std::span<uint8_t> ram() const { return ram_; }
  // The second view. Until Rewind() it may show what the engine writes.
  std::span<uint8_t> view() const { return view_.span(); }

  // Remembers each page as it is before it is written, until Unwatch().
  void Watch();
  void Unwatch();
  // Makes the view what the RAM was at Watch(). After Unwatch(), any number of times.
  void Rewind();
  // Numbers of pages in which the two may differ: any that was written on either side, since.
  Result<std::vector<uint64_t>> Written() const;

 private:
  SharedRam(std::span<uint8_t> ram, UniqueFd file, UniqueFd pagemap, Mapping view, Mapping saved);

  bool Open(const void* address);

  std::span<uint8_t> ram_;
  UniqueFd file_;
  UniqueFd pagemap_;
  Mapping view_;
  Mapping saved_;  // pages as they were, at their own offsets
  std::vector<uint64_t> touched_;
};

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_SHARED_RAM_H_
