#include "vmm/ring0/instruction_table.h"

#include <algorithm>
#include <iterator>
#include <vector>

namespace cube::vmm::ring0 {
namespace {

using enum Immediate;
using U = Undefined;
using S = Special;

constexpr const char* kAll = "bwdq";
constexpr const char* kWide = "wdq";
constexpr const char* kFixed = "d";  // the size is not a matter of prefixes

void AddArithmetic(std::vector<Encoding>* all) {
  static constexpr const char* kNames[] = {"add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"};
  for (int8_t i = 0; i < 8; ++i) {
    const char* name = kNames[i];
    U undefined = i == 1 || i == 4 || i == 6 ? U::kAdjust : U::kNothing;
    const char* forms = i == 7 ? "rm" : "rml";
    auto opcode = [i](int form) { return static_cast<uint16_t>(i * 8 + form); };
    all->push_back({name, opcode(1), kRegister, kAll, forms, kNone, undefined});
    all->push_back({name, opcode(3), kRegister, kAll, "rm", kNone, undefined});
    all->push_back({name, opcode(5), kNoModRm, kAll, "r", kFull, undefined});
    all->push_back({name, 0x81, i, kAll, forms, kFull, undefined});
    all->push_back({name, 0x83, i, kWide, forms, kByte, undefined});
  }
  static constexpr const char* kShifts[] = {"rol", "ror", "rcl", "rcr", "shl", "shr", "sal", "sar"};
  for (int8_t i = 0; i < 8; ++i) {
    U undefined = i < 4 ? U::kRotate : U::kShift;
    all->push_back({kShifts[i], 0xc1, i, kAll, "rm", kByte, undefined});
    all->push_back({kShifts[i], 0xd1, i, kAll, "rm", kNone, undefined});
    all->push_back({kShifts[i], 0xd3, i, kAll, "rm", kNone, undefined});
  }
  static constexpr const char* kBits[] = {"bt", "bts", "btr", "btc"};
  for (int8_t i = 0; i < 4; ++i) {
    const char* forms = i == 0 ? "rm" : "rml";
    all->push_back({kBits[i], static_cast<uint16_t>(0x0fa3 + 8 * i), kRegister, kWide, forms, kNone,
                    U::kBitTest, S::kBitOffset});
    auto digit = static_cast<int8_t>(4 + i);
    all->push_back({kBits[i], 0x0fba, digit, kWide, forms, kByte, U::kBitTest});
  }
}

void AddConditional(std::vector<Encoding>* all) {
  for (uint16_t i = 0; i < 16; ++i) {
    auto plus = [i](int base) { return static_cast<uint16_t>(base + i); };
    all->push_back({"jcc", plus(0x70), kNoModRm, kFixed, "r", kRelative8});
    all->push_back({"jcc", plus(0x0f80), kNoModRm, kFixed, "r", kRelative32});
    all->push_back({"setcc", plus(0x0f90), 0, kFixed, "rm"});
    all->push_back({"cmovcc", plus(0x0f40), kRegister, kWide, "rm"});
  }
}

void AddStrings(std::vector<Encoding>* all) {
  struct { const char* name; uint16_t opcode; } constexpr kStrings[] = {
      {"movs", 0xa5}, {"cmps", 0xa7}, {"stos", 0xab}, {"lods", 0xad}, {"scas", 0xaf}};
  for (const auto& string : kStrings) {
    for (uint8_t prefix : {0x00, 0xf3, 0xf2}) {
      all->push_back({string.name, string.opcode, kNoModRm, kAll, "r", kNone, U::kNothing,
                      S::kString, prefix});
    }
  }
}

std::vector<Encoding> MakeEncodings() {
  std::vector<Encoding> all = {
      {"test", 0x85, kRegister, kAll, "rm", kNone, U::kAdjust},
      {"test", 0xf7, 0, kAll, "rm", kFull, U::kAdjust},
      {"test", 0xf7, 1, kAll, "rm", kFull, U::kAdjust},
      {"test", 0xa9, kNoModRm, kAll, "r", kFull, U::kAdjust},
      {"mov", 0x89, kRegister, kAll, "rm"},
      {"mov", 0x8b, kRegister, kAll, "rm"},
      {"mov", 0xc7, 0, kAll, "rm", kFull},
      {"mov", 0xb0, kInOpcode, "b", "r", kByte},
      {"mov", 0xb8, kInOpcode, kWide, "r", kFull64},
      {"movnti", 0x0fc3, kRegister, "dq", "m"},
      {"lea", 0x8d, kRegister, kWide, "m"},
      {"movzx", 0x0fb6, kRegister, kWide, "rm"},
      {"movzx", 0x0fb7, kRegister, kWide, "rm"},
      {"movsx", 0x0fbe, kRegister, kWide, "rm"},
      {"movsx", 0x0fbf, kRegister, kWide, "rm"},
      {"movsxd", 0x63, kRegister, "dq", "rm"},
      {"inc", 0xff, 0, kAll, "rml"},
      {"dec", 0xff, 1, kAll, "rml"},
      {"not", 0xf7, 2, kAll, "rml"},
      {"neg", 0xf7, 3, kAll, "rml"},
      {"mul", 0xf7, 4, kAll, "rm", kNone, U::kMultiply},
      {"imul", 0xf7, 5, kAll, "rm", kNone, U::kMultiply},
      {"imul", 0x0faf, kRegister, kWide, "rm", kNone, U::kMultiply},
      {"imul", 0x69, kRegister, kWide, "rm", kFull, U::kMultiply},
      {"imul", 0x6b, kRegister, kWide, "rm", kByte, U::kMultiply},
      {"div", 0xf7, 6, kAll, "rm", kNone, U::kAll, S::kDivide},
      {"idiv", 0xf7, 7, kAll, "rm", kNone, U::kAll, S::kDivide},
      {"xchg", 0x87, kRegister, kAll, "rml"},
      {"xchg", 0x90, kInOpcode, kWide, "r"},
      {"xadd", 0x0fc1, kRegister, kAll, "rml"},
      {"cmpxchg", 0x0fb1, kRegister, kAll, "rml", kNone, U::kNothing, S::kCompare},
      {"cmpxchg8b", 0x0fc7, 1, "dq", "ml", kNone, U::kNothing, S::kCompareWide},
      {"cbw", 0x98, kNoModRm, kWide, "r"},
      {"cwd", 0x99, kNoModRm, kWide, "r"},
      {"bswap", 0x0fc8, kInOpcode, "dq", "r"},
      {"shld", 0x0fa4, kRegister, kWide, "rm", kByte, U::kDouble},
      {"shld", 0x0fa5, kRegister, kWide, "rm", kNone, U::kDouble},
      {"shrd", 0x0fac, kRegister, kWide, "rm", kByte, U::kDouble},
      {"shrd", 0x0fad, kRegister, kWide, "rm", kNone, U::kDouble},
      {"bsf", 0x0fbc, kRegister, kWide, "rm", kNone, U::kBitScan},
      {"bsr", 0x0fbd, kRegister, kWide, "rm", kNone, U::kBitScan},
      {"tzcnt", 0x0fbc, kRegister, kWide, "rm", kNone, U::kCount, S::kNone, 0xf3},
      {"lzcnt", 0x0fbd, kRegister, kWide, "rm", kNone, U::kCount, S::kNone, 0xf3},
      {"popcnt", 0x0fb8, kRegister, kWide, "rm", kNone, U::kNothing, S::kNone, 0xf3},
      {"push", 0x50, kInOpcode, kFixed, "r"},
      {"push", 0xff, 6, kFixed, "rm"},
      {"push", 0x68, kNoModRm, kFixed, "r", kFull},
      {"push", 0x6a, kNoModRm, kFixed, "r", kByte},
      {"pop", 0x58, kInOpcode, kFixed, "r"},
      {"pop", 0x8f, 0, kFixed, "rm"},
      {"leave", 0xc9, kNoModRm, kFixed, "r", kNone, U::kNothing, S::kLeave},
      {"pushf", 0x9c, kNoModRm, kFixed, "r"},
      {"popf", 0x9d, kNoModRm, kFixed, "r", kNone, U::kNothing, S::kFlagsOnStack},
      {"jmp", 0xeb, kNoModRm, kFixed, "r", kRelative8},
      {"jmp", 0xe9, kNoModRm, kFixed, "r", kRelative32},
      {"jmp", 0xff, 4, kFixed, "rm", kNone, U::kNothing, S::kBranchTo},
      {"call", 0xe8, kNoModRm, kFixed, "r", kRelative32},
      {"call", 0xff, 2, kFixed, "rm", kNone, U::kNothing, S::kBranchTo},
      {"ret", 0xc3, kNoModRm, kFixed, "r", kNone, U::kNothing, S::kReturn},
      {"ret", 0xc2, kNoModRm, kFixed, "r", kWord, U::kNothing, S::kReturn},
      {"loopne", 0xe0, kNoModRm, kFixed, "r", kRelative8, U::kNothing, S::kLoop},
      {"loope", 0xe1, kNoModRm, kFixed, "r", kRelative8, U::kNothing, S::kLoop},
      {"loop", 0xe2, kNoModRm, kFixed, "r", kRelative8, U::kNothing, S::kLoop},
      {"jrcxz", 0xe3, kNoModRm, kFixed, "r", kRelative8, U::kNothing, S::kLoop},
      {"cmc", 0xf5, kNoModRm, kFixed, "r"},
      {"clc", 0xf8, kNoModRm, kFixed, "r"},
      {"stc", 0xf9, kNoModRm, kFixed, "r"},
      {"cld", 0xfc, kNoModRm, kFixed, "r"},
      {"std", 0xfd, kNoModRm, kFixed, "r"},
      {"int3", 0xcc, kNoModRm, kFixed, "r"},
      {"ud2", 0x0f0b, kNoModRm, kFixed, "r"},
      {"nop", 0x0f1f, 0, kWide, "rm"},
      {"prefetchw", 0x0f0d, 1, kFixed, "m"},
      {"endbr64", 0x0f1e, 7, kFixed, "r", kNone, U::kNothing, S::kNone, 0xf3},
      {"pause", 0x90, kNoModRm, kFixed, "r", kNone, U::kNothing, S::kNone, 0xf3},
      {"lfence", 0x0fae, 5, kFixed, "r"},
      {"mfence", 0x0fae, 6, kFixed, "r"},
      {"sfence", 0x0fae, 7, kFixed, "r"},
      {"rdgsbase", 0x0fae, 1, "dq", "r", kNone, U::kNothing, S::kNone, 0xf3},
      {"wrgsbase", 0x0fae, 3, "dq", "r", kNone, U::kNothing, S::kNone, 0xf3},
  };
  for (int8_t segment = 0; segment < 6; ++segment) {
    all.push_back({"mov from segment", 0x8c, segment, kWide, "rm"});
  }
  // Prefixes that mean nothing there, or only to processors with more.
  const Encoding kIgnored[] = {
      {"xchg", 0x90, kInOpcode, kWide, "r", kNone, U::kNothing, S::kNone, 0xf3},
      {"ret", 0xc3, kNoModRm, kFixed, "r", kNone, U::kNothing, S::kReturn, 0xf3},
      {"ret", 0xc3, kNoModRm, kFixed, "r", kNone, U::kNothing, S::kReturn, 0xf2},
      {"jmp", 0xe9, kNoModRm, kFixed, "r", kRelative32, U::kNothing, S::kNone, 0xf2},
      {"call", 0xe8, kNoModRm, kFixed, "r", kRelative32, U::kNothing, S::kNone, 0xf2},
      {"jcc", 0x74, kNoModRm, kFixed, "r", kRelative8, U::kNothing, S::kNone, 0xf2},
      {"bsf", 0x0fbc, kRegister, kWide, "rm", kNone, U::kBitScan, S::kNone, 0xf2},
      {"cmpxchg", 0x0fb1, kRegister, kAll, "l", kNone, U::kNothing, S::kCompare, 0xf2},
      {"mov", 0x89, kRegister, kAll, "rm", kNone, U::kNothing, S::kNone, 0xf3},
      {"add", 0x01, kRegister, kAll, "rm", kNone, U::kNothing, S::kNone, 0xf3},
      {"push", 0x50, kInOpcode, kFixed, "r", kNone, U::kNothing, S::kNone, 0xf2},
  };
  all.insert(all.end(), std::begin(kIgnored), std::end(kIgnored));
  AddArithmetic(&all);
  AddConditional(&all);
  AddStrings(&all);
  return all;
}

uint64_t ShiftCount(const Encoding& encoding, const NativeCase& instance) {
  uint64_t count;
  if (encoding.immediate == kByte) {
    count = instance.code[instance.length - 1u];
  } else if (encoding.opcode == 0xd1) {
    count = 1;
  } else {
    count = instance.before.r[1];
  }
  return count & (instance.operand_size == 8 ? 63 : 31);
}

}  // namespace

std::span<const Encoding> Encodings() {
  static const std::vector<Encoding> all = MakeEncodings();
  return all;
}

uint64_t UndefinedFlags(const Encoding& encoding, const NativeCase& instance) {
  constexpr uint64_t kC = 1 << 0, kP = 1 << 2, kA = 1 << 4, kZ = 1 << 6, kS = 1 << 7, kO = 1 << 11;
  uint64_t bits = instance.operand_size * 8u;
  switch (encoding.undefined) {
    case U::kNothing: return 0;
    case U::kAdjust: return kA;
    case U::kMultiply: return kS | kZ | kA | kP;
    case U::kAll: return kO | kS | kZ | kA | kP | kC;
    case U::kBitTest:
    case U::kCount: return kO | kS | kA | kP;
    case U::kBitScan: return kO | kS | kA | kP | kC;
    case U::kShift: {
      uint64_t count = ShiftCount(encoding, instance);
      if (count == 0) return 0;
      bool arithmetic = encoding.digit == 7;
      return kA | (count != 1 ? kO : 0) | (count >= bits && !arithmetic ? kC : 0);
    }
    case U::kRotate: {
      uint64_t count = ShiftCount(encoding, instance);
      return count > 1 ? kO : 0;
    }
    case U::kDouble: {
      uint64_t count = ShiftCount(encoding, instance);
      if (count == 0) return 0;
      if (count > bits) return kO | kS | kZ | kA | kP | kC;
      return kA | (count != 1 ? kO : 0);
    }
  }
  return 0;
}

uint64_t UndefinedFlags(std::span<const uint8_t> code, uint64_t rcx) {
  NativeCase instance = {};
  instance.length = static_cast<uint8_t>(std::min(code.size(), instance.code.size()));
  std::copy_n(code.begin(), instance.length, instance.code.begin());
  instance.before.r[1] = rcx;
  size_t at = 0;
  auto byte = [&] { return at < code.size() ? code[at] : uint8_t{0}; };
  uint8_t repeat = 0;
  bool operand16 = false, wide = false;
  for (bool prefix = true; prefix;) {
    switch (byte()) {
      case 0x66: operand16 = true; break;
      case 0xf2: case 0xf3: repeat = byte(); break;
      case 0xf0: case 0x2e: case 0x36: case 0x3e: case 0x26: case 0x64: case 0x65: case 0x67: break;
      default: prefix = false; continue;
    }
    ++at;
  }
  if ((byte() & 0xf0) == 0x40) {
    wide = (byte() & 8) != 0;
    ++at;
  }
  uint16_t opcode = byte();
  ++at;
  if (opcode == 0x0f) {
    opcode = static_cast<uint16_t>(0x0f00 | byte());
    ++at;
  }
  int8_t digit = static_cast<int8_t>(byte() >> 3 & 7);
  for (const Encoding& encoding : Encodings()) {
    if (encoding.undefined == U::kNothing) continue;
    bool by_bytes = encoding.sizes[0] == 'b' && encoding.opcode == (opcode | 1);
    if (encoding.opcode != opcode && !by_bytes) continue;
    if (encoding.digit >= 0 && encoding.digit != digit) continue;
    if (encoding.undefined == U::kCount && encoding.prefix != repeat) continue;
    if (encoding.undefined == U::kBitScan && repeat == 0xf3) continue;
    bool narrow = by_bytes && encoding.opcode != opcode;
    instance.operand_size = narrow ? 1 : wide ? 8 : operand16 ? 2 : 4;
    return UndefinedFlags(encoding, instance);
  }
  return 0;
}

}  // namespace cube::vmm::ring0
