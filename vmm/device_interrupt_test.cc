#include <gtest/gtest.h>

#include <condition_variable>
#include <cstring>
#include <mutex>

#include "vmm/assist/host_probe.h"
#include "vmm/loader/test_images.h"
#include "vmm/machine.h"
#include "vmm/memory_map.h"

// A guest that does nothing but count, and a device that interrupts it from another thread.
namespace cube::vmm {
namespace {

constexpr uint64_t kCode = 0x100000, kHandler = 0x100800, kIdtRegister = 0x101000, kIdt = 0x102000,
                   kCounter = 0x103000, kSeen = 0x103008;
constexpr uint8_t kVector = 0x24;  // IRQ 4 of a PIC that begins at 0x20

constexpr uint8_t kMain[] = {
    0x0f, 0x01, 0x1c, 0x25, 0x00, 0x10, 0x10, 0x00,  // lidt [kIdtRegister]
    0x48, 0xc7, 0xc4, 0x00, 0x60, 0x10, 0x00,        // mov rsp, 0x106000
    0xb0, 0x11, 0xe6, 0x20,                          // the PIC: initialise, vectors from 0x20,
    0xb0, 0x20, 0xe6, 0x21, 0xb0, 0x04, 0xe6, 0x21,
    0xb0, 0x01, 0xe6, 0x21, 0xb0, 0xef, 0xe6, 0x21,  // all but IRQ 4 masked
    0x66, 0xba, 0xf9, 0x03, 0xb0, 0x01, 0xee,        // the UART: interrupt for what it receives
    0xbf, 0x10, 0x00, 0x00, 0xd0,                    // mov edi, doorbell
    0xfb,                                            // sti
    0x89, 0x07,                                      // mov [rdi], eax
    0x48, 0xff, 0x04, 0x25, 0x00, 0x30, 0x10, 0x00,  // 1: inc qword [kCounter]
    0xeb, 0xf6,                                      // jmp 1b
};
constexpr uint8_t kInterrupted[] = {
    0x48, 0x8b, 0x04, 0x25, 0x00, 0x30, 0x10, 0x00,  // mov rax, [kCounter]
    0x48, 0x89, 0x04, 0x25, 0x08, 0x30, 0x10, 0x00,  // mov [kSeen], rax
    0x66, 0xba, 0xf8, 0x03, 0xec,                    // take the byte
    0xb0, 0x20, 0xe6, 0x20,                          // end of interrupt
    0x89, 0x07,                                      // mov [rdi], eax
    0x48, 0xcf,                                      // iretq
};

std::string WriteKernel() {
  testing::Image image(0x4000);
  memcpy(image.data(), kMain, sizeof kMain);
  memcpy(image.data() + kHandler - kCode, kInterrupted, sizeof kInterrupted);
  const uint16_t limit = 256 * 16 - 1;
  memcpy(image.data() + kIdtRegister - kCode, &limit, sizeof limit);
  memcpy(image.data() + kIdtRegister - kCode + 2, &kIdt, sizeof kIdt);
  // An interrupt gate through the code segment of the boot protocol.
  const uint64_t gate = (kHandler & 0xffff) | 0x10 << 16 | 0x8e00ull << 32 | kHandler >> 16 << 48;
  memcpy(image.data() + kIdt - kCode + kVector * 16, &gate, sizeof gate);
  return testing::WriteTempFile("kernel", testing::MakeElf(kCode, {{kCode, image, 0x10000}}));
}

class Doorbell {
 public:
  void Ring() {
    std::lock_guard lock(mutex_);
    ++rings_;
    changed_.notify_all();
  }
  // Waits for the next one.
  void Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return rings_ > taken_; });
    ++taken_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int rings_ = 0, taken_ = 0;
};

// What passes between an interrupt and its handler is counted in jumps, 2048 of which lie between
// two looks of the engine at most: so it does not matter how fast anything is.
TEST(DeviceInterrupt, ReachesRing0AtTheNextPoll) {
  constexpr uint64_t kMostJumps = 2 * 2048;
  ASSERT_TRUE(Vcpu::InstallKickSignal().ok());
  auto kvm = Kvm::Open("/dev/kvm");
  ASSERT_TRUE(kvm.ok()) << kvm.error().message();
  auto probe = ProbeHost(*kvm);
  ASSERT_TRUE(probe.ok()) << probe.error().message();
  MachineConfig config;
  config.kernel = WriteKernel();
  config.memory = kMinMemory;
  config.ring0 = probe->emulated_ring0() ? Ring0Mode::kEngine : Ring0Mode::kNative;
  Doorbell doorbell;
  MachineEvents events;
  events.console = [](uint8_t) {};
  events.command = [](abi::Command, uint32_t) {};
  events.notify = [&doorbell] { doorbell.Ring(); };
  events.stopped = [&doorbell](const StopReason& reason) {
    ADD_FAILURE() << reason.text << reason.detail;
    doorbell.Ring();
  };
  auto machine = Machine::Create(*kvm, config, {}, nullptr, std::move(events));
  ASSERT_TRUE(machine.ok()) << machine.error().message();
  ASSERT_TRUE((*machine)->Start().ok());
  doorbell.Wait();
  auto read = [&](uint64_t address) {
    return __atomic_load_n(
        reinterpret_cast<uint64_t*>((*machine)->memory().Slice(address, 8)->data()),
        __ATOMIC_ACQUIRE);
  };
  for (int i = 0; i < 100 && !HasFailure(); ++i) {
    const uint8_t byte = 0;
    ASSERT_EQ((*machine)->serial().Receive({&byte, 1}), 1u);
    uint64_t raised = read(kCounter);
    doorbell.Wait();
    uint64_t seen = read(kSeen);
    // Where ring 0 is native the loop may run on before the processor is told.
    if (config.ring0 == Ring0Mode::kEngine && seen > raised) {
      EXPECT_LE(seen - raised, kMostJumps) << i;
    }
  }
  (*machine)->Stop();
}

}  // namespace
}  // namespace cube::vmm
