#ifndef CUBE_VMM_RING0_DECODING_H_
#define CUBE_VMM_RING0_DECODING_H_

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>

#include "vmm/ring0/decoder.h"
#include "vmm/ring0/handlers.h"

namespace cube::vmm::ring0 {

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
// One instruction being decoded: decoder.cc has what all share, decoder_one_byte.cc and
// decoder_two_byte.cc a map of opcodes each.
class Decoding {
 public:
  Decoding(std::span<const uint8_t> bytes, uint16_t at, Op* op)
      : all_(bytes), reader_(bytes), op_(op) {
    *op_ = Op{};
    op_->at = at;
  }

  Decoded Run();

 private:
  void Prefixes();

  // ---- operands

  uint8_t Register(unsigned number, unsigned size) const {
    if (size != 1) return static_cast<uint8_t>(number);
    bool high = rex_ == 0 && number >= 4 && number < 8;
    return static_cast<uint8_t>(high ? (number - 4) * 8 + 1 : number * 8);
  }

  // Reads ModRM, SIB and displacement; `size` is that of both operands.
  void ModRm(unsigned size);

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

  void OneByte(uint8_t opcode);
  void UseHaltOr(bool halt, Handler otherwise);
  void AluOpcode(uint8_t opcode);
  void Strings(String string, unsigned size);
  void Group3(unsigned size);
  void Group5(uint8_t opcode, unsigned size);
  unsigned digit_of_next() const { return reader_.Peek() >> 3 & 7; }

  // ---- two-byte opcodes

  void TwoByte(uint8_t opcode);
  void RegisterBit(BitTest test);
  void Extend(bool is_signed, unsigned from);
  void Control(uint8_t opcode);
  void Group7();
  void Group9();
  void Group15();

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

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_DECODING_H_
