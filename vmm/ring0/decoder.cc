#include "vmm/ring0/decoder.h"

#include <algorithm>
#include <cstring>

#include "vmm/ring0/handlers.h"

namespace cube::vmm::ring0 {
namespace {

// The instruction being decoded. Reading past the end sets `truncated` and yields zeros.
class Reader {
 public:
  explicit Reader(std::span<const uint8_t> bytes)
      : bytes_(bytes.first(std::min(bytes.size(), kMaxInstruction))) {}

  uint8_t Peek() const { return position_ < bytes_.size() ? bytes_[position_] : 0; }
  uint8_t Byte() {
    if (position_ >= bytes_.size()) {
      truncated_ = true;
      return 0;
    }
    return bytes_[position_++];
  }
  // A little-endian signed number of 1, 2, 4 or 8 bytes.
  int64_t Signed(unsigned size) {
    uint64_t value = 0;
    for (unsigned i = 0; i < size; ++i) value |= static_cast<uint64_t>(Byte()) << (8 * i);
    unsigned unused = 64 - 8 * size;
    return static_cast<int64_t>(value << unused) >> unused;
  }
  bool truncated() const { return truncated_; }
  size_t position() const { return position_; }

 private:
  std::span<const uint8_t> bytes_;
  size_t position_ = 0;
  bool truncated_ = false;
};

class Decoding {
 public:
  Decoding(std::span<const uint8_t> bytes, uint16_t at, Op* op)
      : all_(bytes), reader_(bytes), op_(op) {
    *op_ = Op{};
    op_->at = at;
  }

  Decoded Run() {
    Prefixes();
    uint8_t opcode = reader_.Byte();
    if (opcode == 0x0f) {
      TwoByte(reader_.Byte());
    } else {
      OneByte(opcode);
    }
    if (reader_.truncated()) return Decoded::kTruncated;
    if (locked_ && !lock_used_) handler_ = nullptr;
    if (handler_ == nullptr) {
      handler_ = HandOffHandler();
      ends_ = true;
    }
    op_->length = static_cast<uint8_t>(reader_.position());
    // Positions within the page, so that a block may run wherever its page is mapped.
    int64_t end = op_->at + op_->length;
    if (relative_) op_->immediate += end;
    if (op_->base == kCodePageRegister) {
      int64_t displacement = op_->displacement + end;
      if (displacement != static_cast<int32_t>(displacement)) {
        handler_ = HandOffHandler();
        ends_ = true;
      } else {
        op_->displacement = static_cast<int32_t>(displacement);
      }
    }
    op_->set_handler(handler_);
    return ends_ ? Decoded::kEnds : Decoded::kGoesOn;
  }

 private:
  void Prefixes() {
    // A REX prefix counts only directly before the opcode.
    for (size_t i = 0; i < kMaxInstruction; ++i) {
      uint8_t byte = reader_.Peek();
      switch (byte) {
        case 0xf3: repeat_ = Repeat::kWhileEqual; break;
        case 0xf2: repeat_ = Repeat::kWhileNotEqual; break;
        case 0x66: operand16_ = true; break;
        case 0x67: address32_ = true; break;
        case 0xf0: locked_ = true; break;
        case 0x64: op_->segment = kFsSegment; break;
        case 0x65: op_->segment = kGsSegment; break;
        case 0x26: case 0x2e: case 0x36: case 0x3e: break;
        default:
          if ((byte & 0xf0) == 0x40) rex_ = reader_.Byte();
          size_ = (rex_ & 8) != 0 ? 8 : operand16_ ? 2 : 4;
          return;
      }
      reader_.Byte();
    }
  }

  // ---- operands

  uint8_t Register(unsigned number, unsigned size) const {
    if (size != 1) return static_cast<uint8_t>(number);
    bool high = rex_ == 0 && number >= 4 && number < 8;
    return static_cast<uint8_t>(high ? (number - 4) * 8 + 1 : number * 8);
  }

  // Reads ModRM, SIB and displacement; `size` is that of both operands.
  void ModRm(unsigned size) {
    uint8_t modrm = reader_.Byte();
    mod_ = modrm >> 6;
    digit_ = modrm >> 3 & 7;
    reg_number_ = digit_ | (rex_ & 4) << 1;
    rm_number_ = (modrm & 7) | (rex_ & 1) << 3;
    op_->reg = Register(reg_number_, size);
    memory_ = mod_ != 3;
    if (!memory_) {
      op_->base = Register(rm_number_, size);
      return;
    }
    if ((modrm & 7) == 4) {
      uint8_t sib = reader_.Byte();
      unsigned index = (sib >> 3 & 7) | (rex_ & 2) << 2;
      if (index != 4) {
        op_->index = static_cast<uint8_t>(index);
        op_->scale = sib >> 6;
      }
      if ((sib & 7) == 5 && mod_ == 0) {
        op_->displacement = static_cast<int32_t>(reader_.Signed(4));
        return;
      }
      op_->base = static_cast<uint8_t>((sib & 7) | (rex_ & 1) << 3);
    } else if ((modrm & 7) == 5 && mod_ == 0) {
      op_->base = kCodePageRegister;
      op_->displacement = static_cast<int32_t>(reader_.Signed(4));
      return;
    } else {
      op_->base = static_cast<uint8_t>(rm_number_);
    }
    if (mod_ == 1) op_->displacement = static_cast<int32_t>(reader_.Signed(1));
    if (mod_ == 2) op_->displacement = static_cast<int32_t>(reader_.Signed(4));
  }

  // LOCK is for a destination in memory only; elsewhere it raises #UD, which KVM does.
  bool LockedMemory() {
    if (locked_ && memory_) lock_used_ = true;
    return locked_ && memory_;
  }
  Form RmReg() {
    return !memory_ ? Form::kRegReg : LockedMemory() ? Form::kLockMemReg : Form::kMemReg;
  }
  Form RmImm() {
    return !memory_ ? Form::kRegImm : LockedMemory() ? Form::kLockMemImm : Form::kMemImm;
  }
  // For forms whose destination is the ModRM operand but which take it in Op::reg.
  void SwapRegisters() {
    if (!memory_) std::swap(op_->reg, op_->base);
  }
  unsigned ImmediateSize(unsigned size) const { return size == 8 ? 4 : size; }

  // A prefix that in some places makes another instruction.
  bool Prefixed() const { return operand16_ || repeat_ != Repeat::kNone; }
  void Use(Handler handler) { handler_ = handler; }
  void UseAndEnd(Handler handler) {
    handler_ = handler;
    ends_ = true;
  }
  void Branch(unsigned size, Handler handler, bool ends) {
    op_->immediate = reader_.Signed(size);
    relative_ = true;
    // A 16-bit branch would cut RIP on some processors.
    handler_ = operand16_ ? nullptr : handler;
    ends_ = ends;
  }

  // ---- one-byte opcodes

  void OneByte(uint8_t opcode) {
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
      case 0xa4: case 0xa5: Strings(String::kMove, byte_or_full); break;
      case 0xa6: case 0xa7: Strings(String::kCompare, byte_or_full); break;
      case 0xaa: case 0xab: Strings(String::kStore, byte_or_full); break;
      case 0xac: case 0xad: Strings(String::kLoad, byte_or_full); break;
      case 0xae: case 0xaf: Strings(String::kScan, byte_or_full); break;
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
      case 0xe4: case 0xe5: case 0xe6: case 0xe7:
        op_->immediate = reader_.Byte();
        UseAndEnd(PortHandler((opcode & 2) != 0, (opcode & 1) == 0 ? 1 : operand16_ ? 2 : 4));
        break;
      case 0xec: case 0xed: case 0xee: case 0xef:
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
      case 0xf5: case 0xf8: case 0xf9: case 0xfa: case 0xfc: case 0xfd:
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

  void UseHaltOr(bool halt, Handler otherwise) {
    if (halt) {
      UseAndEnd(HaltHandler());
    } else {
      Use(otherwise);
    }
  }

  void AluOpcode(uint8_t opcode) {
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

  void Strings(String string, unsigned size) {
    Use(StringHandler(string, size, repeat_));
  }

  void Group3(unsigned size) {
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

  void Group5(uint8_t opcode, unsigned size) {
    // Branches and PUSH have 64-bit operands whatever REX says.
    bool wide = opcode == 0xff && (digit_of_next() == 2 || digit_of_next() == 4 || digit_of_next() == 6);
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
  unsigned digit_of_next() const { return reader_.Peek() >> 3 & 7; }

  // ---- two-byte opcodes

  void TwoByte(uint8_t opcode) {
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
      case 0xa3: RegisterBit(BitTest::kTest); break;
      case 0xab: RegisterBit(BitTest::kSet); break;
      case 0xb3: RegisterBit(BitTest::kReset); break;
      case 0xbb: RegisterBit(BitTest::kComplement); break;
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
      case 0xb6: Extend(false, 1); break;
      case 0xb7: Extend(false, 2); break;
      case 0xbe: Extend(true, 1); break;
      case 0xbf: Extend(true, 2); break;
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

  void RegisterBit(BitTest test) {
    ModRm(size_);
    Use(BitTestHandler(test, size_, RmReg()));
  }

  void Extend(bool is_signed, unsigned from) {
    ModRm(8);
    if (!memory_) op_->base = Register(rm_number_, from);
    Use(ExtendHandler(is_signed, from, size_, memory_));
  }

  void Control(uint8_t opcode) {
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

  void Group7() {
    uint8_t modrm = reader_.Peek();
    if (modrm >= 0xc0) {
      reader_.Byte();
      // With a prefix these are others: of FRED, of shadow stacks.
      if (Prefixed()) return;
      switch (modrm) {
        case 0xca: Use(AlignmentFlagHandler(false)); break;
        case 0xcb: Use(AlignmentFlagHandler(true)); break;
        case 0xd0: UseAndEnd(AssistHandler()); break;  // XGETBV
        case 0xf8: Use(SwapGsHandler()); break;
        case 0xf9: Use(ReadTscHandler(true)); break;
        default: break;
      }
      return;
    }
    ModRm(8);
    if (digit_ == 1) Use(StoreIdtHandler());
    if (digit_ == 7) UseAndEnd(InvalidatePageHandler());
  }

  void Group9() {
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

  void Group15() {
    ModRm(8);
    if (memory_) {
      if (repeat_ != Repeat::kNone) return;
      switch (digit_) {
        case 2: case 3: case 4: case 5: UseAndEnd(AssistHandler()); break;  // MXCSR, XSAVE, XRSTOR
        case 6:  // XSAVEOPT, CLWB
          if (operand16_) {
            Use(NoOperationHandler());
          } else {
            UseAndEnd(AssistHandler());
          }
          break;
        case 7: Use(NoOperationHandler()); break;  // CLFLUSH, CLFLUSHOPT
        default: break;
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

  std::span<const uint8_t> all_;
  Reader reader_;
  Op* op_;
  Handler handler_ = nullptr;
  bool ends_ = false;
  bool relative_ = false;
  Repeat repeat_ = Repeat::kNone;
  bool operand16_ = false;
  bool address32_ = false;
  bool locked_ = false;
  bool lock_used_ = false;
  uint8_t rex_ = 0;
  unsigned size_ = 4;
  uint8_t mod_ = 0;
  uint8_t digit_ = 0;
  unsigned reg_number_ = 0;
  unsigned rm_number_ = 0;
  bool memory_ = false;
};

}  // namespace

Decoded Decode(std::span<const uint8_t> bytes, uint16_t at, Op* op) {
  return Decoding(bytes, at, op).Run();
}

}  // namespace cube::vmm::ring0
