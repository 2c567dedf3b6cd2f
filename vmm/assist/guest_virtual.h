#ifndef CUBE_VMM_ASSIST_GUEST_VIRTUAL_H_
#define CUBE_VMM_ASSIST_GUEST_VIRTUAL_H_

#include <cstdint>
#include <optional>
#include <span>

#include "vmm/guest_memory.h"
#include "vmm/kvm/kvm_api.h"

namespace cube::vmm {

// A page fault that an access would raise (Intel SDM volume 3, 4.7).
struct PageFault {
  uint64_t address;
  uint32_t error_code;
};

// Bits of a page fault's error code.
inline constexpr uint32_t kFaultPresent = 1;
inline constexpr uint32_t kFaultWrite = 2;
inline constexpr uint32_t kFaultUser = 4;
inline constexpr uint32_t kFaultReserved = 8;

// Guest-virtual memory as a data access of ring 0 sees it in 4-level paging: rights by CR0.WP and
// SMAP, accessed and dirty bits set as the processor would. Protection keys and 5-level paging are
// not offered to guests (vmm/cpuid.h). Valid while `sregs` and `memory` are.
class GuestVirtual {
 public:
  GuestVirtual(const GuestMemory& memory, const kvm_sregs& sregs, uint64_t rflags)
      : memory_(memory), sregs_(sregs), rflags_(rflags) {}

  // The physical address of `address`; or fills `fault`.
  std::optional<uint64_t> Translate(uint64_t address, bool write, PageFault* fault) const;
  // The same without rights or side effects, for looking at a guest.
  std::optional<uint64_t> Peek(uint64_t address) const;

  // Copies, page by page. A write checks every page before it changes a byte. On failure `fault`
  // is the first byte that could not be reached.
  bool Read(uint64_t address, std::span<uint8_t> out, PageFault* fault) const;
  bool Write(uint64_t address, std::span<const uint8_t> bytes, PageFault* fault) const;
  // Whether Write() of `size` bytes would succeed.
  bool CheckWrite(uint64_t address, size_t size, PageFault* fault) const;
  // Up to out.size() bytes without side effects; returns how many could be read.
  size_t PeekBytes(uint64_t address, std::span<uint8_t> out) const;

 private:
  struct Walk;
  bool Walk4(uint64_t address, Walk* walk) const;

  const GuestMemory& memory_;
  const kvm_sregs& sregs_;
  uint64_t rflags_;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_ASSIST_GUEST_VIRTUAL_H_
