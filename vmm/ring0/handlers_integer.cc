#include <array>
#include <utility>

#include "vmm/ring0/handler_support.h"
#include "vmm/ring0/handlers.h"

namespace cube::vmm::ring0 {
namespace {

// ---- ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, TEST

constexpr bool Stores(Alu alu) { return alu != Alu::kCmp && alu != Alu::kTest; }

template <Alu kAlu, typename T>
const Op* AluRegReg(Cpu& cpu, const Op* op) {
  T value = DoAlu<kAlu, T>(Reg<T>(cpu, op->reg), Reg<T>(cpu, op->base), &cpu.flags);
  if constexpr (Stores(kAlu)) SetReg<T>(cpu, op->reg, value);
  return op + 1;
}

template <Alu kAlu, typename T>
const Op* AluRegMem(Cpu& cpu, const Op* op) {
  T operand;
  if (!Load<T>(cpu, Address(cpu, op), &operand)) [[unlikely]] return Stopped(cpu, op);
  T value = DoAlu<kAlu, T>(Reg<T>(cpu, op->reg), operand, &cpu.flags);
  if constexpr (Stores(kAlu)) SetReg<T>(cpu, op->reg, value);
  return op + 1;
}

template <Alu kAlu, typename T, bool kLocked>
const Op* AluMem(Cpu& cpu, const Op* op, T operand) {
  uint64_t address = Address(cpu, op);
  if constexpr (!Stores(kAlu)) {
    T value;
    if (!Load<T>(cpu, address, &value)) [[unlikely]] return Stopped(cpu, op);
    DoAlu<kAlu, T>(value, operand, &cpu.flags);
  } else {
    ArithmeticFlags flags = cpu.flags;
    auto change = [&](T value) {
      flags = cpu.flags;
      return DoAlu<kAlu, T>(value, operand, &flags);
    };
    if (!Modify<T, kLocked>(cpu, address, change)) [[unlikely]] return Stopped(cpu, op);
    cpu.flags = flags;
  }
  return op + 1;
}

template <Alu kAlu, typename T, bool kLocked>
const Op* AluMemReg(Cpu& cpu, const Op* op) {
  return AluMem<kAlu, T, kLocked>(cpu, op, Reg<T>(cpu, op->reg));
}

template <Alu kAlu, typename T>
const Op* AluRegImm(Cpu& cpu, const Op* op) {
  T value =
      DoAlu<kAlu, T>(Reg<T>(cpu, op->reg), static_cast<T>(op->immediate), &cpu.flags);
  if constexpr (Stores(kAlu)) SetReg<T>(cpu, op->reg, value);
  return op + 1;
}

template <Alu kAlu, typename T, bool kLocked>
const Op* AluMemImm(Cpu& cpu, const Op* op) {
  return AluMem<kAlu, T, kLocked>(cpu, op, static_cast<T>(op->immediate));
}

template <Alu kAlu, typename T>
Handler AluForm(Form form) {
  switch (form) {
    case Form::kRegReg: return AluRegReg<kAlu, T>;
    case Form::kRegMem: return AluRegMem<kAlu, T>;
    case Form::kMemReg: return AluMemReg<kAlu, T, false>;
    case Form::kRegImm: return AluRegImm<kAlu, T>;
    case Form::kMemImm: return AluMemImm<kAlu, T, false>;
    case Form::kLockMemReg: return Stores(kAlu) ? AluMemReg<kAlu, T, true> : nullptr;
    case Form::kLockMemImm: return Stores(kAlu) ? AluMemImm<kAlu, T, true> : nullptr;
  }
  return nullptr;
}

template <Alu kAlu>
Handler AluSize(unsigned size, Form form) {
  switch (size) {
    case 1: return AluForm<kAlu, uint8_t>(form);
    case 2: return AluForm<kAlu, uint16_t>(form);
    case 4: return AluForm<kAlu, uint32_t>(form);
    default: return AluForm<kAlu, uint64_t>(form);
  }
}

// ---- MOV, LEA, MOVZX, MOVSX

template <typename T>
const Op* MoveRegReg(Cpu& cpu, const Op* op) {
  SetReg<T>(cpu, op->reg, Reg<T>(cpu, op->base));
  return op + 1;
}
template <typename T>
const Op* MoveRegMem(Cpu& cpu, const Op* op) {
  T value;
  if (!Load<T>(cpu, Address(cpu, op), &value)) [[unlikely]] return Stopped(cpu, op);
  SetReg<T>(cpu, op->reg, value);
  return op + 1;
}
template <typename T>
const Op* MoveMemReg(Cpu& cpu, const Op* op) {
  if (!Store<T>(cpu, Address(cpu, op), Reg<T>(cpu, op->reg))) [[unlikely]] return Stopped(cpu, op);
  return op + 1;
}
template <typename T>
const Op* MoveRegImm(Cpu& cpu, const Op* op) {
  SetReg<T>(cpu, op->reg, static_cast<T>(op->immediate));
  return op + 1;
}
template <typename T>
const Op* MoveMemImm(Cpu& cpu, const Op* op) {
  if (!Store<T>(cpu, Address(cpu, op), static_cast<T>(op->immediate))) [[unlikely]] {
    return Stopped(cpu, op);
  }
  return op + 1;
}

// A segment base is no part of the address that LEA computes.
template <typename T>
const Op* Lea(Cpu& cpu, const Op* op) {
  SetReg<T>(cpu, op->reg, static_cast<T>(Offset(cpu, op)));
  return op + 1;
}

template <typename From, typename To, bool kMemory>
const Op* Extend(Cpu& cpu, const Op* op) {
  // `From` carries the sign; registers are read and memory loaded unsigned.
  using Raw = std::make_unsigned_t<From>;
  Raw raw;
  if constexpr (kMemory) {
    if (!Load<Raw>(cpu, Address(cpu, op), &raw)) [[unlikely]] return Stopped(cpu, op);
  } else {
    raw = Reg<Raw>(cpu, op->base);
  }
  SetReg<To>(cpu, op->reg, static_cast<To>(static_cast<From>(raw)));
  return op + 1;
}

template <typename From>
Handler ExtendTo(unsigned to, bool memory) {
  switch (to) {
    case 2: return memory ? Extend<From, uint16_t, true> : Extend<From, uint16_t, false>;
    case 4: return memory ? Extend<From, uint32_t, true> : Extend<From, uint32_t, false>;
    default: return memory ? Extend<From, uint64_t, true> : Extend<From, uint64_t, false>;
  }
}

// ---- INC, DEC, NOT, NEG

template <Unary kUnary, typename T>
[[gnu::always_inline]] inline T DoUnary(T value, ArithmeticFlags* flags) {
  if constexpr (kUnary == Unary::kInc) return DoIncDec<false, T>(value, flags);
  if constexpr (kUnary == Unary::kDec) return DoIncDec<true, T>(value, flags);
  if constexpr (kUnary == Unary::kNot) return static_cast<T>(~value);
  return DoAlu<Alu::kSub, T>(0, value, flags);
}

template <Unary kUnary, typename T>
const Op* UnaryReg(Cpu& cpu, const Op* op) {
  SetReg<T>(cpu, op->base, DoUnary<kUnary, T>(Reg<T>(cpu, op->base), &cpu.flags));
  return op + 1;
}
template <Unary kUnary, typename T, bool kLocked>
const Op* UnaryMem(Cpu& cpu, const Op* op) {
  ArithmeticFlags flags = cpu.flags;
  auto change = [&](T value) {
    flags = cpu.flags;
    return DoUnary<kUnary, T>(value, &flags);
  };
  if (!Modify<T, kLocked>(cpu, Address(cpu, op), change)) [[unlikely]] return Stopped(cpu, op);
  cpu.flags = flags;
  return op + 1;
}
template <Unary kUnary, typename T>
Handler UnaryForm(bool memory, bool locked) {
  if (!memory) return UnaryReg<kUnary, T>;
  return locked ? UnaryMem<kUnary, T, true> : UnaryMem<kUnary, T, false>;
}
template <Unary kUnary>
Handler UnarySize(unsigned size, bool memory, bool locked) {
  switch (size) {
    case 1: return UnaryForm<kUnary, uint8_t>(memory, locked);
    case 2: return UnaryForm<kUnary, uint16_t>(memory, locked);
    case 4: return UnaryForm<kUnary, uint32_t>(memory, locked);
    default: return UnaryForm<kUnary, uint64_t>(memory, locked);
  }
}

// ---- XCHG, XADD, CMPXCHG

template <typename T>
const Op* ExchangeReg(Cpu& cpu, const Op* op) {
  T a = Reg<T>(cpu, op->reg), b = Reg<T>(cpu, op->base);
  SetReg<T>(cpu, op->reg, b);
  SetReg<T>(cpu, op->base, a);
  return op + 1;
}
// With memory it is atomic without a prefix.
template <typename T>
const Op* ExchangeMem(Cpu& cpu, const Op* op) {
  T old = 0, value = Reg<T>(cpu, op->reg);
  auto change = [&](T seen) {
    old = seen;
    return value;
  };
  if (!Modify<T, true>(cpu, Address(cpu, op), change)) [[unlikely]] return Stopped(cpu, op);
  SetReg<T>(cpu, op->reg, old);
  return op + 1;
}

template <typename T>
const Op* ExchangeAddReg(Cpu& cpu, const Op* op) {
  T a = Reg<T>(cpu, op->base), b = Reg<T>(cpu, op->reg);
  T sum = DoAlu<Alu::kAdd, T>(a, b, &cpu.flags);
  SetReg<T>(cpu, op->reg, a);
  SetReg<T>(cpu, op->base, sum);
  return op + 1;
}
template <typename T, bool kLocked>
const Op* ExchangeAddMem(Cpu& cpu, const Op* op) {
  T old = 0, addend = Reg<T>(cpu, op->reg);
  ArithmeticFlags flags = cpu.flags;
  auto change = [&](T seen) {
    old = seen;
    return DoAlu<Alu::kAdd, T>(seen, addend, &flags);
  };
  if (!Modify<T, kLocked>(cpu, Address(cpu, op), change)) [[unlikely]] return Stopped(cpu, op);
  cpu.flags = flags;
  SetReg<T>(cpu, op->reg, old);
  return op + 1;
}

template <typename T>
const Op* CompareExchangeReg(Cpu& cpu, const Op* op) {
  T accumulator = Reg<T>(cpu, kRax), old = Reg<T>(cpu, op->base);
  DoAlu<Alu::kCmp, T>(accumulator, old, &cpu.flags);
  if (accumulator == old) {
    SetReg<T>(cpu, op->base, Reg<T>(cpu, op->reg));
  } else {
    SetReg<T>(cpu, kRax, old);
  }
  return op + 1;
}
template <typename T, bool kLocked>
const Op* CompareExchangeMem(Cpu& cpu, const Op* op) {
  T accumulator = Reg<T>(cpu, kRax), value = Reg<T>(cpu, op->reg), old = 0;
  // The processor writes in either case: what was there if they differ.
  auto change = [&](T seen) {
    old = seen;
    return seen == accumulator ? value : seen;
  };
  if (!Modify<T, kLocked>(cpu, Address(cpu, op), change)) [[unlikely]] return Stopped(cpu, op);
  DoAlu<Alu::kCmp, T>(accumulator, old, &cpu.flags);
  if (accumulator != old) SetReg<T>(cpu, kRax, old);
  return op + 1;
}

void SetZeroFlag(Cpu& cpu, bool set) {
  cpu.flags = static_cast<ArithmeticFlags>((cpu.flags & ~kZeroBit) | (set ? kZeroBit : 0));
}

const Op* CompareExchange8(Cpu& cpu, const Op* op) {
  uint64_t expected = cpu.r[kRdx] << 32 | static_cast<uint32_t>(cpu.r[kRax]);
  uint64_t value = cpu.r[kRcx] << 32 | static_cast<uint32_t>(cpu.r[kRbx]);
  uint64_t old = 0;
  auto change = [&](uint64_t seen) {
    old = seen;
    return seen == expected ? value : seen;
  };
  if (!Modify<uint64_t, true>(cpu, Address(cpu, op), change)) [[unlikely]] return Stopped(cpu, op);
  SetZeroFlag(cpu, old == expected);
  if (old != expected) {
    cpu.r[kRax] = static_cast<uint32_t>(old);
    cpu.r[kRdx] = old >> 32;
  }
  return op + 1;
}

const Op* CompareExchange16(Cpu& cpu, const Op* op) {
  uint64_t address = Address(cpu, op);
  if ((address & 15) != 0) {
    cpu.exception = {13, true, false, 0, 0};
    return StopAt(cpu, op, Stop::kException);
  }
  uint8_t* host = cpu.mmu->WritableBytes(cpu, address, 16);
  if (host == nullptr) return Stopped(cpu, op);
  bool equal;
  asm volatile("lock cmpxchg16b %1\n\tsete %0"
               : "=q"(equal), "+m"(*reinterpret_cast<unsigned __int128*>(host)),
                 "+a"(cpu.r[kRax]), "+d"(cpu.r[kRdx])
               : "b"(cpu.r[kRbx]), "c"(cpu.r[kRcx])
               : "cc", "memory");
  SetZeroFlag(cpu, equal);
  return op + 1;
}

// ---- CMOVcc, SETcc

template <unsigned kCondition, typename T, bool kMemory>
const Op* ConditionalMove(Cpu& cpu, const Op* op) {
  T value;
  // The load is made, and may fault, whether or not the condition holds.
  if constexpr (kMemory) {
    if (!Load<T>(cpu, Address(cpu, op), &value)) [[unlikely]] return Stopped(cpu, op);
  } else {
    value = Reg<T>(cpu, op->base);
  }
  SetReg<T>(cpu, op->reg, Holds<kCondition>(cpu.flags) ? value : Reg<T>(cpu, op->reg));
  return op + 1;
}

template <unsigned kCondition, bool kMemory>
const Op* SetCondition(Cpu& cpu, const Op* op) {
  uint8_t value = Holds<kCondition>(cpu.flags) ? 1 : 0;
  if constexpr (kMemory) {
    if (!Store<uint8_t>(cpu, Address(cpu, op), value)) [[unlikely]] return Stopped(cpu, op);
  } else {
    SetReg<uint8_t>(cpu, op->base, value);
  }
  return op + 1;
}

template <typename T, bool kMemory, size_t... kConditions>
Handler PickConditionalMove(unsigned condition, std::index_sequence<kConditions...>) {
  static constexpr Handler kTable[] = {ConditionalMove<kConditions, T, kMemory>...};
  return kTable[condition];
}
template <bool kMemory, size_t... kConditions>
Handler PickSetCondition(unsigned condition, std::index_sequence<kConditions...>) {
  static constexpr Handler kTable[] = {SetCondition<kConditions, kMemory>...};
  return kTable[condition];
}

// ---- CBW and its kind, BSWAP

template <typename From, typename To>
const Op* SignExtend(Cpu& cpu, const Op* op) {
  auto narrow = static_cast<From>(cpu.r[kRax]);
  SetReg<To>(cpu, kRax, static_cast<To>(narrow));
  return op + 1;
}
template <typename T>
const Op* SignSpread(Cpu& cpu, const Op* op) {
  auto value = static_cast<std::make_signed_t<T>>(cpu.r[kRax]);
  SetReg<T>(cpu, kRdx, static_cast<T>(value < 0 ? -1 : 0));
  return op + 1;
}
const Op* SwapBytes4(Cpu& cpu, const Op* op) {
  cpu.r[op->base] = __builtin_bswap32(static_cast<uint32_t>(cpu.r[op->base]));
  return op + 1;
}
const Op* SwapBytes8(Cpu& cpu, const Op* op) {
  cpu.r[op->base] = __builtin_bswap64(cpu.r[op->base]);
  return op + 1;
}

}  // namespace

Handler AluHandler(Alu alu, unsigned size, Form form) {
  switch (alu) {
    case Alu::kAdd: return AluSize<Alu::kAdd>(size, form);
    case Alu::kOr: return AluSize<Alu::kOr>(size, form);
    case Alu::kAdc: return AluSize<Alu::kAdc>(size, form);
    case Alu::kSbb: return AluSize<Alu::kSbb>(size, form);
    case Alu::kAnd: return AluSize<Alu::kAnd>(size, form);
    case Alu::kSub: return AluSize<Alu::kSub>(size, form);
    case Alu::kXor: return AluSize<Alu::kXor>(size, form);
    case Alu::kCmp: return AluSize<Alu::kCmp>(size, form);
    case Alu::kTest: return AluSize<Alu::kTest>(size, form);
  }
  return nullptr;
}

Handler MoveHandler(unsigned size, Form form) {
  switch (form) {
    case Form::kRegReg: return CUBE_RING0_BY_SIZE(size, MoveRegReg);
    case Form::kRegMem: return CUBE_RING0_BY_SIZE(size, MoveRegMem);
    case Form::kMemReg: return CUBE_RING0_BY_SIZE(size, MoveMemReg);
    case Form::kRegImm: return CUBE_RING0_BY_SIZE(size, MoveRegImm);
    case Form::kMemImm: return CUBE_RING0_BY_SIZE(size, MoveMemImm);
    default: return nullptr;
  }
}

Handler LeaHandler(unsigned size) {
  return size == 1 ? nullptr : CUBE_RING0_BY_SIZE(size, Lea);
}

Handler ExtendHandler(bool is_signed, unsigned from, unsigned to, bool from_memory) {
  switch (from) {
    case 1:
      return is_signed ? ExtendTo<int8_t>(to, from_memory) : ExtendTo<uint8_t>(to, from_memory);
    case 2:
      return is_signed ? ExtendTo<int16_t>(to, from_memory) : ExtendTo<uint16_t>(to, from_memory);
    default:
      return is_signed ? ExtendTo<int32_t>(to, from_memory) : nullptr;
  }
}

Handler UnaryHandler(Unary unary, unsigned size, bool memory, bool locked) {
  switch (unary) {
    case Unary::kInc: return UnarySize<Unary::kInc>(size, memory, locked);
    case Unary::kDec: return UnarySize<Unary::kDec>(size, memory, locked);
    case Unary::kNot: return UnarySize<Unary::kNot>(size, memory, locked);
    case Unary::kNeg: return UnarySize<Unary::kNeg>(size, memory, locked);
  }
  return nullptr;
}

Handler ExchangeHandler(unsigned size, bool memory) {
  return memory ? CUBE_RING0_BY_SIZE(size, ExchangeMem) : CUBE_RING0_BY_SIZE(size, ExchangeReg);
}

template <typename T>
static Handler ExchangeAddForm(bool memory, bool locked) {
  if (!memory) return ExchangeAddReg<T>;
  return locked ? ExchangeAddMem<T, true> : ExchangeAddMem<T, false>;
}
Handler ExchangeAddHandler(unsigned size, bool memory, bool locked) {
  switch (size) {
    case 1: return ExchangeAddForm<uint8_t>(memory, locked);
    case 2: return ExchangeAddForm<uint16_t>(memory, locked);
    case 4: return ExchangeAddForm<uint32_t>(memory, locked);
    default: return ExchangeAddForm<uint64_t>(memory, locked);
  }
}

template <typename T>
static Handler CompareExchangeForm(bool memory, bool locked) {
  if (!memory) return CompareExchangeReg<T>;
  return locked ? CompareExchangeMem<T, true> : CompareExchangeMem<T, false>;
}
Handler CompareExchangeHandler(unsigned size, bool memory, bool locked) {
  switch (size) {
    case 1: return CompareExchangeForm<uint8_t>(memory, locked);
    case 2: return CompareExchangeForm<uint16_t>(memory, locked);
    case 4: return CompareExchangeForm<uint32_t>(memory, locked);
    default: return CompareExchangeForm<uint64_t>(memory, locked);
  }
}

Handler CompareExchangeWideHandler(unsigned size) {
  return size == 16 ? CompareExchange16 : CompareExchange8;
}

Handler ConditionalMoveHandler(unsigned condition, unsigned size, bool memory) {
  constexpr auto kAll = std::make_index_sequence<16>();
  switch (size) {
    case 2:
      return memory ? PickConditionalMove<uint16_t, true>(condition, kAll)
                    : PickConditionalMove<uint16_t, false>(condition, kAll);
    case 4:
      return memory ? PickConditionalMove<uint32_t, true>(condition, kAll)
                    : PickConditionalMove<uint32_t, false>(condition, kAll);
    default:
      return memory ? PickConditionalMove<uint64_t, true>(condition, kAll)
                    : PickConditionalMove<uint64_t, false>(condition, kAll);
  }
}

Handler SetConditionHandler(unsigned condition, bool memory) {
  constexpr auto kAll = std::make_index_sequence<16>();
  return memory ? PickSetCondition<true>(condition, kAll)
                : PickSetCondition<false>(condition, kAll);
}

Handler SignExtendHandler(unsigned size) {
  return size == 2   ? SignExtend<int8_t, uint16_t>
         : size == 4 ? SignExtend<int16_t, uint32_t>
                     : SignExtend<int32_t, uint64_t>;
}

Handler SignSpreadHandler(unsigned size) {
  return size == 1 ? nullptr : CUBE_RING0_BY_SIZE(size, SignSpread);
}

Handler SwapBytesHandler(unsigned size) {
  // Of a 16-bit register it is undefined.
  return size == 8 ? SwapBytes8 : size == 4 ? SwapBytes4 : nullptr;
}

}  // namespace cube::vmm::ring0
