#include "vmm/assist/micro_guest.h"

#include <sys/mman.h>

#include <cstring>

#include "vmm/cpuid.h"
#include "vmm/memory_map.h"
#include "vmm/paging.h"
#include "vmm/segments.h"

namespace cube::vmm {
namespace {

constexpr uint64_t kPageMapLevel4 = 0x1000;
constexpr uint64_t kPageDirectoryPointers = 0x2000;
constexpr uint64_t kPageDirectory = 0x3000;
constexpr uint64_t kPageTable = 0x4000;
constexpr uint64_t kGdt = 0x5000;
constexpr uint64_t kIdt = 0x6000;
constexpr uint64_t kTss = 0x7000;
constexpr uint64_t kStubs = 0xc000;
constexpr uint64_t kStubStride = 16;
constexpr int kVectors = 32;
constexpr uint64_t kUserStart = 0x20000;

// What XCR0 enables at most: all that KVM's CPUID offers.
uint64_t SupportedXcr0(const std::vector<kvm_cpuid_entry2>& cpuid) {
  for (const auto& entry : cpuid) {
    if (entry.function == 0xd && entry.index == 0) {
      return entry.eax | static_cast<uint64_t>(entry.edx) << 32;
    }
  }
  return 0;
}

}  // namespace

MicroGuest::MicroGuest(Mapping mapping, KvmVm vm)
    : mapping_(std::move(mapping)),
      memory_(GuestMemory::Borrow({{0, mapping_.span(), true}})),
      vm_(std::move(vm)) {}

Result<std::unique_ptr<MicroGuest>> MicroGuest::Create(const Kvm& kvm, bool assist,
                                                       bool irqchip) {
  CUBE_ASSIGN(Mapping mapping, Mapping::Map(kSize, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, "a micro guest"));
  CUBE_ASSIGN(KvmVm vm, kvm.CreateVm());
  std::unique_ptr<MicroGuest> guest(new MicroGuest(std::move(mapping), std::move(vm)));
  CUBE_TRY(guest->vm_.SetTssAndIdentityMap());
  if (irqchip) CUBE_TRY(guest->vm_.CreateIrqchip());
  CUBE_TRY(guest->vm_.SetMemorySlot(0, 0, guest->mapping_.span()));
  if (assist) CUBE_TRY(Ring0Assist::PrepareVm(guest->vm_));
  CUBE_ASSIGN(KvmVcpu vcpu, guest->vm_.CreateVcpu(0));
  guest->vcpu_ = std::make_unique<KvmVcpu>(std::move(vcpu));
  CUBE_ASSIGN(std::vector<kvm_cpuid_entry2> supported, kvm.SupportedCpuid());
  guest->cpuid_ = ShapeCpuid(supported, {.hide_hypercalls = true});
  CUBE_TRY(guest->vcpu_->SetCpuid(guest->cpuid_));
  guest->vcpu_->SyncRegisters(true);
  if (assist) guest->assist_ = std::make_unique<Ring0Assist>(guest->memory_, guest->cpuid_, nullptr);
  CUBE_TRY(guest->BuildTables());
  return guest;
}

Status MicroGuest::BuildTables() {
  constexpr uint64_t kEverything = kEntryPresent | kEntryWritable | kEntryUser;
  Poke<uint64_t>(kPageMapLevel4, kPageDirectoryPointers | kEverything);
  Poke<uint64_t>(kPageDirectoryPointers, kPageDirectory | kEverything);
  Poke<uint64_t>(kPageDirectory, kPageTable | kEverything);
  for (uint64_t page = 0; page < kSize; page += kPageSize) {
    uint64_t entry = page | kEntryPresent | kEntryWritable;
    if (page >= kUserStart) entry |= kEntryUser;
    if (page == kReadOnlyPage) entry &= ~kEntryWritable;
    if (page == kUnmappedPage) entry = 0;
    if (page == kDoorbell) entry = abi::kDoorbellAddress | kEverything;
    Poke<uint64_t>(kPageTable + page / kPageSize * 8, entry);
  }
  const uint64_t descriptors[] = {0,
                                  0,
                                  LongModeCodeDescriptor(0),
                                  DataDescriptor(0),
                                  FlatDescriptor(kSegmentCode, 3, 0xc),  // for SYSRET to 32-bit code
                                  DataDescriptor(3),
                                  LongModeCodeDescriptor(3),
                                  0x00008b0000000067 | kTss << 16,
                                  0};
  memory_.Write(kGdt, {reinterpret_cast<const uint8_t*>(descriptors), sizeof descriptors});
  Poke<uint64_t>(kTss + 4, kKernelStackTop);
  Poke<uint64_t>(kTss + 0x24, kIstStackTop);
  for (int vector = 0; vector < kVectors; ++vector) {
    uint64_t stub = kStubs + static_cast<uint64_t>(vector) * kStubStride;
    // out %al, $port; hlt. Linux's handler begins with one of a few instructions; so does this.
    const uint8_t code[] = {0x90, 0xe6, static_cast<uint8_t>(kExceptionPort + vector), 0xf4};
    memory_.Write(stub, code);
    uint64_t gate = (stub & 0xffff) | static_cast<uint64_t>(kKernelCodeSelector) << 16 |
                    0x8e00ull << 32 | (stub >> 16 & 0xffff) << 48;
    if (vector == kVectorBreakpoint) gate |= 3ull << 45;  // user mode may raise it
    Poke<uint64_t>(kIdt + static_cast<uint64_t>(vector) * 16, gate);
    Poke<uint64_t>(kIdt + static_cast<uint64_t>(vector) * 16 + 8, stub >> 32);
  }
  uint64_t xcr0 = SupportedXcr0(cpuid_);
  if (xcr0 == 0) return OkStatus();
  // XCR0 may be set only with CR4.OSXSAVE, which Enter() sets as well.
  CUBE_ASSIGN(kvm_sregs * sregs, vcpu_->mutable_sregs());
  sregs->cr4 |= kCr4OsXsave;
  CUBE_TRY(vcpu_->FlushRegistersNow());
  kvm_xcrs xcrs = {};
  xcrs.nr_xcrs = 1;
  xcrs.xcrs[0].value = xcr0;
  return vcpu_->SetXcrs(xcrs);
}

void MicroGuest::SetKernelCode(std::span<const uint8_t> code) { memory_.Write(kKernelCode, code); }
void MicroGuest::SetUserCode(std::span<const uint8_t> code) { memory_.Write(kUserCode, code); }

Status MicroGuest::StartKernel() {
  return Enter(kKernelCode, kKernelStackTop, kKernelCodeSelector, kKernelDataSelector, 0);
}
Status MicroGuest::StartUser() {
  return Enter(kUserCode, kUserStackTop, kUserCodeSelector, kUserDataSelector, 3);
}

Status MicroGuest::Enter(uint64_t rip, uint64_t rsp, uint16_t code, uint16_t data,
                         uint8_t privilege) {
  if (vcpu_->runs() != 0) CUBE_TRY(vcpu_->FinishExit());
  CUBE_ASSIGN(kvm_sregs * sregs, vcpu_->mutable_sregs());
  sregs->cr0 = kCr0ProtectionEnable | kCr0MonitorCoprocessor | kCr0ExtensionType |
               kCr0NumericError | kCr0WriteProtect | kCr0Paging;
  sregs->cr3 = kPageMapLevel4;
  sregs->cr4 = kCr4PhysicalAddressExtension | kCr4OsFxsr | kCr4OsXmmExceptions | kCr4FsGsBase |
               (SupportedXcr0(cpuid_) != 0 ? kCr4OsXsave : 0);
  sregs->efer = kEferSyscallEnable | kEferLongModeEnable | kEferLongModeActive | kEferNoExecute;
  sregs->gdt.base = kGdt;
  sregs->gdt.limit = 9 * 8 - 1;
  sregs->idt.base = kIdt;
  sregs->idt.limit = kVectors * 16 - 1;
  sregs->cs = LongModeCode(code, privilege);
  sregs->ss = sregs->ds = sregs->es = sregs->fs = sregs->gs = LongModeData(data, privilege);
  sregs->tr = LongModeTss(kTssSelector, kTss);
  CUBE_ASSIGN(kvm_regs * regs, vcpu_->mutable_regs());
  *regs = {};
  regs->rip = rip;
  regs->rsp = rsp;
  regs->rflags = kFlagReserved;
  return vcpu_->FlushRegistersNow();
}

std::optional<MicroGuest::Exit> MicroGuest::MeaningOf(const kvm_run& run) {
  Exit exit;
  exit.reason = run.exit_reason;
  if (run.exit_reason == KVM_EXIT_IO) {
    uint16_t port = run.io.port;
    if (port == kDonePort) {
      exit.kind = Exit::Kind::kDone;
      return exit;
    }
    if (port >= kExceptionPort && port < kExceptionPort + kVectors) {
      exit.kind = Exit::Kind::kException;
      exit.vector = static_cast<uint8_t>(port - kExceptionPort);
      return exit;
    }
  }
  if (run.exit_reason == KVM_EXIT_MMIO && run.mmio.is_write != 0 &&
      run.mmio.phys_addr / kPageSize == abi::kDoorbellAddress / kPageSize) {
    exit.kind = Exit::Kind::kDoorbell;
    memcpy(&exit.value, run.mmio.data, sizeof exit.value);
    return exit;
  }
  return std::nullopt;
}

Result<MicroGuest::Exit> MicroGuest::Run(int limit) {
  for (int i = 0; i < limit; ++i) {
    CUBE_TRY(vcpu_->Run());
    const kvm_run* run = vcpu_->run();
    if (run->exit_reason == KVM_EXIT_INTR) continue;
    if (auto meaning = MeaningOf(*run)) return *meaning;
    Exit exit;
    exit.reason = run->exit_reason;
    if (assist_ != nullptr) {
      CUBE_ASSIGN(Ring0Assist::Outcome outcome, assist_->HandleExit(vcpu_.get()));
      if (outcome == Ring0Assist::Outcome::kHandled) continue;
    }
    return exit;
  }
  return Errorf("the micro guest made %d exits and was not done", limit);
}

}  // namespace cube::vmm
