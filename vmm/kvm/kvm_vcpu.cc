#include "vmm/kvm/kvm_vcpu.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace cube::vmm {
namespace {

constexpr uint64_t kSyncWanted = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;

}  // namespace

KvmVcpu::KvmVcpu(uint32_t id, UniqueFd fd, Mapping run, size_t xsave_size, uint64_t sync_supported)
    : id_(id),
      fd_(std::move(fd)),
      run_(std::move(run)),
      xsave_size_(xsave_size),
      sync_supported_(sync_supported) {}

void KvmVcpu::SyncRegisters(bool on) {
  sync_ = on && (sync_supported_ & kSyncWanted) == kSyncWanted;
  run()->kvm_valid_regs = sync_ ? kSyncWanted : 0;
}

Status KvmVcpu::Run() {
  CUBE_TRY(PassRegisters());
  have_regs_ = have_sregs_ = false;
  ++runs_;
  if (!next_keeps_control_registers_) ++ring0_runs_;
  next_keeps_control_registers_ = false;
  if (ioctl(fd_.get(), KVM_RUN, 0) < 0) {
    if (errno != EINTR && errno != EAGAIN) return ErrnoError("KVM_RUN of vCPU %u", id_);
    run()->exit_reason = KVM_EXIT_INTR;
    return OkStatus();
  }
  if (sync_) {
    regs_ = run()->s.regs.regs;
    sregs_ = run()->s.regs.sregs;
    have_regs_ = have_sregs_ = true;
  }
  return OkStatus();
}

Status KvmVcpu::FinishExit() {
  RequestExit();
  Status run = Run();
  ClearExitRequest();
  return run;
}

Result<const kvm_regs*> KvmVcpu::regs() {
  if (!have_regs_) {
    if (ioctl(fd_.get(), KVM_GET_REGS, &regs_) < 0) return ErrnoError("KVM_GET_REGS");
    have_regs_ = true;
  }
  return &regs_;
}

Result<const kvm_sregs*> KvmVcpu::sregs() {
  if (!have_sregs_) {
    if (ioctl(fd_.get(), KVM_GET_SREGS, &sregs_) < 0) return ErrnoError("KVM_GET_SREGS");
    have_sregs_ = true;
  }
  return &sregs_;
}

Result<kvm_regs*> KvmVcpu::mutable_regs() {
  CUBE_TRY(regs());
  dirty_regs_ = true;
  return &regs_;
}

Result<kvm_sregs*> KvmVcpu::mutable_sregs() {
  CUBE_TRY(sregs());
  dirty_sregs_ = true;
  return &sregs_;
}

// KVM queues what the bitmap says, and reads as queued what it has delivered since and not looked
// at again: written back, the guest would have it twice. What waits is SetEvents()' to say.
void KvmVcpu::ForgetQueuedInterrupt() {
  memset(sregs_.interrupt_bitmap, 0, sizeof sregs_.interrupt_bitmap);
}

Status KvmVcpu::PassRegisters() {
  // KVM takes the two sets apart, so each may go by the shared area on its own.
  if (!sync_) return FlushRegistersNow();
  if (dirty_regs_) {
    run()->s.regs.regs = regs_;
    run()->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
  }
  if (dirty_sregs_) {
    ForgetQueuedInterrupt();
    run()->s.regs.sregs = sregs_;
    run()->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
  }
  dirty_regs_ = dirty_sregs_ = false;
  return OkStatus();
}

Status KvmVcpu::FlushRegistersNow() {
  if (dirty_sregs_) ForgetQueuedInterrupt();
  if (dirty_sregs_ && ioctl(fd_.get(), KVM_SET_SREGS, &sregs_) < 0) {
    return ErrnoError("KVM_SET_SREGS");
  }
  if (dirty_regs_ && ioctl(fd_.get(), KVM_SET_REGS, &regs_) < 0) return ErrnoError("KVM_SET_REGS");
  dirty_regs_ = dirty_sregs_ = false;
  return OkStatus();
}

Status KvmVcpu::SetCpuid(std::span<const kvm_cpuid_entry2> entries) {
  std::vector<uint8_t> buffer(sizeof(kvm_cpuid2) + entries.size_bytes());
  auto* cpuid = reinterpret_cast<kvm_cpuid2*>(buffer.data());
  cpuid->nent = static_cast<uint32_t>(entries.size());
  memcpy(cpuid->entries, entries.data(), entries.size_bytes());
  if (ioctl(fd_.get(), KVM_SET_CPUID2, cpuid) < 0) {
    return ErrnoError("KVM_SET_CPUID2 with %zu entries", entries.size());
  }
  return OkStatus();
}

Status KvmVcpu::SetMsrs(std::span<const kvm_msr_entry> entries) {
  std::vector<uint8_t> buffer(sizeof(kvm_msrs) + entries.size_bytes());
  auto* msrs = reinterpret_cast<kvm_msrs*>(buffer.data());
  msrs->nmsrs = static_cast<uint32_t>(entries.size());
  memcpy(msrs->entries, entries.data(), entries.size_bytes());
  int done = ioctl(fd_.get(), KVM_SET_MSRS, msrs);
  if (done < 0) return ErrnoError("KVM_SET_MSRS");
  if (static_cast<size_t>(done) < entries.size()) {
    const kvm_msr_entry& refused = entries[static_cast<size_t>(done)];
    return Errorf("KVM refuses %#llx for MSR %#x", refused.data, refused.index);
  }
  return OkStatus();
}

Result<std::vector<kvm_msr_entry>> KvmVcpu::GetMsrs(std::span<const uint32_t> indices) {
  std::vector<uint8_t> buffer(sizeof(kvm_msrs) + indices.size() * sizeof(kvm_msr_entry));
  auto* msrs = reinterpret_cast<kvm_msrs*>(buffer.data());
  msrs->nmsrs = static_cast<uint32_t>(indices.size());
  for (size_t i = 0; i < indices.size(); ++i) msrs->entries[i].index = indices[i];
  int done = ioctl(fd_.get(), KVM_GET_MSRS, msrs);
  if (done < 0) return ErrnoError("KVM_GET_MSRS");
  if (static_cast<size_t>(done) < indices.size()) {
    return Errorf("KVM cannot read MSR %#x", indices[static_cast<size_t>(done)]);
  }
  return std::vector<kvm_msr_entry>(msrs->entries, msrs->entries + indices.size());
}

Status KvmVcpu::GetXsave(std::span<uint8_t> area) {
  if (area.size() < xsave_size_) return Errorf("XSAVE area of %zu bytes is too small", area.size());
  unsigned long request = xsave_size_ > sizeof(kvm_xsave) ? KVM_GET_XSAVE2 : KVM_GET_XSAVE;
  if (ioctl(fd_.get(), request, area.data()) < 0) return ErrnoError("KVM_GET_XSAVE");
  return OkStatus();
}

Status KvmVcpu::SetXsave(std::span<const uint8_t> area) {
  if (area.size() < xsave_size_) return Errorf("XSAVE area of %zu bytes is too small", area.size());
  if (ioctl(fd_.get(), KVM_SET_XSAVE, area.data()) < 0) return ErrnoError("KVM_SET_XSAVE");
  return OkStatus();
}

#define CUBE_KVM_GET(Name, type, request)                              \
  Result<type> KvmVcpu::Get##Name() {                                  \
    type value = {};                                                   \
    if (ioctl(fd_.get(), request, &value) < 0) return ErrnoError(#request); \
    return value;                                                      \
  }
#define CUBE_KVM_SET(Name, type, request)                              \
  Status KvmVcpu::Set##Name(const type& value) {                       \
    if (ioctl(fd_.get(), request, &value) < 0) return ErrnoError(#request); \
    return OkStatus();                                                 \
  }
CUBE_KVM_GET(Events, kvm_vcpu_events, KVM_GET_VCPU_EVENTS)
CUBE_KVM_SET(Events, kvm_vcpu_events, KVM_SET_VCPU_EVENTS)
CUBE_KVM_GET(Xcrs, kvm_xcrs, KVM_GET_XCRS)
CUBE_KVM_SET(Xcrs, kvm_xcrs, KVM_SET_XCRS)
CUBE_KVM_SET(GuestDebug, kvm_guest_debug, KVM_SET_GUEST_DEBUG)
CUBE_KVM_GET(Lapic, kvm_lapic_state, KVM_GET_LAPIC)
CUBE_KVM_SET(Lapic, kvm_lapic_state, KVM_SET_LAPIC)
CUBE_KVM_GET(Debugregs, kvm_debugregs, KVM_GET_DEBUGREGS)
CUBE_KVM_SET(Debugregs, kvm_debugregs, KVM_SET_DEBUGREGS)
CUBE_KVM_GET(MpState, kvm_mp_state, KVM_GET_MP_STATE)
CUBE_KVM_SET(MpState, kvm_mp_state, KVM_SET_MP_STATE)
#undef CUBE_KVM_GET
#undef CUBE_KVM_SET

Result<uint64_t> KvmVcpu::TscOffset() const {
  uint64_t offset = 0;
  kvm_device_attr attribute = {};
  attribute.group = KVM_VCPU_TSC_CTRL;
  attribute.attr = KVM_VCPU_TSC_OFFSET;
  attribute.addr = reinterpret_cast<uint64_t>(&offset);
  if (ioctl(fd_.get(), KVM_GET_DEVICE_ATTR, &attribute) < 0) {
    return ErrnoError("KVM_VCPU_TSC_OFFSET");
  }
  return offset;
}

Status KvmVcpu::SetTscOffset(uint64_t offset) {
  kvm_device_attr attribute = {};
  attribute.group = KVM_VCPU_TSC_CTRL;
  attribute.attr = KVM_VCPU_TSC_OFFSET;
  attribute.addr = reinterpret_cast<uint64_t>(&offset);
  if (ioctl(fd_.get(), KVM_SET_DEVICE_ATTR, &attribute) < 0) {
    return ErrnoError("setting KVM_VCPU_TSC_OFFSET");
  }
  return OkStatus();
}

uint64_t KvmVcpu::TscKhz() const {
  int khz = ioctl(fd_.get(), KVM_GET_TSC_KHZ, 0);
  return khz < 0 ? 0 : static_cast<uint64_t>(khz);
}

uint64_t KvmStatistic::Read() const {
  uint64_t value = 0;
  if (!fd_.valid()) return 0;
  ssize_t size = pread(fd_.get(), &value, sizeof value, static_cast<off_t>(offset_));
  return size == sizeof value ? value : 0;
}

KvmStatistic KvmVcpu::OpenStatistic(const char* name) const {
  UniqueFd stats(ioctl(fd_.get(), KVM_GET_STATS_FD, 0));
  kvm_stats_header header = {};
  if (!stats.valid() || pread(stats.get(), &header, sizeof header, 0) != sizeof header) return {};
  if (header.name_size > 256 || header.num_desc > 1024) return {};
  size_t stride = sizeof(kvm_stats_desc) + header.name_size;
  std::vector<char> descriptors(header.num_desc * stride);
  if (pread(stats.get(), descriptors.data(), descriptors.size(), off_t{header.desc_offset}) !=
      static_cast<ssize_t>(descriptors.size())) {
    return {};
  }
  for (uint32_t i = 0; i < header.num_desc; ++i) {
    const auto* desc = reinterpret_cast<const kvm_stats_desc*>(&descriptors[i * stride]);
    if (strncmp(desc->name, name, header.name_size) != 0) continue;
    return {std::move(stats), uint64_t{header.data_offset} + desc->offset};
  }
  return {};
}

}  // namespace cube::vmm
