#ifndef CUBE_VMM_RING0_HANDLER_SUPPORT_H_
#define CUBE_VMM_RING0_HANDLER_SUPPORT_H_

#include <cstdint>
#include <type_traits>

#include "vmm/ring0/cpu.h"
#include "vmm/ring0/op.h"
#include "vmm/ring0/soft_mmu.h"

// What the handlers share.
namespace cube::vmm::ring0 {

inline constexpr uint8_t kRax = 0, kRcx = 1, kRdx = 2, kRbx = 3, kRsp = 4, kRbp = 5, kRsi = 6,
                         kRdi = 7, kR11 = 11;

inline constexpr uint64_t kInterruptFlag = 1 << 9;
inline constexpr uint64_t kDirectionFlag = 1 << 10;

// Leaves the interpreter at `op`, with Cpu::stop set.
[[gnu::noinline]] inline const Op* Stopped(Cpu& cpu, const Op* op) {
  cpu.rip = cpu.r[kCodePageRegister] + op->at;
  cpu.instructions += static_cast<uint64_t>(op - cpu.block_start);
  return nullptr;
}
inline const Op* StopAt(Cpu& cpu, const Op* op, Stop stop) {
  cpu.stop = stop;
  return Stopped(cpu, op);
}

// Registers by Op's numbers.
template <typename T>
[[gnu::always_inline]] inline T Reg(const Cpu& cpu, uint8_t number) {
  if constexpr (sizeof(T) == 1) {
    return reinterpret_cast<const uint8_t*>(cpu.r)[number];
  } else {
    return static_cast<T>(cpu.r[number]);
  }
}
// 32-bit results clear the upper half, narrower ones leave what is above.
template <typename T>
[[gnu::always_inline]] inline void SetReg(Cpu& cpu, uint8_t number, T value) {
  if constexpr (sizeof(T) == 1) {
    reinterpret_cast<uint8_t*>(cpu.r)[number] = value;
  } else if constexpr (sizeof(T) == 2) {
    memcpy(&cpu.r[number], &value, 2);
  } else {
    cpu.r[number] = value;
  }
}

[[gnu::always_inline]] inline uint64_t Offset(const Cpu& cpu, const Op* op) {
  return cpu.r[op->base] + (cpu.r[op->index] << op->scale) +
         static_cast<uint64_t>(static_cast<int64_t>(op->displacement));
}
[[gnu::always_inline]] inline uint64_t Address(const Cpu& cpu, const Op* op) {
  return Offset(cpu, op) + cpu.segment_base[op->segment];
}

inline uint64_t NextRip(const Cpu& cpu, const Op* op) {
  return cpu.r[kCodePageRegister] + op->at + op->length;
}

// Finds the block at `rip` when it is not remembered; in interpreter.cc.
const Op* JumpSlowly(Cpu& cpu, uint64_t rip);

// Goes on at `rip` after `op`, the last of its block that was run.
[[gnu::always_inline]] inline const Op* Jump(Cpu& cpu, const Op* op, uint64_t rip) {
  cpu.instructions += static_cast<uint64_t>(op - cpu.block_start) + 1;
  const JumpEntry& entry = cpu.jumps[JumpIndex(rip)];
  if (--cpu.budget > 0 && static_cast<uint64_t>(int64_t{entry.rip}) == rip) [[likely]] {
    cpu.r[kCodePageRegister] = rip & ~(kPageSize - 1);
    cpu.block_start = reinterpret_cast<const Op*>(cpu.code_base + size_t{entry.place} * 8);
    return cpu.block_start;
  }
  return JumpSlowly(cpu, rip);
}

[[gnu::always_inline]] inline bool Push(Cpu& cpu, uint64_t value) {
  if (!Store<uint64_t>(cpu, cpu.r[kRsp] - 8, value)) return false;
  cpu.r[kRsp] -= 8;
  return true;
}

#define CUBE_RING0_BY_SIZE(size, name)            \
  ((size) == 1   ? static_cast<Handler>(name<uint8_t>)  \
   : (size) == 2 ? static_cast<Handler>(name<uint16_t>) \
   : (size) == 4 ? static_cast<Handler>(name<uint32_t>) \
                 : static_cast<Handler>(name<uint64_t>))

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_HANDLER_SUPPORT_H_
