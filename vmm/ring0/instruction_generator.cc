#include <algorithm>
#include <cstring>

#include "vmm/ring0/instruction_table.h"

namespace cube::vmm::ring0 {
namespace {

constexpr unsigned kRax = 0, kRcx = 1, kRdx = 2, kRsp = 4, kRbp = 5, kRsi = 6, kRdi = 7;
constexpr unsigned kNoRegister = 16;

// One instance being made.
class Instance {
 public:
  Instance(const Encoding& encoding, std::mt19937_64& random, NativeCase* out)
      : e_(encoding), random_(random), out_(*out) {}

  void Make() {
    out_.code = {};
    out_.patches = {};
    length_ = patches_ = 0;
    for (uint64_t& r : out_.before.r) r = Interesting(random_);
    out_.before.rflags = random_() & kTestedFlags & ~kAlignmentCheck;
    out_.before.gs_base = OneIn(2) ? 0 : random_() & 0x7fffffff0000;
    out_.before.rip = OneIn(8) ? window::kCode + window::kPage - Below(16)
                               : window::kCode + 0x800 + Below(256);
    Reg(kRsp) = OneIn(8) ? Target() : Interior();
    size_ = Size();
    out_.operand_size = size_;
    form_ = e_.forms[Below(strlen(e_.forms))];
    memory_ = form_ != 'r';
    segment_ = memory_ || e_.special == Special::kString ? OneIn(8) : false;
    Implicit();
    Encode();
    Finish();
  }

 private:
  static constexpr uint64_t kAlignmentCheck = 1 << 18;

  uint64_t Below(uint64_t limit) { return random_() % limit; }
  bool OneIn(uint64_t n) { return Below(n) == 0; }
  uint64_t& Reg(unsigned number) { return out_.before.r[number]; }
  void Byte(uint64_t value) { out_.code[length_++] = static_cast<uint8_t>(value); }
  void Bytes(uint64_t value, unsigned size) {
    for (unsigned i = 0; i < size; ++i) Byte(value >> (8 * i));
  }
  void Patch(uint64_t address, uint64_t value) {
    if (address < window::kWritable || address + 8 > window::kEnd) return;
    out_.patches[patches_++] = {address, value};
  }

  uint8_t Size() {
    switch (e_.sizes[Below(strlen(e_.sizes))]) {
      case 'b': return 1;
      case 'w': return 2;
      case 'q': return 8;
      default: return 4;
    }
  }
  uint64_t Interior() { return window::kWritable + 64 + Below(window::kWritableSize - 128); }
  // Where an operand lies: mostly in the window, sometimes at or over its edges.
  uint64_t Target() {
    switch (Below(16)) {
      case 0: return window::kWritable - 16 + Below(24);
      case 1: return window::kEnd - 16 + Below(24);
      case 2: return window::kReadOnly - 16 + Below(48);
      case 3: return window::kWritable + window::kPage - 16 + Below(24);
      default: return Interior();
    }
  }
  // An address in the code area that is HLT.
  uint64_t CodeTarget(uint64_t from, uint64_t range) {
    for (;;) {
      uint64_t target = from + Below(range);
      if (target + 15 < out_.before.rip || target >= out_.before.rip + 15) return target;
    }
  }
  uint64_t AnyCodeTarget() { return CodeTarget(window::kCode, window::kCodeSize); }

  // Registers and memory that the instruction names without encoding them.
  void Implicit() {
    switch (e_.special) {
      case Special::kString: {
        Reg(kRsi) = Target();
        Reg(kRdi) = OneIn(3) ? Reg(kRsi) + Below(33) - 16 : OneIn(16) ? Reg(kRsi) : Target();
        Reg(kRcx) = OneIn(4) ? Below(9000 / size_) : Below(24);
        if (segment_) Reg(kRsi) -= out_.before.gs_base;
        break;
      }
      case Special::kDivide:
        if (!OneIn(4)) {
          // Small dividends, or sign extended ones: quotients that fit.
          uint64_t sign = OneIn(2) ? 0 : ~0ull;
          if (size_ == 1) {
            Reg(kRax) = (Reg(kRax) & ~0xff00ull) | (sign & 0xff00);
          } else {
            Reg(kRdx) = OneIn(2) ? sign : Below(256);
          }
        }
        break;
      case Special::kReturn:
        Reg(kRsp) = OneIn(16) ? window::kEnd - Below(16) : Interior();
        Patch(Reg(kRsp), AnyCodeTarget());
        break;
      case Special::kLeave: Reg(kRbp) = Target(); break;
      case Special::kLoop: Reg(kRcx) = OneIn(2) ? Below(3) : Interesting(random_); break;
      case Special::kFlagsOnStack:
        Reg(kRsp) = Interior() & ~7ull;
        Patch(Reg(kRsp), random_() & (kTestedFlags | 1 << 21));
        break;
      case Special::kBranchTo:
        Reg(kRsp) = OneIn(16) ? window::kEnd - Below(16) : Interior();
        break;
      default: break;
    }
    if (e_.opcode == 0x9c && OneIn(2)) {
      // Natively, user code with AC may not store unaligned.
      Reg(kRsp) = Interior() & ~7ull;
      out_.before.rflags |= kAlignmentCheck;
    }
  }

  void Encode() {
    bool has_modrm = e_.digit != kNoModRm && e_.digit != kInOpcode;
    auto reg = static_cast<unsigned>(e_.digit >= 0 ? static_cast<uint64_t>(e_.digit) : Below(16));
    unsigned rm = kNoRegister, base = kNoRegister, index = kNoRegister;
    if (e_.digit == kInOpcode || (has_modrm && !memory_)) {
      do {
        rm = static_cast<unsigned>(Below(16));
      } while (rm == kRsp && e_.special == Special::kBranchTo);
      if (e_.special == Special::kBranchTo) Reg(rm) = AnyCodeTarget();
    }
    if (memory_) PickAddress(reg, &base, &index);
    // Prefixes.
    if (!memory_ && OneIn(32)) Byte(0x3e);
    if (segment_) Byte(0x65);
    if (form_ == 'l') Byte(0xf0);
    // Where the size is decided otherwise it means nothing, but of some it makes others.
    bool idle = (size_ == 1 || size_ == 8) && e_.prefix == 0 && e_.opcode != 0x0fc3 &&
                e_.special != Special::kCompareWide && OneIn(16);
    if (size_ == 2 || idle) Byte(0x66);
    if (e_.prefix != 0) Byte(e_.prefix);
    unsigned rex = size_ == 8 ? 8 : 0;
    if (e_.digit == kRegister && reg >= 8) rex |= 4;
    if (index != kNoRegister && index >= 8) rex |= 2;
    if (std::min(base, rm) < kNoRegister && std::min(base, rm) >= 8) rex |= 1;
    if (rex != 0 || (e_.opcode != 0x90 && OneIn(4))) Byte(0x40 | rex);
    uint16_t opcode = e_.opcode;
    if (size_ == 1 && e_.digit != kInOpcode) opcode &= static_cast<uint16_t>(~1);
    if (e_.digit == kInOpcode) opcode = static_cast<uint16_t>(opcode | (rm & 7));
    if (opcode > 0xff) Byte(opcode >> 8);
    Byte(opcode & 0xff);
    if (has_modrm) {
      if (memory_) {
        EncodeAddress(reg & 7, base, index);
      } else {
        Byte(0xc0 | (reg & 7) << 3 | (rm & 7));
      }
    }
    EncodeImmediate();
  }

  // Decides on base, index and displacement and sets the registers so that they make `target_`.
  void PickAddress(unsigned reg, unsigned* base, unsigned* index) {
    target_ = e_.special == Special::kBranchTo ? (OneIn(16) ? window::kEnd - Below(8) : Interior())
                                               : Target();
    if (e_.special == Special::kCompareWide && !OneIn(8)) target_ &= ~15ull;
    uint64_t wanted = target_;
    if (e_.special == Special::kBitOffset) {
      int64_t bit = static_cast<int64_t>(Below(8000)) - 4000;
      uint64_t above = size_ == 8 ? 0 : Interesting(random_) << (size_ * 8);
      uint64_t mask = size_ == 8 ? ~0ull : (1ull << (size_ * 8)) - 1;
      Reg(reg) = above | (static_cast<uint64_t>(bit) & mask);
      int64_t width = size_ * 8;
      int64_t step = bit >= 0 ? bit / width : -((-bit + width - 1) / width);
      wanted -= static_cast<uint64_t>(step * size_);
    }
    if (e_.special == Special::kBranchTo) Patch(target_, AnyCodeTarget());
    if (segment_) wanted -= out_.before.gs_base;
    offset_ = wanted;
    // What also pushes or pops must keep RSP near the target: elsewhere the child that runs the case
    // may have memory of its own.
    bool uses_stack = (e_.opcode == 0xff && e_.digit == 6) || (e_.opcode == 0x8f && e_.digit == 0);
    auto pick = [&] {
      for (;;) {
        auto number = static_cast<unsigned>(Below(16));
        bool near = mode_ != 2 && mode_ != 3 && displacement_size_ <= 1;
        if (uses_stack && number == kRsp && !near) continue;
        bool taken = (e_.special == Special::kBitOffset && number == reg) ||
                     (e_.special == Special::kCompare && number == kRax) ||
                     (e_.special == Special::kCompareWide && (number == kRax || number == kRdx)) ||
                     (number == kRsp && e_.special == Special::kBranchTo);
        if (!taken) return number;
      }
    };
    mode_ = Below(8);
    // Only a flat address fits into 32 bits.
    if ((mode_ == 5 || mode_ == 6) && segment_) mode_ = 0;
    displacement_size_ = OneIn(3) ? 0 : OneIn(2) ? 1 : 4;
    displacement_ = displacement_size_ == 0   ? 0
                    : displacement_size_ == 1 ? static_cast<int8_t>(random_())
                                              : static_cast<int32_t>(random_());
    uint64_t rest = wanted - static_cast<uint64_t>(displacement_);
    switch (mode_) {
      case 5:  // absolute
        displacement_ = static_cast<int64_t>(wanted);
        break;
      case 6:  // relative to RIP
        break;
      case 4:  // index and displacement
        do *index = pick(); while (*index == kRsp);
        scale_ = static_cast<unsigned>(Below(4));
        displacement_ = static_cast<int32_t>(random_());
        displacement_ += static_cast<int64_t>((wanted - static_cast<uint64_t>(displacement_)) &
                                              ((1u << scale_) - 1));
        if (displacement_ != static_cast<int32_t>(displacement_)) displacement_ -= 8;
        Reg(*index) = static_cast<uint64_t>(
            static_cast<int64_t>(wanted - static_cast<uint64_t>(displacement_)) >> scale_);
        break;
      case 2:
      case 3:
        *base = pick();
        do *index = pick(); while (*index == kRsp || *index == *base);
        scale_ = static_cast<unsigned>(Below(4));
        Reg(*base) = rest - (Reg(*index) << scale_);
        break;
      default:
        *base = pick();
        Reg(*base) = rest;
        break;
    }
    CompareOperands();
  }

  // Makes the accumulator equal what is in memory half of the time.
  void CompareOperands() {
    if (OneIn(2)) return;
    if (e_.special == Special::kCompare) Patch(target_, Reg(kRax));
    if (e_.special == Special::kCompareWide) {
      if (size_ == 8) {
        Patch(target_, Reg(kRax));
        Patch(target_ + 8, Reg(kRdx));
      } else {
        Patch(target_, Reg(kRdx) << 32 | (Reg(kRax) & 0xffffffff));
      }
    }
  }

  void EncodeAddress(unsigned reg, unsigned base, unsigned index) {
    unsigned middle = reg << 3;
    if (mode_ == 6) {
      Byte(middle | 5);
      relative_at_ = length_;
      Bytes(0, 4);
      return;
    }
    if (base == kNoRegister) {
      Byte(middle | 4);
      Byte(scale_ << 6 | (index == kNoRegister ? 4u : index & 7) << 3 | 5);
      Bytes(static_cast<uint64_t>(displacement_), 4);
      return;
    }
    unsigned size = displacement_size_;
    if (size == 0 && (base & 7) == 5) size = 1;  // no base in that place
    unsigned mod = size == 0 ? 0 : size == 1 ? 1 : 2;
    if (index != kNoRegister || (base & 7) == 4) {
      Byte(mod << 6 | middle | 4);
      Byte(scale_ << 6 | (index == kNoRegister ? 4u : index & 7) << 3 | (base & 7));
    } else {
      Byte(mod << 6 | middle | (base & 7));
    }
    Bytes(static_cast<uint64_t>(displacement_), size);
  }

  void EncodeImmediate() {
    switch (e_.immediate) {
      case Immediate::kNone: break;
      case Immediate::kByte: Bytes(Interesting(random_), 1); break;
      case Immediate::kWord: Bytes(Below(64), 2); break;
      case Immediate::kFull: Bytes(Interesting(random_), std::min<unsigned>(size_, 4)); break;
      case Immediate::kFull64: Bytes(Interesting(random_), size_); break;
      case Immediate::kRelative8: {
        uint64_t end = out_.before.rip + length_ + 1;
        Byte(CodeTarget(end - 128, 256) - end);
        break;
      }
      case Immediate::kRelative32:
        Bytes(AnyCodeTarget() - (out_.before.rip + length_ + 4), 4);
        break;
    }
  }

  void Finish() {
    out_.length = static_cast<uint8_t>(length_);
    if (memory_ && mode_ == 6) {
      auto displacement = static_cast<uint32_t>(offset_ - (out_.before.rip + length_));
      memcpy(out_.code.data() + relative_at_, &displacement, 4);
    }
  }

  const Encoding& e_;
  std::mt19937_64& random_;
  NativeCase& out_;
  size_t length_ = 0;
  size_t patches_ = 0;
  uint8_t size_ = 4;
  char form_ = 'r';
  bool memory_ = false;
  bool segment_ = false;
  uint64_t target_ = 0;  // where the operand lies
  uint64_t offset_ = 0;  // what base, index and displacement must come to
  uint64_t mode_ = 0;
  unsigned scale_ = 0;
  unsigned displacement_size_ = 0;
  int64_t displacement_ = 0;
  size_t relative_at_ = 0;
};

}  // namespace

uint64_t Interesting(std::mt19937_64& random) {
  static constexpr uint64_t kCorners[] = {
      0,          1,          2,          0x7f,       0x80,       0xff,
      0x7fff,     0x8000,     0xffff,     0x7fffffff, 0x80000000, 0xffffffff,
      0x100000000, 0x7fffffffffffffff, 0x8000000000000000, 0xffffffffffffffff, 31, 32, 63, 64};
  switch (random() % 4) {
    case 0: return kCorners[random() % std::size(kCorners)];
    case 1: return random() % 256;
    default: return random();
  }
}

void Generate(const Encoding& encoding, std::mt19937_64& random, NativeCase* out) {
  Instance(encoding, random, out).Make();
}

}  // namespace cube::vmm::ring0
