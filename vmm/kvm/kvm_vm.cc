#include "vmm/kvm/kvm_vm.h"

#include <sys/ioctl.h>
#include <sys/mman.h>

#include <cerrno>
#include <iterator>

#include "vmm/memory_map.h"

namespace cube::vmm {

int KvmVm::CheckExtension(int capability) const {
  int value = ioctl(fd_.get(), KVM_CHECK_EXTENSION, capability);
  return value < 0 ? 0 : value;
}

Status KvmVm::SetTssAndIdentityMap() const {
  if (ioctl(fd_.get(), KVM_SET_TSS_ADDR, kKvmTssAddress) < 0) return ErrnoError("KVM_SET_TSS_ADDR");
  uint64_t identity_map = kKvmIdentityMapAddress;
  if (ioctl(fd_.get(), KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0) {
    return ErrnoError("KVM_SET_IDENTITY_MAP_ADDR");
  }
  return OkStatus();
}

Status KvmVm::CreateIrqchip() const {
  if (ioctl(fd_.get(), KVM_CREATE_IRQCHIP, 0) < 0) return ErrnoError("KVM_CREATE_IRQCHIP");
  return OkStatus();
}

Status KvmVm::CreatePit() const {
  kvm_pit_config config = {};
  config.flags = KVM_PIT_SPEAKER_DUMMY;
  if (ioctl(fd_.get(), KVM_CREATE_PIT2, &config) < 0) return ErrnoError("KVM_CREATE_PIT2");
  return OkStatus();
}

Status KvmVm::SetMemorySlot(uint32_t slot, uint64_t guest_address, std::span<uint8_t> host) const {
  kvm_userspace_memory_region region = {};
  region.slot = slot;
  region.guest_phys_addr = guest_address;
  region.memory_size = host.size();
  region.userspace_addr = reinterpret_cast<uint64_t>(host.data());
  if (ioctl(fd_.get(), KVM_SET_USER_MEMORY_REGION, &region) < 0) {
    return ErrnoError("memory slot %u at %#llx of %zu bytes", slot,
                      static_cast<unsigned long long>(guest_address), host.size());
  }
  return OkStatus();
}

Status KvmVm::AssignIrqfd(int eventfd, uint32_t gsi) const {
  kvm_irqfd irqfd = {};
  irqfd.fd = static_cast<uint32_t>(eventfd);
  irqfd.gsi = gsi;
  if (ioctl(fd_.get(), KVM_IRQFD, &irqfd) < 0) return ErrnoError("KVM_IRQFD for GSI %u", gsi);
  return OkStatus();
}

Status KvmVm::AssignIoeventfd(int eventfd, uint64_t address, uint32_t value) const {
  kvm_ioeventfd ioeventfd = {};
  ioeventfd.datamatch = value;
  ioeventfd.addr = address;
  ioeventfd.len = sizeof value;
  ioeventfd.fd = eventfd;
  ioeventfd.flags = KVM_IOEVENTFD_FLAG_DATAMATCH;
  if (ioctl(fd_.get(), KVM_IOEVENTFD, &ioeventfd) < 0) {
    return ErrnoError("KVM_IOEVENTFD at %#llx", static_cast<unsigned long long>(address));
  }
  return OkStatus();
}

Status KvmVm::PulseIrq(uint32_t gsi) const {
  for (uint32_t level : {1u, 0u}) {
    kvm_irq_level line = {};
    line.irq = gsi;
    line.level = level;
    if (ioctl(fd_.get(), KVM_IRQ_LINE, &line) < 0) return ErrnoError("KVM_IRQ_LINE of GSI %u", gsi);
  }
  return OkStatus();
}

Status KvmVm::FilterMsrs(std::span<const uint32_t> exiting) const {
  kvm_enable_cap cap = {};
  cap.cap = KVM_CAP_X86_USER_SPACE_MSR;
  cap.args[0] = KVM_MSR_EXIT_REASON_FILTER;
  if (ioctl(fd_.get(), KVM_ENABLE_CAP, &cap) < 0) return ErrnoError("KVM_CAP_X86_USER_SPACE_MSR");
  kvm_msr_filter filter = {};
  filter.flags = KVM_MSR_FILTER_DEFAULT_ALLOW;
  if (exiting.size() > std::size(filter.ranges)) {
    return Errorf("%zu MSRs are more than a filter takes", exiting.size());
  }
  uint8_t denied = 0;  // the one bit of each range
  for (size_t i = 0; i < exiting.size(); ++i) {
    filter.ranges[i].flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE;
    filter.ranges[i].base = exiting[i];
    filter.ranges[i].nmsrs = 1;
    filter.ranges[i].bitmap = &denied;
  }
  if (ioctl(fd_.get(), KVM_X86_SET_MSR_FILTER, &filter) < 0) {
    return ErrnoError("KVM_X86_SET_MSR_FILTER");
  }
  return OkStatus();
}

Status KvmVm::GetIrqchip(kvm_irqchip* chip) const {
  if (ioctl(fd_.get(), KVM_GET_IRQCHIP, chip) < 0) return ErrnoError("KVM_GET_IRQCHIP");
  return OkStatus();
}

Status KvmVm::SetIrqchip(const kvm_irqchip& chip) const {
  if (ioctl(fd_.get(), KVM_SET_IRQCHIP, &chip) < 0) return ErrnoError("KVM_SET_IRQCHIP");
  return OkStatus();
}

Result<kvm_pit_state2> KvmVm::GetPit() const {
  kvm_pit_state2 state = {};
  if (ioctl(fd_.get(), KVM_GET_PIT2, &state) < 0) return ErrnoError("KVM_GET_PIT2");
  return state;
}

Status KvmVm::SetPit(const kvm_pit_state2& state) const {
  if (ioctl(fd_.get(), KVM_SET_PIT2, &state) < 0) return ErrnoError("KVM_SET_PIT2");
  return OkStatus();
}

Result<uint64_t> KvmVm::GetClock() const {
  kvm_clock_data data = {};
  if (ioctl(fd_.get(), KVM_GET_CLOCK, &data) < 0) return ErrnoError("KVM_GET_CLOCK");
  return data.clock;
}

Status KvmVm::SetClock(uint64_t nanoseconds) const {
  kvm_clock_data data = {};
  data.clock = nanoseconds;
  if (ioctl(fd_.get(), KVM_SET_CLOCK, &data) < 0) return ErrnoError("KVM_SET_CLOCK");
  return OkStatus();
}

Result<KvmVcpu> KvmVm::CreateVcpu(uint32_t id) const {
  int fd = ioctl(fd_.get(), KVM_CREATE_VCPU, static_cast<unsigned long>(id));
  if (fd < 0) return ErrnoError("KVM_CREATE_VCPU %u", id);
  UniqueFd vcpu(fd);
  CUBE_ASSIGN(Mapping run, Mapping::Map(static_cast<size_t>(vcpu_mmap_size_), PROT_READ | PROT_WRITE,
                                        MAP_SHARED, vcpu.get(), 0, "the vCPU's run area"));
  // A child of a fork would keep the vCPU, and so the VM, alive by it.
  if (madvise(run.data(), run.size(), MADV_DONTFORK) < 0) {
    return ErrnoError("keeping the vCPU's run area from children");
  }
  int xsave_size = CheckExtension(KVM_CAP_XSAVE2);
  int sync = CheckExtension(KVM_CAP_SYNC_REGS);
  return KvmVcpu(id, std::move(vcpu), std::move(run),
                 static_cast<size_t>(xsave_size > 4096 ? xsave_size : 4096),
                 static_cast<uint64_t>(sync));
}

}  // namespace cube::vmm
