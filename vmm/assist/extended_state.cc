#include "vmm/assist/extended_state.h"

#include <algorithm>
#include <cstring>

#include "vmm/segments.h"

namespace cube::vmm {
namespace {

// The legacy region and the header (SDM volume 1, 13.4.1 and 13.4.2).
constexpr size_t kControlWord = 0;
constexpr size_t kStatusWord = 2;
constexpr size_t kTagWord = 4;
constexpr size_t kMxcsr = 24;
constexpr size_t kX87Registers = 32;
constexpr size_t kX87RegistersSize = 128;
constexpr size_t kXmm = 160;
constexpr size_t kXmmSize = 256;
constexpr size_t kHeader = 512;
constexpr size_t kHeaderSize = 64;
constexpr size_t kExtendedStart = 576;

constexpr uint64_t kX87 = 1 << 0;
constexpr uint64_t kSse = 1 << 1;
constexpr uint64_t kAvx = 1 << 2;
constexpr uint64_t kCompactedFormat = 1ull << 63;
constexpr uint32_t kMxcsrDefault = 0x1f80;
constexpr uint16_t kControlWordDefault = 0x37f;

struct Header {
  uint64_t present;    // XSTATE_BV
  uint64_t compacted;  // XCOMP_BV
  uint64_t reserved[6];
};
static_assert(sizeof(Header) == kHeaderSize);

// What is copied from KVM's area to the guest's.
struct Piece {
  size_t from;
  size_t to;
  size_t size;
};

uint64_t Mask(const kvm_regs& regs) {
  return (regs.rdx & 0xffffffff) << 32 | (regs.rax & 0xffffffff);
}

}  // namespace

XsaveLayout XsaveLayout::FromCpuid(std::span<const kvm_cpuid_entry2> entries) {
  XsaveLayout layout;
  for (const kvm_cpuid_entry2& entry : entries) {
    if (entry.function != 0xd || entry.index < 2 || entry.index > 62) continue;
    layout.components[entry.index] = {entry.ebx, entry.eax, (entry.ecx & 2) != 0};
  }
  return layout;
}

uint32_t XsaveLayout::CompactedOffset(uint64_t compacted, int index) const {
  uint32_t offset = kExtendedStart;
  for (int i = 2; i <= index; ++i) {
    if ((compacted >> i & 1) == 0) continue;
    if (components[i].aligned) offset = (offset + 63) & ~63u;
    if (i == index) break;
    offset += components[i].size;
  }
  return offset;
}

Status ExtendedState::Fetch(KvmVcpu* vcpu) {
  // Switches between two tasks save and restore without a run in between.
  if (fetched_at_ == vcpu->runs() + 1) return OkStatus();
  fetched_at_ = 0;
  area_.resize(vcpu->xsave_size());
  CUBE_TRY(vcpu->GetXsave(area_));
  fetched_at_ = vcpu->runs() + 1;
  return OkStatus();
}

Status ExtendedState::Put(KvmVcpu* vcpu) {
  fetched_at_ = 0;
  CUBE_TRY(vcpu->SetXsave(area_));
  fetched_at_ = vcpu->runs() + 1;
  return OkStatus();
}

Result<uint64_t> ExtendedState::Xcr0(KvmVcpu* vcpu) {
  if (xcr0_at_ != vcpu->ring0_runs() + 1) {
    CUBE_ASSIGN(kvm_xcrs xcrs, vcpu->GetXcrs());
    xcr0_ = xcrs.xcrs[0].value;
    xcr0_at_ = vcpu->ring0_runs() + 1;
  }
  return xcr0_;
}

Result<bool> ExtendedState::Store(KvmVcpu* vcpu, OperandAccess* access, uint64_t address,
                                  Save format) {
  if (address % 64 != 0) return access->Raise(kVectorGeneralProtection, 0);
  CUBE_ASSIGN(uint64_t xcr0, Xcr0(vcpu));
  CUBE_TRY(Fetch(vcpu));
  uint64_t requested = Mask(access->regs()) & xcr0;
  uint64_t in_use;
  uint32_t mxcsr;
  memcpy(&in_use, area_.data() + kHeader, sizeof in_use);
  memcpy(&mxcsr, area_.data() + kMxcsr, sizeof mxcsr);
  bool compacted = format == Save::kCompacted;
  // An MXCSR that is not at its reset value counts as SSE state in use (13.10).
  if (compacted && mxcsr != kMxcsrDefault) in_use |= kSse;
  uint64_t stored = format == Save::kStandard ? requested : requested & in_use;

  // The header is the only part that is read; its fault is that of a write all the same.
  Header header = {};
  auto header_bytes = std::span(reinterpret_cast<uint8_t*>(&header), sizeof header);
  if (!access->CheckWrite(address + kHeader, kHeaderSize)) return false;
  if (!compacted && !access->ReadBytes(address + kHeader, header_bytes)) return false;
  if (compacted) {
    header = {requested & in_use, requested | kCompactedFormat, {}};
  } else {
    header.present = (header.present & ~requested) | (requested & in_use);
  }
  std::vector<Piece> pieces;
  if ((stored & kX87) != 0) {
    pieces.push_back({0, 0, kMxcsr});
    pieces.push_back({kX87Registers, kX87Registers, kX87RegistersSize});
  }
  bool stores_mxcsr = compacted ? (requested & kSse) != 0 : (requested & (kSse | kAvx)) != 0;
  if (stores_mxcsr) pieces.push_back({kMxcsr, kMxcsr, 8});
  if ((stored & kSse) != 0) pieces.push_back({kXmm, kXmm, kXmmSize});
  for (int i = 2; i < 63; ++i) {
    if ((stored >> i & 1) == 0) continue;
    const auto& component = layout_.components[i];
    if (component.offset + static_cast<size_t>(component.size) > area_.size()) {
      return Errorf("XSAVE component %d lies outside KVM's area", i);
    }
    size_t to = compacted ? layout_.CompactedOffset(requested, i) : component.offset;
    pieces.push_back({component.offset, to, component.size});
  }
  // XSAVE writes no more of the header than XSTATE_BV; the compacted forms write all of it.
  header_bytes = header_bytes.first(compacted ? kHeaderSize : sizeof header.present);

  // Every page is looked up before the first byte is stored: a fault leaves the area as it was.
  for (const Piece& piece : pieces) {
    if (!access->CheckWrite(address + piece.to, piece.size)) return false;
  }
  for (const Piece& piece : pieces) {
    auto bytes = std::span(area_).subspan(piece.from, piece.size);
    if (!access->WriteBytes(address + piece.to, bytes)) return false;
  }
  return access->WriteBytes(address + kHeader, header_bytes);
}

Result<bool> ExtendedState::Load(KvmVcpu* vcpu, OperandAccess* access, uint64_t address,
                                 bool supervisor) {
  if (address % 64 != 0) return access->Raise(kVectorGeneralProtection, 0);
  CUBE_ASSIGN(uint64_t enabled, Xcr0(vcpu));
  uint64_t requested = Mask(access->regs()) & enabled;
  // What was there before matters only for components that stay as they are.
  if (requested != enabled || area_.empty()) CUBE_TRY(Fetch(vcpu));
  fetched_at_ = 0;  // what follows changes it
  Header header;
  if (!access->ReadBytes(address + kHeader, {reinterpret_cast<uint8_t*>(&header), sizeof header})) {
    return false;
  }
  bool compacted = (header.compacted & kCompactedFormat) != 0;
  uint64_t in_area = compacted ? header.compacted & ~kCompactedFormat : header.present;
  // 13.8.1, 13.8.2 and 13.12: what makes the header malformed.
  bool bad = (in_area & ~enabled) != 0 || (header.present & ~in_area) != 0 ||
             (supervisor && !compacted) || (!compacted && header.compacted != 0);
  size_t reserved = compacted || supervisor ? 6 : 1;
  for (size_t i = 0; i < reserved; ++i) bad = bad || header.reserved[i] != 0;
  if (bad) return access->Raise(kVectorGeneralProtection, 0);

  uint64_t loaded = requested & header.present;
  uint64_t in_use;
  memcpy(&in_use, area_.data() + kHeader, sizeof in_use);
  in_use = (in_use & ~requested) | loaded;
  auto get = [&](size_t from, size_t to, size_t size) {
    return access->ReadBytes(address + from, std::span(area_).subspan(to, size));
  };
  if ((requested & kX87) != 0) {
    memset(area_.data(), 0, kMxcsr);
    memset(area_.data() + kX87Registers, 0, kX87RegistersSize);
    memcpy(area_.data() + kControlWord, &kControlWordDefault, sizeof kControlWordDefault);
    if ((loaded & kX87) != 0 &&
        (!get(0, 0, kMxcsr) || !get(kX87Registers, kX87Registers, kX87RegistersSize))) {
      return false;
    }
  }
  // The standard format loads MXCSR with SSE or AVX, in use or not; the compacted one treats it as
  // a part of the SSE state (13.8.1, 13.8.2).
  uint32_t mxcsr = kMxcsrDefault;
  bool reads_mxcsr = compacted ? (loaded & kSse) != 0 : (requested & (kSse | kAvx)) != 0;
  if (reads_mxcsr) {
    if (!access->ReadBytes(address + kMxcsr, {reinterpret_cast<uint8_t*>(&mxcsr), sizeof mxcsr})) {
      return false;
    }
    uint32_t valid;
    memcpy(&valid, area_.data() + kMxcsr + 4, sizeof valid);
    if ((mxcsr & ~(valid != 0 ? valid : 0xffbf)) != 0) {
      return access->Raise(kVectorGeneralProtection, 0);
    }
  }
  if (reads_mxcsr || (compacted && (requested & kSse) != 0)) {
    memcpy(area_.data() + kMxcsr, &mxcsr, sizeof mxcsr);
  }
  if ((requested & kSse) != 0) {
    memset(area_.data() + kXmm, 0, kXmmSize);
    if ((loaded & kSse) != 0 && !get(kXmm, kXmm, kXmmSize)) return false;
  }
  for (int i = 2; i < 63; ++i) {
    if ((requested >> i & 1) == 0) continue;
    const auto& component = layout_.components[i];
    if (component.offset + static_cast<size_t>(component.size) > area_.size()) {
      return Errorf("XSAVE component %d lies outside KVM's area", i);
    }
    memset(area_.data() + component.offset, 0, component.size);
    size_t from = compacted ? layout_.CompactedOffset(in_area, i) : component.offset;
    if ((loaded >> i & 1) != 0 && !get(from, component.offset, component.size)) return false;
  }
  // KVM takes MXCSR only along with SSE or AVX state: keep one of them marked as in use.
  if (mxcsr != kMxcsrDefault && (in_use & (kSse | kAvx)) == 0) in_use |= kSse;
  memcpy(area_.data() + kHeader, &in_use, sizeof in_use);
  memset(area_.data() + kHeader + 8, 0, kHeaderSize - 8);
  CUBE_TRY(Put(vcpu));
  return true;
}

Result<bool> ExtendedState::LoadMxcsr(KvmVcpu* vcpu, OperandAccess* access,
                                      const Operand& operand) {
  auto value = access->Read(operand);
  if (!value) return false;
  CUBE_TRY(Fetch(vcpu));
  fetched_at_ = 0;  // what follows changes it
  uint32_t mxcsr = static_cast<uint32_t>(*value);
  uint32_t valid;
  memcpy(&valid, area_.data() + kMxcsr + 4, sizeof valid);
  if ((mxcsr & ~(valid != 0 ? valid : 0xffbf)) != 0) {
    return access->Raise(kVectorGeneralProtection, 0);
  }
  memcpy(area_.data() + kMxcsr, &mxcsr, sizeof mxcsr);
  area_[kHeader] |= kSse;
  CUBE_TRY(Put(vcpu));
  return true;
}

Result<bool> ExtendedState::StoreMxcsr(KvmVcpu* vcpu, OperandAccess* access,
                                       const Operand& operand) {
  CUBE_TRY(Fetch(vcpu));
  uint32_t mxcsr;
  memcpy(&mxcsr, area_.data() + kMxcsr, sizeof mxcsr);
  return access->Write(operand, mxcsr);
}

Status ExtendedState::InitX87(KvmVcpu* vcpu) {
  CUBE_TRY(Fetch(vcpu));
  fetched_at_ = 0;  // what follows changes it
  // FNINIT sets the words and empties the stack by its tags; the registers keep their content.
  memset(area_.data(), 0, kMxcsr);
  memcpy(area_.data() + kControlWord, &kControlWordDefault, sizeof kControlWordDefault);
  area_[kHeader] |= kX87;
  return Put(vcpu);
}

Status ExtendedState::ClearX87Exceptions(KvmVcpu* vcpu) {
  CUBE_TRY(Fetch(vcpu));
  fetched_at_ = 0;  // what follows changes it
  uint16_t status;
  memcpy(&status, area_.data() + kStatusWord, sizeof status);
  status &= 0x7f00;
  memcpy(area_.data() + kStatusWord, &status, sizeof status);
  static_assert(kTagWord == kStatusWord + 2);
  return Put(vcpu);
}

}  // namespace cube::vmm
