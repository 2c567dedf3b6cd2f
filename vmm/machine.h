#ifndef CUBE_VMM_MACHINE_H_
#define CUBE_VMM_MACHINE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/mapping.h"
#include "base/result.h"
#include "devices/i8042/i8042.h"
#include "devices/serial/serial.h"
#include "devices/virtio/mmio_transport.h"
#include "vmm/bus.h"
#include "vmm/control_device.h"
#include "vmm/event_loop.h"
#include "vmm/guest_memory.h"
#include "vmm/irq_line.h"
#include "vmm/kvm/kvm.h"
#include "vmm/loader/boot_state.h"
#include "vmm/machine_state.h"
#include "vmm/pit_on_demand.h"
#include "vmm/ring0/ring0_shared.h"
#include "vmm/stop_reason.h"
#include "vmm/vcpu.h"

namespace cube::vmm {

// Who runs guest ring 0 (docs/host.md).
enum class Ring0Mode {
  kNative,    // the processor, by VT-x or SVM
  kEmulator,  // KVM's emulator, with the assist layer
  kEngine,    // vmm/ring0
};

struct MachineConfig {
  std::string kernel;      // an ELF vmlinux or a bzImage
  std::string initrd;      // may be empty
  std::string append;      // words added to the kernel's command line, last
  std::string system_map;  // for dumps; may be empty
  uint64_t memory = 0;     // bytes
  uint32_t cpus = 1;       // 1 to kMaxCpus
  // As the host's KVM is (vmm/assist/host_probe.h tells).
  Ring0Mode ring0 = Ring0Mode::kNative;
};

// A virtio device for a machine, and the name by which errors and counters know it ("vda").
struct NamedDevice {
  std::string name;
  std::unique_ptr<devices::virtio::Device> device;
};

// What a machine tells its owner. All but `notify` are called on vCPU threads.
struct MachineEvents {
  std::function<void(uint8_t)> console;  // a byte on the serial port
  std::function<void(abi::Command, uint32_t argument)> command;
  std::function<void()> notify;
  std::function<void(StopReason)> stopped;  // the first reason only
};

// A VM: memory, interrupt controllers, devices, vCPUs, and a kernel ready to start.
class Machine {
 public:
  // Makes the VM and loads the kernel. `devices` are found by the guest in this order, at most
  // kVirtioMaxDevices; they work on `loop`, which outlives the machine. Every error names the file
  // or value at fault.
  static Result<std::unique_ptr<Machine>> Create(const Kvm& kvm, const MachineConfig& config,
                                                 std::vector<NamedDevice> devices, EventLoop* loop,
                                                 MachineEvents events);
  ~Machine();

  // Makes the VM anew from what Save() gave and its memory, for `config`'s memory size, vCPUs and
  // ring 0; kernel and initrd are not looked at. `devices` are of the same kinds in the same order.
  // Nothing has run when this returns. `caches` are what another machine of the same memory gave
  // (TakeCaches()), for the ring-0 engine to go on with, or none. Every error names what does not
  // fit.
  static Result<std::unique_ptr<Machine>> Restore(
      const Kvm& kvm, const MachineConfig& config, GuestMemory memory, const MachineState& state,
      std::vector<NamedDevice> devices, EventLoop* loop, MachineEvents events,
      std::optional<ring0::Ring0Caches> caches = std::nullopt);

  // Lets the vCPUs run. A restored machine's clocks go on from where they were saved.
  Status Start();
  // Does of Start() what can be done ahead, so that a machine that waits to be started loses no
  // time: the vCPUs' threads are made, and wait. Optional, for a restored machine; Stop() ends it
  // as well.
  Status Prepare();
  // Has every vCPU leave the guest as soon as it can, without waiting for it: Stop() is still to be
  // called. Any thread.
  void RequestStop();
  // Takes every vCPU out of the guest and joins its thread. Idempotent. Not from a vCPU's thread.
  // Start() goes on from there.
  void Stop();

  // The machine's state; on the event loop's thread, once Stop() has returned and before Start() is
  // called again. Requests under way in the devices are finished first, which may write to guest
  // memory: the memory is to be read after this. Resume() lets the devices go on.
  Result<MachineState> Save(const Kvm& kvm);
  // Finishes the requests under way, as Save() does.
  void Quiesce();
  void Resume();
  // Puts the machine in the state that Save() gave, its memory having been put so by the caller.
  // Once Stop() has returned; Start() goes on from there. After an error the machine is of no use.
  Status Reload(const MachineState& state);

  // With `on`, time in which the guest has nothing to do passes at once, if the ring-0 engine runs it;
  // else as always. Any thread.
  void SkipIdleTime(bool on) {
    if (ring0_ != nullptr) ring0_->SkipIdleTime(on);
  }
  uint64_t skipped_nanoseconds() const {
    return ring0_ == nullptr ? 0 : ring0_->skipped_nanoseconds();
  }

  // What the ring-0 engine, if there is one, has decoded, for machines restored from the same state;
  // `written` are stretches of the memory's image (offset and bytes) that this one has changed since.
  // Once Stop() has returned; the machine is of no use after.
  struct ImageStretch {
    uint64_t offset;
    uint64_t size;
  };
  std::optional<ring0::Ring0Caches> TakeCaches(std::span<const ImageStretch> written);

  // When the parts of Restore() were done, CLOCK_MONOTONIC nanoseconds, in this order.
  struct Marks {
    uint64_t begun = 0;
    uint64_t vm = 0;
    uint64_t memory = 0;
    uint64_t devices = 0;  // with the interrupt controllers
    uint64_t vcpus = 0;    // with their state
    uint64_t state = 0;    // of all the rest
  };
  const Marks& marks() const { return marks_; }

  // Of a machine that another process has stopped and then forked this one: what one of this
  // process's own goes on with. The parent's VM is not touched; the machine is of no use after.
  struct Inheritance {
    GuestMemory memory;  // shared page by page until one of the two writes
    std::optional<ring0::Ring0Caches> caches;
  };
  Inheritance Inherit();

  GuestMemory& memory() { return memory_; }
  const GuestMemory& memory() const { return memory_; }
  devices::Serial& serial() { return *serial_; }
  // In the order of Create().
  const std::vector<std::unique_ptr<devices::virtio::MmioTransport>>& virtio() const {
    return virtio_;
  }
  // Wakes the agent if it sleeps: the host has changed a ring of the mailbox. Any thread.
  void WakeAgent();

  // Gives back memory that a guest needs only while it boots. Any thread.
  void TrimMemory();

  // Samples the boot CPU's guest; before Start().
  void Profile(GuestProfiler* profiler) { vcpus_[0]->Profile(profiler); }

  // Has `observer` run the engine's interpreter, if there is an engine; before Start().
  void Observe(ring0::InterpreterObserver* observer) {
    if (ring0_ != nullptr) ring0_->observer = observer;
  }

  // Exits of all vCPUs, and what the assist layer or the engine did, by name: the first is exact,
  // and the second may be asked for, once the machine is stopped.
  uint64_t exits() const;
  std::map<std::string, uint64_t> Ring0Counts() const;
  // Sum over the vCPUs of a KVM statistic.
  uint64_t Statistic(const char* name) const;

  // The whole kernel command line.
  const std::string& command_line() const { return command_line_; }

 private:
  Machine(KvmVm vm, GuestMemory memory, MachineEvents events);

  // All that a machine consists of but its vCPUs. `state` is null unless it is to be restored.
  static Result<std::unique_ptr<Machine>> Build(const Kvm& kvm, const MachineConfig& config,
                                                GuestMemory memory,
                                                std::vector<NamedDevice> devices, EventLoop* loop,
                                                MachineEvents events, const MachineState* state,
                                                std::optional<ring0::Ring0Caches> caches);
  // KVM's slots for all of the memory, or, of a machine restored from `state` whose ring 0 the engine
  // runs, for the pieces of its RAM that KVM will come to and those in `pieces`.
  Status MakeMemorySlots(const MachineState* state, std::span<const uint32_t> pieces);
  Status RestoreVcpus(const Kvm& kvm, const MachineConfig& config, const MachineState& state);
  Status RestoreDevices(const MachineState& state);
  // The vCPU, its CPUID being set, joins the others.
  void AdoptVcpu(KvmVcpu vcpu, std::span<const kvm_cpuid_entry2> cpuid,
                 const MachineConfig& config);

  // A line for a device of this VM, bound to `gsi`.
  Result<IrqLine> NewIrqLine(uint32_t gsi);
  Status AddDevices();
  Status AddVirtioDevices(std::vector<NamedDevice> devices, EventLoop* loop, bool ioeventfds);
  Status LoadGuest(const MachineConfig& config, size_t virtio_devices);
  Status AddVcpus(const Kvm& kvm, const MachineConfig& config);
  Status SetBootRegisters(KvmVcpu* vcpu);
  // Puts the interrupt controllers and the timer in the state that was saved.
  Status RestoreVm(const VmState& state);
  void ReportStop(StopReason reason);

  // Declared in the order in which they must outlive each other: the vCPUs, which use all the
  // rest, are last and so go first.
  KvmVm vm_;
  GuestMemory memory_;
  MachineConfig config_;
  Mapping scratch_;  // one page, where ring 0 is emulated
  MachineEvents events_;
  std::string command_line_;
  Bus ports_;
  Bus mmio_;
  Marks marks_;
  std::unique_ptr<ring0::RamSlots> ram_slots_;  // null: KVM has all of the RAM
  std::unique_ptr<ring0::Ring0Shared> ring0_;   // of the engine
  std::unique_ptr<devices::Serial> serial_;
  std::unique_ptr<devices::I8042> i8042_;
  std::unique_ptr<ControlDevice> control_;
  std::vector<std::unique_ptr<devices::virtio::MmioTransport>> virtio_;
  BootState boot_state_ = {};
  PitOnDemand pit_;
  std::atomic<bool> booted_{false};  // for the assist layer: a vCPU has made a system call
  std::mutex stop_mutex_;
  bool stop_reported_ = false;
  std::vector<std::unique_ptr<Vcpu>> vcpus_;
  std::vector<std::vector<kvm_cpuid_entry2>> cpuid_;  // of each
  // Of a restored machine until its first Start().
  struct Clocks {
    VmState vm;
    std::vector<VcpuState> vcpus;
  };
  std::optional<Clocks> clocks_;
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_MACHINE_H_
