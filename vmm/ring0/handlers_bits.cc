#include <type_traits>

#include "vmm/ring0/handler_support.h"
#include "vmm/ring0/handlers.h"

namespace cube::vmm::ring0 {
namespace {

// ---- Shifts and rotations. The count of base or memory is the immediate or CL.

template <typename T>
uint8_t CountOf(const Cpu& cpu, const Op* op, Count count) {
  uint8_t raw = count == Count::kCl ? static_cast<uint8_t>(cpu.r[kRcx])
                                    : static_cast<uint8_t>(op->immediate);
  return raw & (sizeof(T) == 8 ? 63 : 31);
}

template <Shift kShift, typename T, Count kCount>
const Op* ShiftReg(Cpu& cpu, const Op* op) {
  uint8_t count = CountOf<T>(cpu, op, kCount);
  SetReg<T>(cpu, op->base, DoShift<kShift, T>(Reg<T>(cpu, op->base), count, &cpu.flags));
  return op + 1;
}
template <Shift kShift, typename T, Count kCount>
const Op* ShiftMem(Cpu& cpu, const Op* op) {
  uint8_t count = CountOf<T>(cpu, op, kCount);
  ArithmeticFlags flags = cpu.flags;
  auto change = [&](T value) {
    flags = cpu.flags;
    return DoShift<kShift, T>(value, count, &flags);
  };
  if (!Modify<T, false>(cpu, Address(cpu, op), change)) [[unlikely]] return Stopped(cpu, op);
  cpu.flags = flags;
  return op + 1;
}

template <Shift kShift, typename T>
Handler ShiftForm(bool memory, Count count) {
  if (memory) {
    return count == Count::kCl ? ShiftMem<kShift, T, Count::kCl>
                               : ShiftMem<kShift, T, Count::kImmediate>;
  }
  return count == Count::kCl ? ShiftReg<kShift, T, Count::kCl>
                             : ShiftReg<kShift, T, Count::kImmediate>;
}
template <Shift kShift>
Handler ShiftSize(unsigned size, bool memory, Count count) {
  switch (size) {
    case 1: return ShiftForm<kShift, uint8_t>(memory, count);
    case 2: return ShiftForm<kShift, uint16_t>(memory, count);
    case 4: return ShiftForm<kShift, uint32_t>(memory, count);
    default: return ShiftForm<kShift, uint64_t>(memory, count);
  }
}

template <bool kRight, typename T, Count kCount>
const Op* DoubleShiftReg(Cpu& cpu, const Op* op) {
  uint8_t count = CountOf<T>(cpu, op, kCount);
  SetReg<T>(cpu, op->base,
            DoDoubleShift<kRight, T>(Reg<T>(cpu, op->base), Reg<T>(cpu, op->reg), count,
                                     &cpu.flags));
  return op + 1;
}
template <bool kRight, typename T, Count kCount>
const Op* DoubleShiftMem(Cpu& cpu, const Op* op) {
  uint8_t count = CountOf<T>(cpu, op, kCount);
  T source = Reg<T>(cpu, op->reg);
  ArithmeticFlags flags = cpu.flags;
  auto change = [&](T value) {
    flags = cpu.flags;
    return DoDoubleShift<kRight, T>(value, source, count, &flags);
  };
  if (!Modify<T, false>(cpu, Address(cpu, op), change)) [[unlikely]] return Stopped(cpu, op);
  cpu.flags = flags;
  return op + 1;
}
template <bool kRight, typename T>
Handler DoubleShiftForm(bool memory, Count count) {
  if (memory) {
    return count == Count::kCl ? DoubleShiftMem<kRight, T, Count::kCl>
                               : DoubleShiftMem<kRight, T, Count::kImmediate>;
  }
  return count == Count::kCl ? DoubleShiftReg<kRight, T, Count::kCl>
                             : DoubleShiftReg<kRight, T, Count::kImmediate>;
}
template <bool kRight>
Handler DoubleShiftSize(unsigned size, bool memory, Count count) {
  switch (size) {
    case 2: return DoubleShiftForm<kRight, uint16_t>(memory, count);
    case 4: return DoubleShiftForm<kRight, uint32_t>(memory, count);
    default: return DoubleShiftForm<kRight, uint64_t>(memory, count);
  }
}

// ---- BT, BTS, BTR, BTC: only CF changes. A register bit number reaches beyond the operand in
// memory; an immediate does not.

template <BitTest kTest, typename T>
[[gnu::always_inline]] inline T ChangeBit(T value, T mask) {
  if constexpr (kTest == BitTest::kSet) return static_cast<T>(value | mask);
  if constexpr (kTest == BitTest::kReset) return static_cast<T>(value & ~mask);
  if constexpr (kTest == BitTest::kComplement) return static_cast<T>(value ^ mask);
  return value;
}

void SetCarry(Cpu& cpu, bool set) {
  cpu.flags = static_cast<ArithmeticFlags>((cpu.flags & ~kCarryBit) | (set ? kCarryBit : 0));
}

template <BitTest kTest, typename T, bool kImmediate>
const Op* BitTestReg(Cpu& cpu, const Op* op) {
  uint64_t bit = kImmediate ? static_cast<uint64_t>(op->immediate) : cpu.r[op->reg];
  T mask = static_cast<T>(T{1} << (bit & (sizeof(T) * 8 - 1)));
  T value = Reg<T>(cpu, op->base);
  SetCarry(cpu, (value & mask) != 0);
  if constexpr (kTest != BitTest::kTest) {
    SetReg<T>(cpu, op->base, ChangeBit<kTest, T>(value, mask));
  }
  return op + 1;
}

template <BitTest kTest, typename T, bool kImmediate, bool kLocked>
const Op* BitTestMem(Cpu& cpu, const Op* op) {
  uint64_t address = Address(cpu, op);
  uint64_t bit;
  if constexpr (kImmediate) {
    bit = static_cast<uint64_t>(op->immediate);
  } else {
    auto number = static_cast<int64_t>(static_cast<std::make_signed_t<T>>(cpu.r[op->reg]));
    address += static_cast<uint64_t>((number >> (sizeof(T) == 8 ? 6 : sizeof(T) == 4 ? 5 : 4)) *
                                     static_cast<int64_t>(sizeof(T)));
    bit = static_cast<uint64_t>(number);
  }
  T mask = static_cast<T>(T{1} << (bit & (sizeof(T) * 8 - 1)));
  T old = 0;
  if constexpr (kTest == BitTest::kTest) {
    if (!Load<T>(cpu, address, &old)) [[unlikely]] return Stopped(cpu, op);
  } else {
    auto change = [&](T value) {
      old = value;
      return ChangeBit<kTest, T>(value, mask);
    };
    if (!Modify<T, kLocked>(cpu, address, change)) [[unlikely]] return Stopped(cpu, op);
  }
  SetCarry(cpu, (old & mask) != 0);
  return op + 1;
}

template <BitTest kTest, typename T>
Handler BitTestForm(Form form) {
  constexpr bool kChanges = kTest != BitTest::kTest;
  switch (form) {
    case Form::kRegReg: return BitTestReg<kTest, T, false>;
    case Form::kRegImm: return BitTestReg<kTest, T, true>;
    case Form::kMemReg: return BitTestMem<kTest, T, false, false>;
    case Form::kMemImm: return BitTestMem<kTest, T, true, false>;
    case Form::kLockMemReg: return kChanges ? BitTestMem<kTest, T, false, true> : nullptr;
    case Form::kLockMemImm: return kChanges ? BitTestMem<kTest, T, true, true> : nullptr;
    default: return nullptr;
  }
}
template <BitTest kTest>
Handler BitTestSize(unsigned size, Form form) {
  switch (size) {
    case 2: return BitTestForm<kTest, uint16_t>(form);
    case 4: return BitTestForm<kTest, uint32_t>(form);
    default: return BitTestForm<kTest, uint64_t>(form);
  }
}

// ---- BSF, BSR, TZCNT, LZCNT, POPCNT

template <BitScan kScan, typename T>
[[gnu::always_inline]] inline void Scan(Cpu& cpu, uint8_t destination, T value) {
  constexpr int kWidth = sizeof(T) * 8;
  auto leading = [&] { return __builtin_clzll(value) - (64 - kWidth); };
  ArithmeticFlags flags = 0;
  if constexpr (kScan == BitScan::kForward || kScan == BitScan::kReverse) {
    flags = static_cast<ArithmeticFlags>((cpu.flags & ~kZeroBit) | (value == 0 ? kZeroBit : 0));
    if (value != 0) {
      int result = kScan == BitScan::kForward ? __builtin_ctzll(value) : kWidth - 1 - leading();
      SetReg<T>(cpu, destination, static_cast<T>(result));
    }  // else the destination stays as it is (SDM: undefined; AMD: so)
  } else {
    int result;
    if constexpr (kScan == BitScan::kPopulation) {
      result = __builtin_popcountll(value);
      flags = value == 0 ? kZeroBit : 0;
    } else {
      result = value == 0 ? kWidth : kScan == BitScan::kTrailing ? __builtin_ctzll(value) : leading();
      flags = static_cast<ArithmeticFlags>((value == 0 ? kCarryBit : 0) |
                                           (result == 0 ? kZeroBit : 0));
    }
    SetReg<T>(cpu, destination, static_cast<T>(result));
  }
  cpu.flags = flags;
}

template <BitScan kScan, typename T, bool kMemory>
const Op* ScanBits(Cpu& cpu, const Op* op) {
  T value;
  if constexpr (kMemory) {
    if (!Load<T>(cpu, Address(cpu, op), &value)) [[unlikely]] return Stopped(cpu, op);
  } else {
    value = Reg<T>(cpu, op->base);
  }
  Scan<kScan, T>(cpu, op->reg, value);
  return op + 1;
}
template <BitScan kScan>
Handler ScanSize(unsigned size, bool memory) {
  switch (size) {
    case 2: return memory ? ScanBits<kScan, uint16_t, true> : ScanBits<kScan, uint16_t, false>;
    case 4: return memory ? ScanBits<kScan, uint32_t, true> : ScanBits<kScan, uint32_t, false>;
    default: return memory ? ScanBits<kScan, uint64_t, true> : ScanBits<kScan, uint64_t, false>;
  }
}

// ---- MUL, IMUL, DIV, IDIV

// The upper half of a product or dividend: AH for bytes, else RDX.
template <typename T>
T Upper(const Cpu& cpu) {
  return sizeof(T) == 1 ? static_cast<T>(cpu.r[kRax] >> 8) : static_cast<T>(cpu.r[kRdx]);
}
template <typename T>
void SetUpper(Cpu& cpu, T value) {
  if constexpr (sizeof(T) == 1) {
    SetReg<uint8_t>(cpu, 1, value);  // AH
  } else {
    SetReg<T>(cpu, kRdx, value);
  }
}

template <typename T>
struct Wide;
template <>
struct Wide<uint8_t> { using Unsigned = uint16_t; using Signed = int16_t; };
template <>
struct Wide<uint16_t> { using Unsigned = uint32_t; using Signed = int32_t; };
template <>
struct Wide<uint32_t> { using Unsigned = uint64_t; using Signed = int64_t; };
template <>
struct Wide<uint64_t> { using Unsigned = unsigned __int128; using Signed = __int128; };

// CF and OF say whether the upper half means anything; the other flags are undefined and stay.
template <bool kSigned, typename T>
void Multiply(Cpu& cpu, T factor) {
  constexpr int kWidth = sizeof(T) * 8;
  using Unsigned = typename Wide<T>::Unsigned;
  T low, high;
  bool overflow;
  if constexpr (kSigned) {
    using Narrow = std::make_signed_t<T>;
    using Signed = typename Wide<T>::Signed;
    auto product = static_cast<Signed>(static_cast<Signed>(static_cast<Narrow>(Reg<T>(cpu, kRax))) *
                                       static_cast<Signed>(static_cast<Narrow>(factor)));
    low = static_cast<T>(product);
    high = static_cast<T>(static_cast<Unsigned>(product) >> kWidth);
    overflow = product != static_cast<Signed>(static_cast<Narrow>(product));
  } else {
    auto product = static_cast<Unsigned>(static_cast<Unsigned>(Reg<T>(cpu, kRax)) * factor);
    low = static_cast<T>(product);
    high = static_cast<T>(product >> kWidth);
    overflow = high != 0;
  }
  SetReg<T>(cpu, kRax, low);
  SetUpper<T>(cpu, high);
  cpu.flags = static_cast<ArithmeticFlags>((cpu.flags & ~(kCarryBit | kOverflowBit)) |
                                           (overflow ? kCarryBit | kOverflowBit : 0));
}

// False for what raises #DE.
template <bool kSigned, typename T>
bool Divide(Cpu& cpu, T divisor) {
  using Unsigned = typename Wide<T>::Unsigned;
  using Signed = typename Wide<T>::Signed;
  if (divisor == 0) return false;
  auto dividend = static_cast<Unsigned>(
      static_cast<Unsigned>(static_cast<Unsigned>(Upper<T>(cpu)) << (sizeof(T) * 8)) |
      Reg<T>(cpu, kRax));
  T quotient, remainder;
  if constexpr (kSigned) {
    using Narrow = std::make_signed_t<T>;
    auto wide = static_cast<Signed>(dividend);
    auto by = static_cast<Signed>(static_cast<Narrow>(divisor));
    // The one quotient that does not fit even the wide type.
    if (by == -1 && wide == static_cast<Signed>(static_cast<Unsigned>(1) << (sizeof(T) * 16 - 1))) {
      return false;
    }
    Signed result = wide / by;
    if (result != static_cast<Signed>(static_cast<Narrow>(result))) return false;
    quotient = static_cast<T>(result);
    remainder = static_cast<T>(wide % by);
  } else {
    if (Upper<T>(cpu) >= divisor) return false;
    if constexpr (sizeof(T) == 8) {
      // The compiler would call a library for what is one instruction.
      asm("divq %4" : "=a"(quotient), "=d"(remainder)
          : "0"(static_cast<uint64_t>(dividend)), "1"(static_cast<uint64_t>(dividend >> 64)),
            "r"(divisor) : "cc");
    } else {
      quotient = static_cast<T>(dividend / divisor);
      remainder = static_cast<T>(dividend % divisor);
    }
  }
  SetReg<T>(cpu, kRax, quotient);
  SetUpper<T>(cpu, remainder);
  return true;
}

template <Product kProduct, typename T, bool kMemory>
const Op* DoProduct(Cpu& cpu, const Op* op) {
  T operand;
  if constexpr (kMemory) {
    if (!Load<T>(cpu, Address(cpu, op), &operand)) [[unlikely]] return Stopped(cpu, op);
  } else {
    operand = Reg<T>(cpu, op->base);
  }
  if constexpr (kProduct == Product::kMul || kProduct == Product::kImul) {
    Multiply<kProduct == Product::kImul, T>(cpu, operand);
  } else if (!Divide<kProduct == Product::kIdiv, T>(cpu, operand)) [[unlikely]] {
    cpu.exception = {0, false, false, 0, 0};
    return StopAt(cpu, op, Stop::kException);
  }
  return op + 1;
}
template <Product kProduct>
Handler ProductSize(unsigned size, bool memory) {
  switch (size) {
    case 1: return memory ? DoProduct<kProduct, uint8_t, true> : DoProduct<kProduct, uint8_t, false>;
    case 2: return memory ? DoProduct<kProduct, uint16_t, true> : DoProduct<kProduct, uint16_t, false>;
    case 4: return memory ? DoProduct<kProduct, uint32_t, true> : DoProduct<kProduct, uint32_t, false>;
    default: return memory ? DoProduct<kProduct, uint64_t, true> : DoProduct<kProduct, uint64_t, false>;
  }
}

template <typename T, bool kMemory, bool kImmediate>
const Op* Imul(Cpu& cpu, const Op* op) {
  T operand;
  if constexpr (kMemory) {
    if (!Load<T>(cpu, Address(cpu, op), &operand)) [[unlikely]] return Stopped(cpu, op);
  } else {
    operand = Reg<T>(cpu, op->base);
  }
  T factor = kImmediate ? static_cast<T>(op->immediate) : Reg<T>(cpu, op->reg);
  SetReg<T>(cpu, op->reg, DoImul<T>(operand, factor, &cpu.flags));
  return op + 1;
}
template <typename T>
Handler ImulForm(bool memory, bool immediate) {
  if (memory) return immediate ? Imul<T, true, true> : Imul<T, true, false>;
  return immediate ? Imul<T, false, true> : Imul<T, false, false>;
}

}  // namespace

Handler ShiftHandler(Shift shift, unsigned size, bool memory, Count count) {
  switch (shift) {
    case Shift::kRol: return ShiftSize<Shift::kRol>(size, memory, count);
    case Shift::kRor: return ShiftSize<Shift::kRor>(size, memory, count);
    case Shift::kRcl: return ShiftSize<Shift::kRcl>(size, memory, count);
    case Shift::kRcr: return ShiftSize<Shift::kRcr>(size, memory, count);
    case Shift::kShl:
    case Shift::kSal: return ShiftSize<Shift::kShl>(size, memory, count);
    case Shift::kShr: return ShiftSize<Shift::kShr>(size, memory, count);
    case Shift::kSar: return ShiftSize<Shift::kSar>(size, memory, count);
  }
  return nullptr;
}

Handler DoubleShiftHandler(bool right, unsigned size, bool memory, Count count) {
  return right ? DoubleShiftSize<true>(size, memory, count)
               : DoubleShiftSize<false>(size, memory, count);
}

Handler BitTestHandler(BitTest test, unsigned size, Form form) {
  switch (test) {
    case BitTest::kTest: return BitTestSize<BitTest::kTest>(size, form);
    case BitTest::kSet: return BitTestSize<BitTest::kSet>(size, form);
    case BitTest::kReset: return BitTestSize<BitTest::kReset>(size, form);
    case BitTest::kComplement: return BitTestSize<BitTest::kComplement>(size, form);
  }
  return nullptr;
}

Handler BitScanHandler(BitScan scan, unsigned size, bool memory) {
  switch (scan) {
    case BitScan::kForward: return ScanSize<BitScan::kForward>(size, memory);
    case BitScan::kReverse: return ScanSize<BitScan::kReverse>(size, memory);
    case BitScan::kTrailing: return ScanSize<BitScan::kTrailing>(size, memory);
    case BitScan::kLeading: return ScanSize<BitScan::kLeading>(size, memory);
    case BitScan::kPopulation: return ScanSize<BitScan::kPopulation>(size, memory);
  }
  return nullptr;
}

Handler ProductHandler(Product product, unsigned size, bool memory) {
  switch (product) {
    case Product::kMul: return ProductSize<Product::kMul>(size, memory);
    case Product::kImul: return ProductSize<Product::kImul>(size, memory);
    case Product::kDiv: return ProductSize<Product::kDiv>(size, memory);
    case Product::kIdiv: return ProductSize<Product::kIdiv>(size, memory);
  }
  return nullptr;
}

Handler ImulHandler(unsigned size, bool memory, bool immediate) {
  switch (size) {
    case 2: return ImulForm<uint16_t>(memory, immediate);
    case 4: return ImulForm<uint32_t>(memory, immediate);
    default: return ImulForm<uint64_t>(memory, immediate);
  }
}

}  // namespace cube::vmm::ring0
