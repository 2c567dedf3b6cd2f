#ifndef CUBE_VMM_GUEST_MEMORY_H_
#define CUBE_VMM_GUEST_MEMORY_H_

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "base/control_abi.h"
#include "base/mapping.h"
#include "base/result.h"

namespace cube::vmm {

// A piece of guest-physical memory that the host has mapped.
struct MemoryRegion {
  uint64_t guest_address;
  std::span<uint8_t> host;
  bool ram;  // listed to the guest as RAM (the mailbox is not)
};

// The memory of one VM. Every access names a guest-physical address and a length, which are checked
// against the regions; nothing outside them can be reached, and no access may straddle two regions.
// The guest can change the bytes at any time: copy first (Read), then check what was copied.
// Immutable once made; any thread may use it.
class GuestMemory {
 public:
  // Anonymous memory of `ram_size` bytes, a multiple of the page size between kMinMemory and
  // kMaxMemory, split around the hole of the guest physical map, and the mailbox.
  static Result<GuestMemory> Create(uint64_t ram_size);

  // The same layout as Create()'s, privately mapped from `fd`: a file of image_size() bytes with the
  // content of all regions, one after the other (a memory image). What is written stays with this
  // mapping. The file may be closed after.
  static Result<GuestMemory> MapImage(uint64_t ram_size, int fd);
  // Bytes of a memory image for that much RAM.
  static uint64_t ImageSize(uint64_t ram_size) { return ram_size + abi::kMailboxSize; }
  // Whether a stretch of such an image is in one region.
  static bool WithinRegion(uint64_t ram_size, uint64_t offset, uint64_t size);
  // Maps `size` bytes of the image from `offset` on anew, privately, from `fd` at `file_offset`, or
  // without a file, as zeros, if `fd` is -1. All multiples of the page; within one region. Nothing
  // else may use that part meanwhile.
  Status MapOver(uint64_t offset, uint64_t size, int fd, uint64_t file_offset) const;
  // The host's view of a stretch of the image, or nothing if it is not within one region.
  std::optional<std::span<uint8_t>> ImageSlice(uint64_t offset, uint64_t size) const;

  // Regions over memory that belongs to the caller, who keeps it alive; for tests and probes.
  static GuestMemory Borrow(std::vector<MemoryRegion> regions);

  GuestMemory(GuestMemory&&) = default;
  GuestMemory& operator=(GuestMemory&&) = default;

  const std::vector<MemoryRegion>& regions() const { return regions_; }
  uint64_t ram_size() const { return ram_size_; }
  // The end of the RAM below the hole: where the initrd must lie under.
  uint64_t low_ram_end() const { return low_ram_end_; }

  // The host's view of [address, address + size), or nothing if that is not within one region.
  std::optional<std::span<uint8_t>> Slice(uint64_t address, uint64_t size) const;

  // Copies out of or into the guest; false, with nothing done, if the range is not memory.
  bool Read(uint64_t address, std::span<uint8_t> out) const;
  bool Write(uint64_t address, std::span<const uint8_t> bytes) const;

  template <typename T>
  std::optional<T> ReadObject(uint64_t address) const {
    static_assert(std::is_trivially_copyable_v<T>);
    T object;
    if (!Read(address, {reinterpret_cast<uint8_t*>(&object), sizeof object})) return std::nullopt;
    return object;
  }
  template <typename T>
  bool WriteObject(uint64_t address, const T& object) const {
    static_assert(std::is_trivially_copyable_v<T>);
    return Write(address, {reinterpret_cast<const uint8_t*>(&object), sizeof object});
  }

  // Gives the whole pages of `bytes`, a part of a Slice() of RAM, back to the host. Their content is
  // lost: what is read next is zeros, or the image that the memory is a private mapping of. False if
  // they are not RAM, or the host keeps them (locked memory).
  bool Discard(std::span<uint8_t> bytes) const;

  // Makes `size` bytes at `offset` of the image this process's own ahead of time, which is cheaper than
  // a fault for each page once the guest runs. What cannot be is left to those faults.
  void Populate(uint64_t offset, uint64_t size) const;

  // The mailbox of the control device, empty for borrowed memory without one.
  std::span<uint8_t> mailbox() const;

 private:
  GuestMemory() = default;
  // `fd` of -1: anonymous memory.
  static Result<GuestMemory> Map(uint64_t ram_size, int fd);

  std::vector<Mapping> mappings_;
  std::vector<MemoryRegion> regions_;
  uint64_t ram_size_ = 0;
  uint64_t low_ram_end_ = 0;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_GUEST_MEMORY_H_
