#include "vmm/machine.h"

#include <sys/mman.h>
#include <sys/random.h>
#include <x86intrin.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/monotonic.h"
#include "vmm/cpuid.h"
#include "vmm/loader/boot_params.h"
#include "vmm/loader/initrd_loader.h"
#include "vmm/loader/kernel_loader.h"
#include "vmm/loader/mp_table.h"
#include "vmm/memory_map.h"
#include "vmm/segments.h"

namespace cube::vmm {
namespace {

// Beyond those of memory.
constexpr uint32_t kStubSlot = 100;
constexpr uint32_t kScratchSlot = 101;
constexpr uint32_t kFirstRamSlot = 200;

constexpr uint64_t kSerialPort = 0x3f8;
constexpr uint32_t kSerialGsi = 4;

// reboot=k: through the reset port, which tells a restart from a triple fault. panic=-1: restart
// at once, so that a panic ends the VM. noreplace-smp: thousands of lock prefixes stay unpatched;
// percpu_alloc=page: no 2 MiB area to clear.
constexpr const char* kKernelArguments =
    "console=ttyS0 quiet reboot=k panic=-1 tsc=reliable noreplace-smp percpu_alloc=page";

// No bounce buffer: there is no device that needs one, yet Linux makes one of 64 MiB if it has
// memory above 4 GiB.
constexpr const char* kHighMemoryArguments = " swiotlb=noforce";

CpuidOptions CpuidOptionsOf(const Kvm& kvm, const MachineConfig& config, uint32_t id) {
  return {.vcpu_id = id,
          .vcpu_count = config.cpus,
          .tsc_deadline_timer = kvm.CheckExtension(KVM_CAP_TSC_DEADLINE_TIMER) != 0,
          .hide_hypercalls = config.ring0 != Ring0Mode::kNative};
}

uint64_t VirtioAddress(uint32_t index) { return kVirtioMmioStart + index * kVirtioMmioSize; }

}  // namespace

Machine::Machine(KvmVm vm, GuestMemory memory, MachineEvents events)
    : vm_(std::move(vm)), memory_(std::move(memory)), events_(std::move(events)) {}

Machine::~Machine() { Stop(); }

Result<std::unique_ptr<Machine>> Machine::Create(const Kvm& kvm, const MachineConfig& config,
                                                 std::vector<NamedDevice> devices, EventLoop* loop,
                                                 MachineEvents events) {
  CUBE_ASSIGN(GuestMemory memory, GuestMemory::Create(config.memory));
  ControlDevice::InitMailbox(memory.mailbox());
  size_t virtio_devices = devices.size();
  CUBE_ASSIGN(std::unique_ptr<Machine> machine,
              Build(kvm, config, std::move(memory), std::move(devices), loop, std::move(events),
                    nullptr, std::nullopt));
  CUBE_TRY(machine->vm_.CreatePit());
  CUBE_TRY(machine->LoadGuest(config, virtio_devices));
  CUBE_TRY(machine->AddVcpus(kvm, config));
  return machine;
}

Result<std::unique_ptr<Machine>> Machine::Restore(const Kvm& kvm, const MachineConfig& config,
                                                  GuestMemory memory, const MachineState& state,
                                                  std::vector<NamedDevice> devices, EventLoop* loop,
                                                  MachineEvents events,
                                                  std::optional<ring0::Ring0Caches> caches) {
  if (state.vcpus.size() != config.cpus || state.devices.size() != devices.size()) {
    return Errorf("saved with %zu vCPUs and %zu devices, to be restored with %u and %zu",
                  state.vcpus.size(), state.devices.size(), config.cpus, devices.size());
  }
  CUBE_ASSIGN(std::unique_ptr<Machine> machine,
              Build(kvm, config, std::move(memory), std::move(devices), loop, std::move(events),
                    &state, std::move(caches)));
  CUBE_TRY(machine->RestoreVcpus(kvm, config, state));
  machine->marks_.vcpus = MonotonicNow();
  CUBE_TRY(machine->RestoreDevices(state));
  // The vCPUs' local APICs are there by now, to which the I/O APIC's interrupts go.
  CUBE_TRY(machine->RestoreVm(state.vm));
  // Last: what a device has to say would be lost when the interrupt controllers get their state.
  machine->Resume();
  machine->clocks_ = Clocks{state.vm, state.vcpus};
  machine->marks_.state = MonotonicNow();
  return machine;
}

Result<std::unique_ptr<Machine>> Machine::Build(const Kvm& kvm, const MachineConfig& config,
                                                GuestMemory memory,
                                                std::vector<NamedDevice> devices, EventLoop* loop,
                                                MachineEvents events, const MachineState* state,
                                                std::optional<ring0::Ring0Caches> caches) {
  if (config.cpus < 1 || config.cpus > kMaxCpus) {
    return Errorf("%u vCPUs are not between 1 and %u", config.cpus, kMaxCpus);
  }
  Marks marks;
  marks.begun = MonotonicNow();
  CUBE_ASSIGN(KvmVm vm, kvm.CreateVm());
  std::unique_ptr<Machine> machine(
      new Machine(std::move(vm), std::move(memory), std::move(events)));
  machine->config_ = config;
  if (config.ring0 != Ring0Mode::kNative) {
    CUBE_ASSIGN(machine->scratch_,
                Mapping::Map(kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0,
                             "a scratch page"));
  }
  CUBE_TRY(machine->vm_.SetTssAndIdentityMap());
  marks.vm = MonotonicNow();
  // Memory first: KVM waits for its readers (synchronize_srcu) at each slot, which takes no time in a
  // VM that has just been made, and milliseconds once the interrupt controllers have put their devices
  // on KVM's buses, since what they replaced there waits for the same grace period unhurried.
  CUBE_TRY(machine->MakeMemorySlots(
      state, caches ? std::span<const uint32_t>(caches->ram_pieces) : std::span<const uint32_t>()));
  if (config.ring0 == Ring0Mode::kEngine) {
    CUBE_ASSIGN(machine->ring0_,
                ring0::Ring0Shared::Create(machine->vm_, machine->memory_, &machine->ports_,
                                           &machine->mmio_, kStubSlot, std::move(caches)));
    machine->ring0_->slots = machine->ram_slots_.get();
    machine->ring0_->tables.SetSlots(machine->ram_slots_.get());
  }
  marks.memory = MonotonicNow();
  CUBE_TRY(machine->vm_.CreateIrqchip());
  CUBE_TRY(machine->AddDevices());
  // The engine's guests never execute a store to a device in KVM.
  CUBE_TRY(machine->AddVirtioDevices(std::move(devices), loop, config.ring0 != Ring0Mode::kEngine));
  if (config.ring0 == Ring0Mode::kEmulator) CUBE_TRY(Ring0Assist::PrepareVm(machine->vm_));
  marks.devices = MonotonicNow();
  machine->marks_ = marks;
  return machine;
}

Status Machine::MakeMemorySlots(const MachineState* state, std::span<const uint32_t> pieces) {
  bool lazy = state != nullptr && config_.ring0 == Ring0Mode::kEngine;
  uint32_t slot = 0;
  for (const MemoryRegion& region : memory_.regions()) {
    if (!lazy || !region.ram) CUBE_TRY(vm_.SetMemorySlot(slot, region.guest_address, region.host));
    ++slot;
  }
  if (!lazy) return OkStatus();
  ram_slots_ = std::make_unique<ring0::RamSlots>(vm_, memory_, kFirstRamSlot);
  ram_slots_->EnsurePieces(pieces);
  for (const VcpuState& vcpu : state->vcpus) ram_slots_->EnsureFor(vcpu);
  return ram_slots_->status();
}

Result<IrqLine> Machine::NewIrqLine(uint32_t gsi) {
  CUBE_ASSIGN(IrqLine line, IrqLine::Create());
  CUBE_TRY(vm_.AssignIrqfd(line.eventfd(), gsi));
  if (ring0_ != nullptr) line.ConnectTo(ring0_.get(), gsi);
  return line;
}

Status Machine::AddDevices() {
  CUBE_ASSIGN(IrqLine serial_irq, NewIrqLine(kSerialGsi));
  serial_ = std::make_unique<devices::Serial>(std::move(serial_irq), events_.console);
  CUBE_TRY(ports_.Attach(kSerialPort, devices::Serial::kSize, serial_.get()));
  i8042_ = std::make_unique<devices::I8042>([this] {
    ReportStop({StopReason::Kind::kReset, 0, "the guest restarted", ""});
  });
  CUBE_TRY(ports_.Attach(devices::I8042::kFirstPort, devices::I8042::kSize, i8042_.get()));
  control_ =
      std::make_unique<ControlDevice>(ControlDevice::Callbacks{events_.command, events_.notify});
  return mmio_.Attach(abi::kDoorbellAddress, abi::kDoorbellSize, control_.get());
}

Status Machine::AddVirtioDevices(std::vector<NamedDevice> devices, EventLoop* loop,
                                 bool ioeventfds) {
  using ::cube::devices::virtio::MmioTransport;
  if (devices.size() > kVirtioMaxDevices) {
    return Errorf("%zu virtio devices, at most %u are possible", devices.size(), kVirtioMaxDevices);
  }
  for (NamedDevice& device : devices) {
    auto index = static_cast<uint32_t>(virtio_.size());
    CUBE_ASSIGN(IrqLine irq, NewIrqLine(kVirtioFirstGsi + index));
    CUBE_ASSIGN(std::unique_ptr<MmioTransport> transport,
                MmioTransport::Create(std::move(device.name), std::move(device.device), &memory_,
                                      loop, std::move(irq)));
    uint64_t address = VirtioAddress(index);
    for (uint32_t queue = 0; ioeventfds && queue < transport->queue_count(); ++queue) {
      CUBE_TRY(vm_.AssignIoeventfd(transport->kick_fd(queue),
                                   address + ::cube::devices::virtio::kMmioQueueNotify, queue));
    }
    CUBE_TRY(mmio_.Attach(address, kVirtioMmioSize, transport.get()));
    virtio_.push_back(std::move(transport));
  }
  return OkStatus();
}

Status Machine::LoadGuest(const MachineConfig& config, size_t virtio_devices) {
  CUBE_ASSIGN(LoadedKernel kernel, LoadKernel(config.kernel, memory_));
  std::optional<Initrd> initrd;
  if (!config.initrd.empty()) {
    CUBE_ASSIGN(initrd, LoadInitrd(config.initrd, memory_, kernel));
  }
  command_line_ = kKernelArguments;
  if (config.memory > kHoleStart) command_line_ += kHighMemoryArguments;
  if (config.ring0 != Ring0Mode::kNative)
    command_line_ += std::string(" ") + Ring0Assist::kKernelArguments;
  for (uint32_t i = 0; i < virtio_devices; ++i) {
    command_line_ += Format(" virtio_mmio.device=4K@%#llx:%u",
                            static_cast<unsigned long long>(VirtioAddress(i)), kVirtioFirstGsi + i);
  }
  if (!config.append.empty()) command_line_ += " " + config.append;
  std::array<uint8_t, kRngSeedSize> seed;
  if (getrandom(seed.data(), seed.size(), 0) != static_cast<ssize_t>(seed.size())) {
    return ErrnoError("getrandom");
  }
  CUBE_TRY(WriteBootParams({command_line_, initrd, seed}, kernel, memory_));
  CUBE_TRY(WriteMpTable(config.cpus, memory_));
  CUBE_ASSIGN(boot_state_, WriteBootState(kernel.entry, memory_));
  return OkStatus();
}

Status Machine::AddVcpus(const Kvm& kvm, const MachineConfig& config) {
  CUBE_ASSIGN(std::vector<kvm_cpuid_entry2> supported, kvm.SupportedCpuid());
  for (uint32_t id = 0; id < config.cpus; ++id) {
    CUBE_ASSIGN(KvmVcpu vcpu, vm_.CreateVcpu(id));
    auto cpuid = ShapeCpuid(supported, CpuidOptionsOf(kvm, config, id));
    CUBE_TRY(vcpu.SetCpuid(cpuid));
    // Fast string operations on, and all memory write-back by default: what firmware would leave.
    const kvm_msr_entry msrs[] = {{kMsrMiscEnable, 0, 1}, {kMsrMtrrDefaultType, 0, 0x806}};
    CUBE_TRY(vcpu.SetMsrs(msrs));
    // The others wait for INIT and SIPI, as KVM makes them.
    if (id == 0) CUBE_TRY(SetBootRegisters(&vcpu));
    AdoptVcpu(std::move(vcpu), cpuid, config);
  }
  return OkStatus();
}

void Machine::AdoptVcpu(KvmVcpu vcpu, std::span<const kvm_cpuid_entry2> cpuid,
                        const MachineConfig& config) {
  Vcpu::Ring0 ring0;
  if (config.ring0 == Ring0Mode::kEmulator) {
    ring0.assist = std::make_unique<Ring0Assist>(memory_, cpuid, &booted_);
  } else if (config.ring0 == Ring0Mode::kEngine) {
    ring0.engine = std::make_unique<ring0::Ring0Engine>(ring0_.get(), vcpu.id(),
                                                        XsaveLayout::FromCpuid(cpuid));
  }
  vcpus_.push_back(std::make_unique<Vcpu>(
      std::move(vcpu), std::move(ring0),
      Vcpu::Environment{&ports_, &mmio_, &memory_, config.system_map,
                        [this](StopReason reason) { ReportStop(std::move(reason)); },
                        PhysicalAddressBits(cpuid), config.cpus > 1}));
  cpuid_.emplace_back(cpuid.begin(), cpuid.end());
}

Status Machine::RestoreVcpus(const Kvm& kvm, const MachineConfig& config,
                             const MachineState& state) {
  CUBE_ASSIGN(std::vector<kvm_cpuid_entry2> supported, kvm.SupportedCpuid());
  for (uint32_t id = 0; id < config.cpus; ++id) {
    const VcpuState& saved = state.vcpus[id];
    CUBE_TRY(CheckCpuid(saved.cpuid, ShapeCpuid(supported, CpuidOptionsOf(kvm, config, id))));
    CUBE_ASSIGN(KvmVcpu vcpu, vm_.CreateVcpu(id));
    Status applied = saved.Apply(&vcpu);
    if (!applied.ok()) return Error(applied.error()).Wrap(Format("vCPU %u", id));
    AdoptVcpu(std::move(vcpu), saved.cpuid, config);
    CUBE_TRY(vcpus_.back()->Adopt());
  }
  return OkStatus();
}

Status Machine::RestoreDevices(const MachineState& state) {
  StateReader serial(state.serial, "the serial port's state");
  CUBE_TRY(serial_->Load(&serial));
  CUBE_TRY(serial.End());
  for (size_t i = 0; i < virtio_.size(); ++i) {
    StateReader reader(state.devices[i], virtio_[i]->name() + "'s state");
    CUBE_TRY(virtio_[i]->Restore(&reader));
    CUBE_TRY(reader.End());
  }
  return OkStatus();
}

Result<MachineState> Machine::Save(const Kvm& kvm) {
  MachineState state;
  Quiesce();
  for (auto& device : virtio_) {
    StateWriter writer;
    CUBE_TRY(device->Save(&writer));
    state.devices.push_back(writer.Take());
  }
  StateWriter serial;
  serial_->Save(&serial);
  state.serial = serial.Take();
  CUBE_ASSIGN(std::vector<uint32_t> msrs, kvm.MsrIndices());
  for (size_t i = 0; i < vcpus_.size(); ++i) {
    auto saved = VcpuState::Capture(&vcpus_[i]->kvm(), msrs, cpuid_[i]);
    if (!saved.ok()) return Error(saved.error()).Wrap(Format("vCPU %zu", i));
    state.vcpus.push_back(std::move(*saved));
  }
  CUBE_ASSIGN(state.vm, VmState::Capture(vm_, pit_.deferred()));
  return state;
}

Status Machine::Reload(const MachineState& state) {
  if (state.vcpus.size() != vcpus_.size() || state.devices.size() != virtio_.size()) {
    return Errorf("saved with %zu vCPUs and %zu devices, this machine has %zu and %zu",
                  state.vcpus.size(), state.devices.size(), vcpus_.size(), virtio_.size());
  }
  for (auto& device : virtio_) device->Reset();
  for (size_t id = 0; id < vcpus_.size(); ++id) {
    const auto& saved = state.vcpus[id].cpuid;
    if (saved.size() != cpuid_[id].size() ||
        memcmp(saved.data(), cpuid_[id].data(), saved.size() * sizeof saved[0]) != 0) {
      return Errorf("vCPU %zu has another CPUID than the one that was saved", id);
    }
  }
  // The engines and what they know go; the vCPUs themselves stay.
  std::vector<KvmVcpu> kept;
  for (auto& vcpu : vcpus_) kept.push_back(vcpu->Release());
  vcpus_.clear();
  cpuid_.clear();
  if (ring0_ != nullptr) ring0_->Forget();
  if (scratch_.size() != 0) {
    // KVM shadows page tables that have changed without its seeing it. That a memory slot goes
    // makes it forget all of them (kvm_arch_flush_shadow_memslot).
    CUBE_TRY(vm_.SetMemorySlot(kScratchSlot, kScratchAddress, scratch_.span()));
    CUBE_TRY(vm_.SetMemorySlot(kScratchSlot, kScratchAddress, {}));
  }
  for (uint32_t id = 0; id < kept.size(); ++id) {
    if (ram_slots_ != nullptr) ram_slots_->EnsureFor(state.vcpus[id]);
    Status applied = state.vcpus[id].ApplyAgain(&kept[id]);
    if (!applied.ok()) return Error(applied.error()).Wrap(Format("vCPU %u", id));
    AdoptVcpu(std::move(kept[id]), state.vcpus[id].cpuid, config_);
    CUBE_TRY(vcpus_.back()->Adopt());
  }
  CUBE_TRY(RestoreDevices(state));
  // KVM has the timer by now, or can have the saved one when it is wanted.
  if (pit_.deferred()) {
    pit_.Defer(state.vm.pit);
    if (!PitOnDemand::IsIdle(state.vm)) CUBE_TRY(pit_.Make(vm_));
  }
  CUBE_TRY(state.vm.Apply(vm_, !pit_.deferred()));
  Resume();
  clocks_ = Clocks{state.vm, state.vcpus};
  return OkStatus();
}

Status Machine::RestoreVm(const VmState& state) {
  pit_.Defer(state.pit);
  if (ring0_ != nullptr && PitOnDemand::IsIdle(state)) {
    ring0_->foreign_port = [this](uint16_t port) { return pit_.OnPort(vm_, port); };
  } else {
    CUBE_TRY(pit_.Make(vm_));
  }
  return state.Apply(vm_, false);
}

void Machine::Quiesce() {
  for (auto& device : virtio_) device->Quiesce();
}

void Machine::Resume() {
  serial_->Resume();
  for (auto& device : virtio_) device->Resume();
}

Status Machine::SetBootRegisters(KvmVcpu* vcpu) {
  CUBE_ASSIGN(kvm_sregs * sregs, vcpu->mutable_sregs());
  sregs->cr0 = boot_state_.cr0;
  sregs->cr3 = boot_state_.cr3;
  sregs->cr4 = boot_state_.cr4;
  sregs->efer = boot_state_.efer;
  sregs->gdt.base = boot_state_.gdt_base;
  sregs->gdt.limit = boot_state_.gdt_limit;
  sregs->idt.base = 0;
  sregs->idt.limit = 0;
  sregs->cs = LongModeCode(boot_state_.code_selector, 0);
  sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss =
      LongModeData(boot_state_.data_selector, 0);
  sregs->tr = LongModeTss(0, 0);
  CUBE_ASSIGN(kvm_regs * regs, vcpu->mutable_regs());
  *regs = {};
  regs->rip = boot_state_.rip;
  regs->rsi = boot_state_.rsi;
  regs->rsp = boot_state_.rsp;
  regs->rflags = boot_state_.rflags;
  return vcpu->FlushRegistersNow();
}

Status Machine::Start() {
  if (clocks_) {
    CUBE_TRY(clocks_->vm.StartClock(vm_));
    uint64_t now = __rdtsc();
    for (size_t i = 0; i < vcpus_.size(); ++i) {
      CUBE_TRY(clocks_->vcpus[i].StartClock(&vcpus_[i]->kvm(), now));
    }
    clocks_.reset();
  }
  for (auto& vcpu : vcpus_) CUBE_TRY(vcpu->Start());
  return OkStatus();
}

Status Machine::Prepare() {
  for (auto& vcpu : vcpus_) CUBE_TRY(vcpu->Prepare());
  return OkStatus();
}

void Machine::RequestStop() {
  for (auto& vcpu : vcpus_) vcpu->RequestStop();
}

void Machine::Stop() {
  RequestStop();
  for (auto& vcpu : vcpus_) vcpu->Join();
}

std::optional<ring0::Ring0Caches> Machine::TakeCaches(std::span<const ImageStretch> written) {
  vcpus_.clear();
  if (ring0_ == nullptr) return std::nullopt;
  for (const ImageStretch& stretch : written) {
    uint64_t start = 0;
    for (const MemoryRegion& region : memory_.regions()) {
      uint64_t end = start + region.host.size();
      uint64_t first = std::max(start, stretch.offset);
      uint64_t last = std::min(end, stretch.offset + stretch.size);
      for (uint64_t at = first; at < last; at += kPageSize) {
        ring0_->code.DropPage(region.guest_address + (at - start));
      }
      start = end;
    }
  }
  return ring0_->TakeCaches();
}

Machine::Inheritance Machine::Inherit() {
  for (auto& vcpu : vcpus_) vcpu->Abandon();
  std::optional<ring0::Ring0Caches> caches = TakeCaches({});
  return {std::move(memory_), std::move(caches)};
}

void Machine::WakeAgent() {
  auto* header = reinterpret_cast<abi::MailboxHeader*>(memory_.mailbox().data());
  if (header->guest_sleeps.exchange(0, std::memory_order_seq_cst) == 0) return;
  // A full receive queue means wake-ups enough are on their way.
  const uint8_t byte = 0;
  (void)serial_->Receive({&byte, 1});
}

void Machine::TrimMemory() {
  if (ring0_ != nullptr) ring0_->RequestTrim();
}

void Machine::ReportStop(StopReason reason) {
  {
    std::lock_guard lock(stop_mutex_);
    if (stop_reported_) return;
    stop_reported_ = true;
  }
  events_.stopped(std::move(reason));
}

uint64_t Machine::exits() const {
  uint64_t sum = 0;
  for (const auto& vcpu : vcpus_) sum += vcpu->exits();
  return sum;
}

std::map<std::string, uint64_t> Machine::Ring0Counts() const {
  std::map<std::string, uint64_t> sum;
  for (const auto& vcpu : vcpus_) {
    for (const auto& [name, count] : vcpu->Ring0Counts()) sum[name] += count;
  }
  return sum;
}

uint64_t Machine::Statistic(const char* name) const {
  uint64_t sum = 0;
  for (const auto& vcpu : vcpus_) sum += vcpu->kvm().Statistic(name);
  return sum;
}

}  // namespace cube::vmm
