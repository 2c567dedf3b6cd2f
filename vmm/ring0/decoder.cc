#include "vmm/ring0/decoding.h"

namespace cube::vmm::ring0 {

Decoded Decoding::Run() {
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

void Decoding::Prefixes() {
  // A REX prefix counts only directly before the opcode.
  for (size_t i = 0; i < kMaxInstruction; ++i) {
    uint8_t byte = reader_.Peek();
    switch (byte) {
      case 0xf3:
        repeat_ = Repeat::kWhileEqual;
        break;
      case 0xf2:
        repeat_ = Repeat::kWhileNotEqual;
        break;
      case 0x66:
        operand16_ = true;
        break;
      case 0x67:
        address32_ = true;
        break;
      case 0xf0:
        locked_ = true;
        break;
      case 0x64:
        op_->segment = kFsSegment;
        break;
      case 0x65:
        op_->segment = kGsSegment;
        break;
      case 0x26:
      case 0x2e:
      case 0x36:
      case 0x3e:
        break;
      default:
        if ((byte & 0xf0) == 0x40) rex_ = reader_.Byte();
        size_ = (rex_ & 8) != 0 ? 8 : operand16_ ? 2 : 4;
        return;
    }
    reader_.Byte();
  }
}

void Decoding::ModRm(unsigned size) {
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

Decoded Decode(std::span<const uint8_t> bytes, uint16_t at, Op* op) {
  return Decoding(bytes, at, op).Run();
}

}  // namespace cube::vmm::ring0
