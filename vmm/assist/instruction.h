#ifndef CUBE_VMM_ASSIST_INSTRUCTION_H_
#define CUBE_VMM_ASSIST_INSTRUCTION_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/result.h"

namespace cube::vmm {

// A general-purpose register operand: index as the processor encodes it (0 RAX, 1 RCX, … 15 R15).
struct RegisterOperand {
  uint8_t index;
  uint8_t size;    // bytes: 1, 2, 4, 8
  bool high_byte;  // AH, CH, DH, BH
};

// A memory operand: segment base + base + index * scale + displacement. For an address relative to
// RIP the displacement is from the end of the instruction.
struct MemoryOperand {
  enum class Base : uint8_t { kNone, kRegister, kRip };
  enum class Segment : uint8_t { kFlat, kFs, kGs };
  Base base_kind;
  uint8_t base;
  std::optional<uint8_t> index;
  uint8_t scale;
  uint8_t size;          // bytes accessed, as the decoder knows it
  uint8_t address_size;  // 4 or 8
  Segment segment;
  int64_t displacement;
};

struct Operand {
  enum class Kind : uint8_t { kNone, kRegister, kMemory, kImmediate };
  Kind kind = Kind::kNone;
  RegisterOperand reg = {};
  MemoryOperand memory = {};
  int64_t immediate = 0;
};

struct Instruction {
  uint32_t id = 0;  // Capstone's x86_insn
  uint8_t length = 0;
  bool operand_size_64 = false;  // REX.W
  bool locked = false;
  std::string mnemonic;
  Operand operands[3];
};

// Decodes 64-bit x86 code with Capstone. Its tables and state take memory only once the first
// instruction is decoded; a host that never needs the assist layer never pays. What was decoded is
// remembered, so that a guest that has settled leaves the tables, 3 MiB, untouched and out of
// memory (base/program_pages.h). Not thread-safe.
class InstructionDecoder {
 public:
  InstructionDecoder();
  ~InstructionDecoder();
  InstructionDecoder(const InstructionDecoder&) = delete;
  InstructionDecoder& operator=(const InstructionDecoder&) = delete;

  // The instruction at the start of `bytes`, which may go on behind it. Nothing of the result
  // depends on its address.
  std::optional<Instruction> Decode(std::span<const uint8_t> bytes);

  // Disassembly, one "address  bytes  text" line each, of up to `count` instructions.
  std::string Disassemble(std::span<const uint8_t> bytes, uint64_t address, size_t count);

 private:
  struct State;
  bool Open();
  std::optional<Instruction> DecodeAnew(std::span<const uint8_t> bytes);

  // By the instruction's own bytes: Linux has some twenty that are met. A guest that shows more
  // than kRemembered only makes them be forgotten.
  static constexpr size_t kRemembered = 64;
  std::map<std::string, Instruction, std::less<>> remembered_;
  std::unique_ptr<State> state_;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_ASSIST_INSTRUCTION_H_
