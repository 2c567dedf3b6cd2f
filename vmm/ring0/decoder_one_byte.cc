#include "vmm/ring0/decoding.h"

namespace cube::vmm::ring0 {

void Decoding::OneByte(uint8_t opcode) {
  if (address32_ && opcode != 0x8d) {
    // Rare enough to be KVM's, but its length must not be guessed from a wrong ModRM: none is read.
    return;
  }
  unsigned byte_or_full = (opcode & 1) != 0 ? size_ : 1;
  if (opcode < 0x40) {
    AluOpcode(opcode);
    return;
  }
  switch (opcode) {
    case 0x50 ... 0x57:
      op_->base = static_cast<uint8_t>((opcode & 7) | (rex_ & 1) << 3);
      if (!operand16_) Use(PushHandler(Form::kRegReg));
      break;
    case 0x58 ... 0x5f:
      op_->base = static_cast<uint8_t>((opcode & 7) | (rex_ & 1) << 3);
      if (!operand16_) Use(PopHandler(false));
      break;
    case 0x63:
      ModRm(size_);
      Use(size_ == 2 ? nullptr : ExtendHandler(true, 4, size_, memory_));
      break;
    case 0x68:
    case 0x6a:
      op_->immediate = reader_.Signed(opcode == 0x68 ? 4 : 1);
      if (!operand16_) Use(PushHandler(Form::kRegImm));
      break;
    case 0x69:
    case 0x6b:
      ModRm(size_);
      op_->immediate = reader_.Signed(opcode == 0x6b ? 1 : ImmediateSize(size_));
      Use(ImulHandler(size_, memory_, true));
      break;
    case 0x70 ... 0x7f:
      Branch(1, ConditionalJumpHandler(opcode & 15), false);
      break;
    case 0x80:
    case 0x81:
    case 0x83:
      ModRm(byte_or_full);
      op_->immediate = reader_.Signed(opcode == 0x81 ? ImmediateSize(size_) : 1);
      SwapRegisters();
      Use(AluHandler(static_cast<Alu>(digit_), byte_or_full, RmImm()));
      break;
    case 0x84:
    case 0x85:
      ModRm(byte_or_full);
      SwapRegisters();
      Use(AluHandler(Alu::kTest, byte_or_full, RmReg()));
      break;
    case 0x86:
    case 0x87:
      ModRm(byte_or_full);
      LockedMemory();
      Use(ExchangeHandler(byte_or_full, memory_));
      break;
    case 0x88:
    case 0x89:
      ModRm(byte_or_full);
      SwapRegisters();
      Use(MoveHandler(byte_or_full, memory_ ? Form::kMemReg : Form::kRegReg));
      break;
    case 0x8a:
    case 0x8b:
      ModRm(byte_or_full);
      Use(MoveHandler(byte_or_full, memory_ ? Form::kRegMem : Form::kRegReg));
      break;
    case 0x8c:
      ModRm(8);
      op_->reg = digit_;
      Use(ReadSegmentHandler(memory_, size_));
      break;
    case 0x8d:
      ModRm(size_);
      if (memory_ && !address32_) Use(LeaHandler(size_));
      break;
    case 0x8e:
      ModRm(8);
      op_->reg = digit_;
      Use(WriteSegmentHandler(memory_));
      break;
    case 0x8f:
      ModRm(8);
      if (digit_ == 0 && !operand16_) Use(PopHandler(memory_));
      break;
    case 0x90:
      // With REX.B it exchanges R8, whatever the other prefixes.
      if ((rex_ & 1) == 0) {
        Use(repeat_ == Repeat::kWhileEqual ? PauseHandler() : NoOperationHandler());
        break;
      }
      [[fallthrough]];
    case 0x91 ... 0x97:
      op_->reg = 0;
      op_->base = static_cast<uint8_t>((opcode & 7) | (rex_ & 1) << 3);
      Use(ExchangeHandler(size_, false));
      break;
    case 0x98:
      Use(SignExtendHandler(size_));
      break;
    case 0x99:
      Use(SignSpreadHandler(size_));
      break;
    case 0x9b:
      UseAndEnd(AssistHandler());
      break;
    case 0x9c:
      if (!operand16_) Use(PushFlagsHandler());
      break;
    case 0x9d:
      if (!operand16_) Use(PopFlagsHandler());
      break;
    case 0xa4:
    case 0xa5:
      Strings(String::kMove, byte_or_full);
      break;
    case 0xa6:
    case 0xa7:
      Strings(String::kCompare, byte_or_full);
      break;
    case 0xaa:
    case 0xab:
      Strings(String::kStore, byte_or_full);
      break;
    case 0xac:
    case 0xad:
      Strings(String::kLoad, byte_or_full);
      break;
    case 0xae:
    case 0xaf:
      Strings(String::kScan, byte_or_full);
      break;
    case 0xa8:
    case 0xa9:
      op_->reg = 0;
      op_->immediate = reader_.Signed(opcode == 0xa8 ? 1 : ImmediateSize(size_));
      Use(AluHandler(Alu::kTest, byte_or_full, Form::kRegImm));
      break;
    case 0xb0 ... 0xb7:
      op_->reg = Register(static_cast<unsigned>((opcode & 7) | (rex_ & 1) << 3), 1);
      op_->immediate = reader_.Signed(1);
      Use(MoveHandler(1, Form::kRegImm));
      break;
    case 0xb8 ... 0xbf:
      op_->reg = static_cast<uint8_t>((opcode & 7) | (rex_ & 1) << 3);
      op_->immediate = reader_.Signed(size_);
      Use(MoveHandler(size_, Form::kRegImm));
      break;
    case 0xc0:
    case 0xc1:
      ModRm(byte_or_full);
      op_->immediate = reader_.Signed(1);
      Use(ShiftHandler(static_cast<Shift>(digit_), byte_or_full, memory_, Count::kImmediate));
      break;
    case 0xd0:
    case 0xd1:
      ModRm(byte_or_full);
      op_->immediate = 1;
      Use(ShiftHandler(static_cast<Shift>(digit_), byte_or_full, memory_, Count::kImmediate));
      break;
    case 0xd2:
    case 0xd3:
      ModRm(byte_or_full);
      Use(ShiftHandler(static_cast<Shift>(digit_), byte_or_full, memory_, Count::kCl));
      break;
    case 0xc2:
      op_->immediate = reader_.Signed(2) & 0xffff;
      if (!operand16_) UseAndEnd(ReturnHandler());
      break;
    case 0xc3:
      if (!operand16_) UseAndEnd(ReturnHandler());
      break;
    case 0xc6:
    case 0xc7:
      ModRm(byte_or_full);
      op_->immediate = reader_.Signed(opcode == 0xc6 ? 1 : ImmediateSize(size_));
      SwapRegisters();
      if (digit_ == 0) {
        Use(MoveHandler(byte_or_full, memory_ ? Form::kMemImm : Form::kRegImm));
      }
      break;
    case 0xc9:
      if (!operand16_) Use(LeaveHandler());
      break;
    case 0xcc:
      op_->immediate = 3;
      op_->base = 1;
      UseAndEnd(ExceptionHandler());
      break;
    case 0xcd:
      // INT n is not in KVM's emulator.
      reader_.Byte();
      UseAndEnd(AssistHandler());
      break;
    case 0xcf:
      UseAndEnd(size_ == 8 ? InterruptReturnHandler() : nullptr);
      break;
    case 0xdb:
      // FNINIT and FNCLEX; any other x87 instruction is KVM's.
      if (reader_.Peek() == 0xe3 || reader_.Peek() == 0xe2) UseAndEnd(AssistHandler());
      reader_.Byte();
      break;
    case 0xe0 ... 0xe3:
      Branch(1, JumpCountZeroHandler(opcode & 3), false);
      break;
    case 0xe4:
    case 0xe5:
    case 0xe6:
    case 0xe7:
      op_->immediate = reader_.Byte();
      UseAndEnd(PortHandler((opcode & 2) != 0, (opcode & 1) == 0 ? 1 : operand16_ ? 2 : 4));
      break;
    case 0xec:
    case 0xed:
    case 0xee:
    case 0xef:
      op_->immediate = -1;
      UseAndEnd(PortHandler((opcode & 2) != 0, (opcode & 1) == 0 ? 1 : operand16_ ? 2 : 4));
      break;
    case 0xe8:
      Branch(4, CallHandler(), true);
      break;
    case 0xe9:
      Branch(4, JumpHandler(), true);
      break;
    case 0xeb:
      Branch(1, JumpHandler(), true);
      break;
    case 0xf4:
      UseAndEnd(HaltHandler());
      break;
    case 0xfb: {
      // STI holds interrupts off for one instruction, which matters if that is HLT: KVM runs both.
      // It also runs an STI at the end of a page, where what follows is not known.
      size_t next = reader_.position();
      if (next >= all_.size()) break;
      UseHaltOr(all_[next] == 0xf4, FlagHandler(opcode));
      break;
    }
    case 0xf5:
    case 0xf8:
    case 0xf9:
    case 0xfa:
    case 0xfc:
    case 0xfd:
      Use(FlagHandler(opcode));
      break;
    case 0xf6:
    case 0xf7:
      Group3(byte_or_full);
      break;
    case 0xfe:
    case 0xff:
      Group5(opcode, byte_or_full);
      break;
    default:
      break;
  }
}

void Decoding::UseHaltOr(bool halt, Handler otherwise) {
  if (halt) {
    UseAndEnd(HaltHandler());
  } else {
    Use(otherwise);
  }
}

void Decoding::AluOpcode(uint8_t opcode) {
  auto alu = static_cast<Alu>(opcode >> 3);
  unsigned size = (opcode & 1) != 0 ? size_ : 1;
  switch (opcode & 7) {
    case 0:
    case 1:
      ModRm(size);
      SwapRegisters();
      Use(AluHandler(alu, size, RmReg()));
      break;
    case 2:
    case 3:
      ModRm(size);
      Use(AluHandler(alu, size, memory_ ? Form::kRegMem : Form::kRegReg));
      break;
    case 4:
    case 5:
      op_->reg = 0;
      op_->immediate = reader_.Signed(ImmediateSize(size));
      Use(AluHandler(alu, size, Form::kRegImm));
      break;
    default:
      break;
  }
}

void Decoding::Strings(String string, unsigned size) { Use(StringHandler(string, size, repeat_)); }

void Decoding::Group3(unsigned size) {
  ModRm(size);
  switch (digit_) {
    case 0:
    case 1:
      op_->immediate = reader_.Signed(ImmediateSize(size));
      SwapRegisters();
      Use(AluHandler(Alu::kTest, size, RmImm()));
      break;
    case 2:
      Use(UnaryHandler(Unary::kNot, size, memory_, LockedMemory()));
      break;
    case 3:
      Use(UnaryHandler(Unary::kNeg, size, memory_, LockedMemory()));
      break;
    default:
      Use(ProductHandler(static_cast<Product>(digit_ - 4), size, memory_));
      break;
  }
}

void Decoding::Group5(uint8_t opcode, unsigned size) {
  // Branches and PUSH have 64-bit operands whatever REX says.
  bool wide =
      opcode == 0xff && (digit_of_next() == 2 || digit_of_next() == 4 || digit_of_next() == 6);
  ModRm(wide ? 8 : size);
  switch (digit_) {
    case 0:
      Use(UnaryHandler(Unary::kInc, size, memory_, LockedMemory()));
      break;
    case 1:
      Use(UnaryHandler(Unary::kDec, size, memory_, LockedMemory()));
      break;
    case 2:
      if (wide && !operand16_) UseAndEnd(IndirectCallHandler(memory_));
      break;
    case 4:
      if (wide && !operand16_) UseAndEnd(IndirectJumpHandler(memory_));
      break;
    case 6:
      if (wide && !operand16_) Use(PushHandler(memory_ ? Form::kRegMem : Form::kRegReg));
      break;
    default:
      break;
  }
}

}  // namespace cube::vmm::ring0
