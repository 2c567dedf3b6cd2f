#include "vmm/assist/boot_ticks.h"

#include "vmm/segments.h"

namespace cube::vmm {

Result<uint64_t> BootTicks::Deadline(KvmVcpu* vcpu, uint64_t deadline) const {
  if (booted_ == nullptr || booted_->load(std::memory_order_relaxed)) return deadline;
  const uint32_t index = kMsrTsc;
  CUBE_ASSIGN(std::vector<kvm_msr_entry> tsc, vcpu->GetMsrs({&index, 1}));
  return Postpone(deadline, tsc[0].data, vcpu->TscKhz());
}

uint64_t BootTicks::Postpone(uint64_t deadline, uint64_t now, uint64_t tsc_khz) {
  // Zero disarms the timer (SDM volume 3, 11.5.4.1). An unknown frequency is zero as well.
  if (deadline == 0 || tsc_khz == 0 || deadline > now + kTickMs * tsc_khz) return deadline;
  return now + kPauseMs * tsc_khz;
}

}  // namespace cube::vmm
