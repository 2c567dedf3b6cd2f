#include "vmm/assist/instruction.h"

#include <capstone/capstone.h>

#include <iterator>
#include <string_view>

namespace cube::vmm {
namespace {

struct RegisterName {
  x86_reg reg;
  RegisterOperand operand;
};

// Capstone's names of the general-purpose registers, in its own order.
constexpr x86_reg kByte[16] = {X86_REG_AL,  X86_REG_CL,  X86_REG_DL,   X86_REG_BL,
                               X86_REG_SPL, X86_REG_BPL, X86_REG_SIL,  X86_REG_DIL,
                               X86_REG_R8B, X86_REG_R9B, X86_REG_R10B, X86_REG_R11B,
                               X86_REG_R12B, X86_REG_R13B, X86_REG_R14B, X86_REG_R15B};
constexpr x86_reg kWord[16] = {X86_REG_AX,  X86_REG_CX,  X86_REG_DX,   X86_REG_BX,
                               X86_REG_SP,  X86_REG_BP,  X86_REG_SI,   X86_REG_DI,
                               X86_REG_R8W, X86_REG_R9W, X86_REG_R10W, X86_REG_R11W,
                               X86_REG_R12W, X86_REG_R13W, X86_REG_R14W, X86_REG_R15W};
constexpr x86_reg kDouble[16] = {X86_REG_EAX, X86_REG_ECX, X86_REG_EDX,  X86_REG_EBX,
                                 X86_REG_ESP, X86_REG_EBP, X86_REG_ESI,  X86_REG_EDI,
                                 X86_REG_R8D, X86_REG_R9D, X86_REG_R10D, X86_REG_R11D,
                                 X86_REG_R12D, X86_REG_R13D, X86_REG_R14D, X86_REG_R15D};
constexpr x86_reg kQuad[16] = {X86_REG_RAX, X86_REG_RCX, X86_REG_RDX, X86_REG_RBX,
                               X86_REG_RSP, X86_REG_RBP, X86_REG_RSI, X86_REG_RDI,
                               X86_REG_R8,  X86_REG_R9,  X86_REG_R10, X86_REG_R11,
                               X86_REG_R12, X86_REG_R13, X86_REG_R14, X86_REG_R15};
constexpr x86_reg kHighByte[4] = {X86_REG_AH, X86_REG_CH, X86_REG_DH, X86_REG_BH};

std::optional<RegisterOperand> ToRegister(unsigned reg) {
  for (uint8_t i = 0; i < 16; ++i) {
    if (reg == kQuad[i]) return RegisterOperand{i, 8, false};
    if (reg == kDouble[i]) return RegisterOperand{i, 4, false};
    if (reg == kWord[i]) return RegisterOperand{i, 2, false};
    if (reg == kByte[i]) return RegisterOperand{i, 1, false};
  }
  for (uint8_t i = 0; i < 4; ++i) {
    if (reg == kHighByte[i]) return RegisterOperand{i, 1, true};
  }
  return std::nullopt;
}

// False if the operand is of a kind that this layer has no use for.
bool ToOperand(const cs_x86& x86, const cs_x86_op& op, Operand* out) {
  switch (op.type) {
    case X86_OP_REG: {
      auto reg = ToRegister(op.reg);
      if (!reg) return false;
      out->kind = Operand::Kind::kRegister;
      out->reg = *reg;
      return true;
    }
    case X86_OP_IMM:
      out->kind = Operand::Kind::kImmediate;
      out->immediate = op.imm;
      return true;
    case X86_OP_MEM: {
      MemoryOperand memory = {};
      memory.size = op.size;
      memory.address_size = x86.addr_size;
      memory.displacement = op.mem.disp;
      memory.scale = static_cast<uint8_t>(op.mem.scale);
      memory.segment = op.mem.segment == X86_REG_FS   ? MemoryOperand::Segment::kFs
                       : op.mem.segment == X86_REG_GS ? MemoryOperand::Segment::kGs
                                                      : MemoryOperand::Segment::kFlat;
      if (op.mem.base == X86_REG_RIP || op.mem.base == X86_REG_EIP) {
        memory.base_kind = MemoryOperand::Base::kRip;
      } else if (op.mem.base != X86_REG_INVALID) {
        auto base = ToRegister(op.mem.base);
        if (!base) return false;
        memory.base_kind = MemoryOperand::Base::kRegister;
        memory.base = base->index;
      }
      // RIZ and EIZ stand for "no index".
      if (op.mem.index != X86_REG_INVALID && op.mem.index != X86_REG_RIZ &&
          op.mem.index != X86_REG_EIZ) {
        auto index = ToRegister(op.mem.index);
        if (!index) return false;
        memory.index = index->index;
      }
      out->kind = Operand::Kind::kMemory;
      out->memory = memory;
      return true;
    }
    default:
      return false;
  }
}

// Looks for LOCK among the legacy prefixes. Capstone keeps only one of LOCK, REP and REPNE.
bool HasLock(std::span<const uint8_t> code) {
  for (uint8_t byte : code) {
    switch (byte) {
      case 0xf0:
        return true;
      case 0x26: case 0x2e: case 0x36: case 0x3e:  // segments
      case 0x64: case 0x65: case 0x66: case 0x67:  // FS, GS, sizes
      case 0xf2: case 0xf3:
        break;
      default:
        return false;
    }
  }
  return false;
}

}  // namespace

struct InstructionDecoder::State {
  csh handle = 0;
  cs_insn* instruction = nullptr;
  ~State() {
    if (instruction != nullptr) cs_free(instruction, 1);
    if (handle != 0) cs_close(&handle);
  }
};

InstructionDecoder::InstructionDecoder() = default;
InstructionDecoder::~InstructionDecoder() = default;

bool InstructionDecoder::Open() {
  if (state_ != nullptr) return true;
  auto state = std::make_unique<State>();
  if (cs_open(CS_ARCH_X86, CS_MODE_64, &state->handle) != CS_ERR_OK) return false;
  if (cs_option(state->handle, CS_OPT_DETAIL, CS_OPT_ON) != CS_ERR_OK) return false;
  state->instruction = cs_malloc(state->handle);
  if (state->instruction == nullptr) return false;
  state_ = std::move(state);
  return true;
}

std::optional<Instruction> InstructionDecoder::Decode(std::span<const uint8_t> bytes) {
  // No instruction is the beginning of another, so at most one of the remembered matches: the
  // last in order that is not behind `bytes`.
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  auto next = remembered_.upper_bound(text);
  if (next != remembered_.begin() && text.starts_with(std::prev(next)->first)) {
    return std::prev(next)->second;
  }
  auto instruction = DecodeAnew(bytes);
  if (!instruction) return std::nullopt;
  if (remembered_.size() == kRemembered) remembered_.clear();
  remembered_.emplace(text.substr(0, instruction->length), *instruction);
  return instruction;
}

std::optional<Instruction> InstructionDecoder::DecodeAnew(std::span<const uint8_t> bytes) {
  if (!Open()) return std::nullopt;
  uint64_t address = 0;
  const uint8_t* code = bytes.data();
  size_t size = bytes.size();
  if (!cs_disasm_iter(state_->handle, &code, &size, &address, state_->instruction)) {
    return std::nullopt;
  }
  const cs_insn& found = *state_->instruction;
  const cs_x86& x86 = found.detail->x86;
  Instruction instruction;
  instruction.id = found.id;
  instruction.length = static_cast<uint8_t>(found.size);
  instruction.mnemonic = found.mnemonic;
  instruction.locked = HasLock(bytes);
  instruction.operand_size_64 = (x86.rex & 8) != 0;
  for (uint8_t i = 0; i < x86.op_count && i < 3; ++i) {
    if (!ToOperand(x86, x86.operands[i], &instruction.operands[i])) {
      instruction.operands[i] = Operand{};
    }
  }
  return instruction;
}

std::string InstructionDecoder::Disassemble(std::span<const uint8_t> bytes, uint64_t address,
                                            size_t count) {
  std::string text;
  if (!Open()) return text;
  const uint8_t* code = bytes.data();
  size_t size = bytes.size();
  while (count-- > 0 && cs_disasm_iter(state_->handle, &code, &size, &address,
                                       state_->instruction)) {
    const cs_insn& found = *state_->instruction;
    text += Format("  %016llx  ", static_cast<unsigned long long>(found.address));
    for (size_t i = 0; i < found.size; ++i) text += Format("%02x", found.bytes[i]);
    text.append(found.size < 12 ? (12 - found.size) * 2 : 2, ' ');
    text += Format("%s %s\n", found.mnemonic, found.op_str);
  }
  return text;
}

}  // namespace cube::vmm
