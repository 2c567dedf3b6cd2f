#include "vmm/ring0/decoding.h"

namespace cube::vmm::ring0 {

void Decoding::TwoByte(uint8_t opcode) {
  if (address32_) return;
  unsigned byte_or_full = (opcode & 1) != 0 ? size_ : 1;
  switch (opcode) {
    case 0x00:
    case 0x02:
    case 0x03:
      // LLDT, LTR, STR, SLDT are KVM's; LAR, LSL, VERR and VERW are not in its emulator.
      if (opcode != 0x00 || digit_of_next() == 4 || digit_of_next() == 5) {
        ModRm(size_);
        UseAndEnd(AssistHandler());
      }
      break;
    case 0x01:
      Group7();
      break;
    case 0x07:
      UseAndEnd(size_ == 8 ? SystemReturnHandler() : nullptr);
      break;
    case 0x0b:
      op_->immediate = 6;
      op_->base = 0;
      UseAndEnd(ExceptionHandler());
      break;
    case 0x0d:
    case 0x18 ... 0x1d:
    case 0x1f:
      ModRm(8);
      Use(NoOperationHandler());
      break;
    case 0x1e:
      // ENDBR64 and hints; with CET some of it would mean more, but guests are not offered that.
      ModRm(8);
      Use(NoOperationHandler());
      break;
    case 0x20:
    case 0x22:
      Control(opcode);
      break;
    case 0x30:
      UseAndEnd(WriteMsrHandler());
      break;
    case 0x31:
      Use(ReadTscHandler(false));
      break;
    case 0x32:
      UseAndEnd(ReadMsrHandler());
      break;
    case 0x38:
      // CRC32 and INVPCID; all else of this map is KVM's.
      {
        uint8_t third = reader_.Byte();
        bool crc = (third == 0xf0 || third == 0xf1) && repeat_ == Repeat::kWhileNotEqual;
        if (crc || third == 0x82) UseAndEnd(AssistHandler());
      }
      break;
    case 0x40 ... 0x4f:
      ModRm(size_);
      Use(ConditionalMoveHandler(opcode & 15, size_, memory_));
      break;
    case 0x80 ... 0x8f:
      Branch(4, ConditionalJumpHandler(opcode & 15), false);
      break;
    case 0x90 ... 0x9f:
      ModRm(1);
      Use(SetConditionHandler(opcode & 15, memory_));
      break;
    case 0xa3:
      RegisterBit(BitTest::kTest);
      break;
    case 0xab:
      RegisterBit(BitTest::kSet);
      break;
    case 0xb3:
      RegisterBit(BitTest::kReset);
      break;
    case 0xbb:
      RegisterBit(BitTest::kComplement);
      break;
    case 0xba:
      ModRm(size_);
      op_->immediate = reader_.Signed(1);
      if (digit_ >= 4) Use(BitTestHandler(static_cast<BitTest>(digit_ - 4), size_, RmImm()));
      break;
    case 0xa4:
    case 0xac:
      ModRm(size_);
      op_->immediate = reader_.Signed(1);
      Use(DoubleShiftHandler(opcode == 0xac, size_, memory_, Count::kImmediate));
      break;
    case 0xa5:
    case 0xad:
      ModRm(size_);
      Use(DoubleShiftHandler(opcode == 0xad, size_, memory_, Count::kCl));
      break;
    case 0xae:
      Group15();
      break;
    case 0xaf:
      ModRm(size_);
      Use(ImulHandler(size_, memory_, false));
      break;
    case 0xb0:
    case 0xb1:
      ModRm(byte_or_full);
      Use(CompareExchangeHandler(byte_or_full, memory_, LockedMemory()));
      break;
    case 0xb6:
      Extend(false, 1);
      break;
    case 0xb7:
      Extend(false, 2);
      break;
    case 0xbe:
      Extend(true, 1);
      break;
    case 0xbf:
      Extend(true, 2);
      break;
    case 0xb8:
      ModRm(size_);
      if (repeat_ == Repeat::kWhileEqual) Use(BitScanHandler(BitScan::kPopulation, size_, memory_));
      break;
    case 0xbc:
    case 0xbd: {
      ModRm(size_);
      bool reverse = opcode == 0xbd;
      bool counts = repeat_ == Repeat::kWhileEqual;
      Use(BitScanHandler(counts ? (reverse ? BitScan::kLeading : BitScan::kTrailing)
                                : (reverse ? BitScan::kReverse : BitScan::kForward),
                         size_, memory_));
      break;
    }
    case 0xc0:
    case 0xc1:
      ModRm(byte_or_full);
      Use(ExchangeAddHandler(byte_or_full, memory_, LockedMemory()));
      break;
    case 0xc3:
      ModRm(size_);
      if (memory_ && !Prefixed()) Use(MoveHandler(size_, Form::kMemReg));
      break;
    case 0xc7:
      Group9();
      break;
    case 0xc8 ... 0xcf:
      op_->base = static_cast<uint8_t>((opcode & 7) | (rex_ & 1) << 3);
      Use(SwapBytesHandler(size_));
      break;
    default:
      break;
  }
}

void Decoding::RegisterBit(BitTest test) {
  ModRm(size_);
  Use(BitTestHandler(test, size_, RmReg()));
}

void Decoding::Extend(bool is_signed, unsigned from) {
  ModRm(8);
  if (!memory_) op_->base = Register(rm_number_, from);
  Use(ExtendHandler(is_signed, from, size_, memory_));
}

void Decoding::Control(uint8_t opcode) {
  // ModRM names two registers whatever its mode bits say.
  uint8_t modrm = reader_.Byte();
  op_->reg = static_cast<uint8_t>((modrm >> 3 & 7) | (rex_ & 4) << 1);
  op_->base = static_cast<uint8_t>((modrm & 7) | (rex_ & 1) << 3);
  if (opcode == 0x20) {
    Use(ReadControlHandler());
  } else {
    UseAndEnd(WriteControlHandler());
  }
}

void Decoding::Group7() {
  uint8_t modrm = reader_.Peek();
  if (modrm >= 0xc0) {
    reader_.Byte();
    // With a prefix these are others: of FRED, of shadow stacks.
    if (Prefixed()) return;
    switch (modrm) {
      case 0xca:
        Use(AlignmentFlagHandler(false));
        break;
      case 0xcb:
        Use(AlignmentFlagHandler(true));
        break;
      case 0xd0:
        UseAndEnd(AssistHandler());
        break;  // XGETBV
      case 0xf8:
        Use(SwapGsHandler());
        break;
      case 0xf9:
        Use(ReadTscHandler(true));
        break;
      default:
        break;
    }
    return;
  }
  ModRm(8);
  if (digit_ == 1) Use(StoreIdtHandler());
  if (digit_ == 7) UseAndEnd(InvalidatePageHandler());
}

void Decoding::Group9() {
  ModRm(8);
  if (memory_) {
    if (digit_ == 1) {
      LockedMemory();
      Use(CompareExchangeWideHandler(size_ == 8 ? 16 : 8));
    } else if (digit_ >= 3 && digit_ <= 5) {
      UseAndEnd(AssistHandler());  // XRSTORS, XSAVEC, XSAVES
    }
  } else if (digit_ >= 6) {
    UseAndEnd(AssistHandler());  // RDRAND, RDSEED
  }
}

void Decoding::Group15() {
  ModRm(8);
  if (memory_) {
    if (repeat_ != Repeat::kNone) return;
    switch (digit_) {
      case 2:
      case 3:
      case 4:
      case 5:
        UseAndEnd(AssistHandler());
        break;  // MXCSR, XSAVE, XRSTOR
      case 6:   // XSAVEOPT, CLWB
        if (operand16_) {
          Use(NoOperationHandler());
        } else {
          UseAndEnd(AssistHandler());
        }
        break;
      case 7:
        Use(NoOperationHandler());
        break;  // CLFLUSH, CLFLUSHOPT
      default:
        break;
    }
    return;
  }
  if (repeat_ == Repeat::kWhileEqual && digit_ < 4) {
    op_->base = static_cast<uint8_t>(rm_number_);
    Use(SegmentBaseHandler(digit_, size_));
  } else if (!Prefixed() && digit_ >= 5) {
    Use(FenceHandler());
  }
}

}  // namespace cube::vmm::ring0
