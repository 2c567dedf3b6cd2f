#ifndef CUBE_VMM_RING0_INSTRUCTION_TABLE_H_
#define CUBE_VMM_RING0_INSTRUCTION_TABLE_H_

#include <cstdint>
#include <random>
#include <span>

#include "vmm/ring0/native_run.h"

// The encodings that the differential test tries, and random instances of them.
namespace cube::vmm::ring0 {

// What the manual leaves undefined of the flags (Intel SDM volume 2, "Flags Affected" of each
// instruction).
enum class Undefined : uint8_t {
  kNothing,
  kAdjust,    // AND, OR, XOR, TEST: AF
  kMultiply,  // MUL, IMUL: SF, ZF, AF, PF
  kAll,       // DIV, IDIV
  kBitTest,   // BT, BTS, BTR, BTC: OF, SF, AF, PF
  kBitScan,   // BSF, BSR: all but ZF
  kCount,     // TZCNT, LZCNT: OF, SF, AF, PF
  kShift,     // AF; OF unless the count is 1; CF if the count is not below the size
  kRotate,    // OF unless the count is 1
  kDouble,    // AF; OF unless the count is 1; all if the count is above the size
};

enum class Immediate : uint8_t { kNone, kByte, kWord, kFull, kFull64, kRelative8, kRelative32 };

// Registers that need more care than a random value.
enum class Special : uint8_t {
  kNone,
  kBitOffset,   // the ModRM register is a bit number that reaches beyond the operand
  kDivide,      // dividends that often fit
  kString,      // RSI, RDI and RCX
  kCompareWide, // RDX:RAX equals what is in memory half of the time; address mostly aligned
  kCompare,     // RAX equals the operand half of the time
  kBranchTo,    // the operand is a code address
  kReturn,      // the stack holds a code address
  kLeave,
  kLoop,
  kFlagsOnStack,
};

// Encoding::digit if it is not a digit.
inline constexpr int8_t kRegister = -1;
inline constexpr int8_t kNoModRm = -2;
inline constexpr int8_t kInOpcode = -3;  // the register is in the low bits of the opcode

struct Encoding {
  const char* name;
  uint16_t opcode;      // 0x0f in the upper byte for the two-byte map
  int8_t digit = kRegister;  // of ModRM
  const char* sizes = "wdq";  // b, w, d, q: operand sizes; 'b' is one byte by the opcode itself
  const char* forms = "rm";   // r, m, l: register, memory, locked memory
  Immediate immediate = Immediate::kNone;
  Undefined undefined = Undefined::kNothing;
  Special special = Special::kNone;
  uint8_t prefix = 0;   // a mandatory one, or REP
};

std::span<const Encoding> Encodings();

// Fills in code, registers, flags and patches of a random instance of `encoding`.
void Generate(const Encoding& encoding, std::mt19937_64& random, NativeCase* out);

// The arithmetic flags that `encoding` leaves undefined in this instance.
uint64_t UndefinedFlags(const Encoding& encoding, const NativeCase& instance);

// The same for an instruction that is only there as bytes, executed with `rcx`: by the encoding it is
// an instance of; none if the table has none.
uint64_t UndefinedFlags(std::span<const uint8_t> code, uint64_t rcx);

// Random with many corner values.
uint64_t Interesting(std::mt19937_64& random);

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_INSTRUCTION_TABLE_H_
