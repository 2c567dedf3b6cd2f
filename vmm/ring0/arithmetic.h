#ifndef CUBE_VMM_RING0_ARITHMETIC_H_
#define CUBE_VMM_RING0_ARITHMETIC_H_

#include <cstdint>

#include "vmm/ring0/cpu.h"

// Integer arithmetic as the processor does it, flags included: each function executes the
// instruction it is named after and takes the flags with LAHF and SETO. Flags that the manual leaves
// undefined are then whatever this processor makes of them.
namespace cube::vmm::ring0 {

// In the order of their encoding; kTest stands after.
enum class Alu : uint8_t { kAdd, kOr, kAdc, kSbb, kAnd, kSub, kXor, kCmp, kTest };
enum class Shift : uint8_t { kRol, kRor, kRcl, kRcr, kShl, kShr, kSal, kSar };

#define CUBE_RING0_TAKE_FLAGS "\n\tlahf\n\tseto %%al"
// Flags from AX to the processor: OF comes of an addition that overflows if AL is 1.
#define CUBE_RING0_LOAD_FLAGS "addb $0x7f, %%al\n\tsahf\n\t"

template <Alu kOp, typename T>
[[gnu::always_inline]] inline T DoAlu(T a, T b, ArithmeticFlags* flags) {
  uint16_t out;
  uint32_t in = *flags;
  if constexpr (kOp == Alu::kAdd) {
    asm("add %2, %0" CUBE_RING0_TAKE_FLAGS : "+q"(a), "=&a"(out) : "q"(b) : "cc");
  } else if constexpr (kOp == Alu::kOr) {
    asm("or %2, %0" CUBE_RING0_TAKE_FLAGS : "+q"(a), "=&a"(out) : "q"(b) : "cc");
  } else if constexpr (kOp == Alu::kAdc) {
    asm("btl $8, %3\n\tadc %2, %0" CUBE_RING0_TAKE_FLAGS
        : "+&q"(a), "=&a"(out) : "q"(b), "r"(in) : "cc");
  } else if constexpr (kOp == Alu::kSbb) {
    asm("btl $8, %3\n\tsbb %2, %0" CUBE_RING0_TAKE_FLAGS
        : "+&q"(a), "=&a"(out) : "q"(b), "r"(in) : "cc");
  } else if constexpr (kOp == Alu::kAnd) {
    asm("and %2, %0" CUBE_RING0_TAKE_FLAGS : "+q"(a), "=&a"(out) : "q"(b) : "cc");
  } else if constexpr (kOp == Alu::kSub) {
    asm("sub %2, %0" CUBE_RING0_TAKE_FLAGS : "+q"(a), "=&a"(out) : "q"(b) : "cc");
  } else if constexpr (kOp == Alu::kXor) {
    asm("xor %2, %0" CUBE_RING0_TAKE_FLAGS : "+q"(a), "=&a"(out) : "q"(b) : "cc");
  } else if constexpr (kOp == Alu::kCmp) {
    asm("cmp %2, %1" CUBE_RING0_TAKE_FLAGS : "=&a"(out) : "q"(a), "q"(b) : "cc");
  } else {
    asm("test %2, %1" CUBE_RING0_TAKE_FLAGS : "=&a"(out) : "q"(a), "q"(b) : "cc");
  }
  *flags = out;
  return a;
}

// INC and DEC leave CF; NEG sets all.
template <bool kDec, typename T>
[[gnu::always_inline]] inline T DoIncDec(T a, ArithmeticFlags* flags) {
  uint16_t out;
  uint32_t in = *flags;
  if constexpr (kDec) {
    asm("sub $1, %0" CUBE_RING0_TAKE_FLAGS : "+q"(a), "=&a"(out) : : "cc");
  } else {
    asm("add $1, %0" CUBE_RING0_TAKE_FLAGS : "+q"(a), "=&a"(out) : : "cc");
  }
  *flags = static_cast<ArithmeticFlags>((out & ~kCarryBit) | (in & kCarryBit));
  return a;
}

template <Shift kOp, typename T>
[[gnu::always_inline]] inline T DoShift(T a, uint8_t count, ArithmeticFlags* flags) {
  uint16_t f = *flags;
#define CUBE_RING0_SHIFT(name)                                                   \
  asm(CUBE_RING0_LOAD_FLAGS name " %%cl, %0" CUBE_RING0_TAKE_FLAGS               \
      : "+q"(a), "+a"(f) : "c"(count) : "cc")
  if constexpr (kOp == Shift::kRol) {
    CUBE_RING0_SHIFT("rol");
  } else if constexpr (kOp == Shift::kRor) {
    CUBE_RING0_SHIFT("ror");
  } else if constexpr (kOp == Shift::kRcl) {
    CUBE_RING0_SHIFT("rcl");
  } else if constexpr (kOp == Shift::kRcr) {
    CUBE_RING0_SHIFT("rcr");
  } else if constexpr (kOp == Shift::kShl || kOp == Shift::kSal) {
    CUBE_RING0_SHIFT("shl");
  } else if constexpr (kOp == Shift::kShr) {
    CUBE_RING0_SHIFT("shr");
  } else {
    CUBE_RING0_SHIFT("sar");
  }
#undef CUBE_RING0_SHIFT
  *flags = f;
  return a;
}

template <bool kRight, typename T>
inline T DoDoubleShift(T a, T b, uint8_t count, ArithmeticFlags* flags) {
  uint16_t f = *flags;
  if constexpr (kRight) {
    asm(CUBE_RING0_LOAD_FLAGS "shrd %%cl, %3, %0" CUBE_RING0_TAKE_FLAGS
        : "+r"(a), "+a"(f) : "c"(count), "r"(b) : "cc");
  } else {
    asm(CUBE_RING0_LOAD_FLAGS "shld %%cl, %3, %0" CUBE_RING0_TAKE_FLAGS
        : "+r"(a), "+a"(f) : "c"(count), "r"(b) : "cc");
  }
  *flags = f;
  return a;
}

// The two-operand IMUL.
template <typename T>
inline T DoImul(T a, T b, ArithmeticFlags* flags) {
  uint16_t out;
  asm("imul %2, %0" CUBE_RING0_TAKE_FLAGS : "+r"(a), "=&a"(out) : "r"(b) : "cc");
  *flags = out;
  return a;
}

template <unsigned kCondition>
[[gnu::always_inline]] inline bool Holds(ArithmeticFlags flags) {
  constexpr unsigned kKind = kCondition >> 1;
  bool holds;
  bool sign_not_overflow = ((flags >> 15) ^ flags) & 1;
  if constexpr (kKind == 0) {
    holds = (flags & kOverflowBit) != 0;
  } else if constexpr (kKind == 1) {
    holds = (flags & kCarryBit) != 0;
  } else if constexpr (kKind == 2) {
    holds = (flags & kZeroBit) != 0;
  } else if constexpr (kKind == 3) {
    holds = (flags & (kCarryBit | kZeroBit)) != 0;
  } else if constexpr (kKind == 4) {
    holds = (flags & kSignBit) != 0;
  } else if constexpr (kKind == 5) {
    holds = (flags & kParityBit) != 0;
  } else if constexpr (kKind == 6) {
    holds = sign_not_overflow;
  } else {
    holds = sign_not_overflow || (flags & kZeroBit) != 0;
  }
  return holds != ((kCondition & 1) != 0);
}

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_ARITHMETIC_H_
