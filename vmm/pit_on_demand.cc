#include "vmm/pit_on_demand.h"

namespace cube::vmm {
namespace {

// Counters and control of the 8254, and the port that gates its third counter.
constexpr uint16_t kFirstPort = 0x40, kLastPort = 0x43, kGatePort = 0x61;
// Where the timer's interrupt arrives: pin 0 of the first PIC, pins 0 and 2 of the I/O APIC, of
// which the MP table names the first or, as KVM routes it, the second.
constexpr uint32_t kFirstPic = KVM_IRQCHIP_PIC_MASTER, kIoApic = KVM_IRQCHIP_IOAPIC;
// Modes 2 and 3 begin anew by themselves; they may be written as 6 and 7 (8254 data sheet).
constexpr uint8_t kRepeating = 2;

}  // namespace

bool PitOnDemand::IsIdle(const VmState& state) {
  bool heard = (state.chips[kFirstPic].chip.pic.imr & 1) == 0;
  for (int pin : {0, 2}) heard |= state.chips[kIoApic].chip.ioapic.redirtbl[pin].fields.mask == 0;
  return !heard && (state.pit.channels[0].mode & kRepeating) == 0;
}

Status PitOnDemand::OnPort(const KvmVm& vm, uint16_t port) {
  bool own = (port >= kFirstPort && port <= kLastPort) || port == kGatePort;
  return own ? Make(vm) : OkStatus();
}

Status PitOnDemand::Make(const KvmVm& vm) {
  if (!deferred_) return OkStatus();
  CUBE_TRY(vm.CreatePit());
  CUBE_TRY(vm.SetPit(*deferred_));
  deferred_.reset();
  return OkStatus();
}

}  // namespace cube::vmm
