#include <gtest/gtest.h>

#include <cstring>

#include "vmm/memory_map.h"
#include "vmm/paging.h"
#include "vmm/ring0/cpu_state.h"
#include "vmm/ring0/engine_guest.h"
#include "vmm/ring0/guest_code.h"
#include "vmm/segments.h"

// What only ring 0 may execute: the same code under KVM's emulator (with the assist layer) and under
// the engine, to the same end, with the same registers and memory. What registers do not show, the
// code stores.
namespace cube::vmm::ring0 {
namespace {

using Kind = MicroGuest::Exit::Kind;

struct Case {
  GuestCode code;
  Kind kind;
  uint8_t vector;
};

// The code begins at 0x10000, may store from 0x14000 on, has its GDT at 0x5000, IDT at 0x6000, TSS at
// 0x7000, and the table of its pages at 0x4000. User mode finds, at 0x20000, a store of RAX to the
// doorbell.
CUBE_GUEST_CODE(control_registers, R"(
  mov %cr0, %rax
  mov %cr2, %rbx
  mov %cr3, %rcx
  mov %cr4, %rdx
  mov %cr8, %rsi
  mov $0x123456789abc, %rdi
  mov %rdi, %cr2
  mov %cr2, %r8
  mov %rcx, %cr3
  mov %cr3, %r9
  mov %rdx, %r10
  xor $0x80, %r10          # PGE
  mov %r10, %cr4
  mov %cr4, %r11
  mov %rdx, %cr4
  mov %rax, %r12
  and $~0x10000, %r12      # WP
  mov %r12, %cr0
  mov %cr0, %r13
  movl $1, 0x38000         # read-only, which then means nothing
  mov %rax, %cr0
  mov $5, %r14
  mov %r14, %cr8
  mov %cr8, %r15
)")
CUBE_GUEST_CODE(cr4_reserved, "mov %cr4, %rax; bts $30, %rax; mov %rax, %cr4")
CUBE_GUEST_CODE(cr0_paging_off, "mov %cr0, %rax; btr $31, %rax; btr $0, %rax; mov %rax, %cr0")
CUBE_GUEST_CODE(cr3_reserved, "mov %cr3, %rax; bts $62, %rax; mov %rax, %cr3")
CUBE_GUEST_CODE(cr1, ".byte 0x0f, 0x20, 0xc8")
CUBE_GUEST_CODE(task_switched, R"(
  mov %cr0, %rax
  or $8, %rax
  mov %rax, %cr0
  mov %cr0, %rbx
  clts
  mov %cr0, %rcx
  smsw %rdx
  mov $0xffff, %esi
  and %rax, %rsi
  lmsw %si
  mov %cr0, %rdi
  clts
)")
CUBE_GUEST_CODE(debug_registers, R"(
  mov $0x11000, %rax
  mov %rax, %dr0
  mov $0x12000, %rax
  mov %rax, %dr3
  mov $0x400, %rax
  mov %rax, %dr7
  mov $0xffff0ff0, %rax
  mov %rax, %dr6
  mov %dr0, %rbx
  mov %dr3, %rcx
  mov %dr7, %rdx
  mov %dr6, %rsi
)")
CUBE_GUEST_CODE(descriptor_tables, R"(
  sidt 0x14000
  sgdt 0x14010
  # a copy of the IDT, and a shorter one of the GDT
  mov $0x6000, %esi
  mov $0x15000, %edi
  mov $64, %ecx
  rep movsq
  mov $0x5000, %esi
  mov $0x16000, %edi
  mov $8, %ecx
  rep movsq
  movw $511, 0x14020
  movq $0x15000, 0x14022
  movw $63, 0x14030
  movq $0x16000, 0x14032
  lidt 0x14020
  lgdt 0x14030
  sidt 0x14040
  sgdt 0x14050
  mov $0x18, %eax
  mov %eax, %ds
  mov %ds, %ebx
)")
CUBE_GUEST_CODE(new_idt_is_used, R"(
  mov $0x6000, %esi
  mov $0x15000, %edi
  mov $64, %ecx
  rep movsq
  # #UD leads where #BP did
  mov 0x6030, %rax
  mov %rax, 0x15060
  movw $511, 0x14020
  movq $0x15000, 0x14022
  lidt 0x14020
  ud2
)")
CUBE_GUEST_CODE(swap_gs, R"(
  mov $0xc0000101, %ecx
  mov $0x14000, %eax
  xor %edx, %edx
  wrmsr
  mov $0xc0000102, %ecx
  mov $0x14100, %eax
  wrmsr
  mov $0xc0000100, %ecx
  mov $0x14200, %eax
  mov $0xffff8000, %edx
  wrmsr
  movl $1, %gs:0
  swapgs
  movl $2, %gs:0
  mov $0xc0000101, %ecx
  rdmsr
  mov %rax, 0x14300
  mov $0xc0000102, %ecx
  rdmsr
  mov %rax, 0x14308
  mov $0xc0000100, %ecx
  rdmsr
  rdgsbase %rbx
  rdfsbase %rsi
  mov $0x14400, %rdi
  wrgsbase %rdi
  swapgs
  swapgs
  movl $3, %gs:8
)")
CUBE_GUEST_CODE(msr_not_canonical, R"(
  mov $0xc0000101, %ecx
  mov $0x80000000, %edx
  wrmsr
)")
CUBE_GUEST_CODE(kernel_gs_not_canonical, "mov $0xc0000102, %ecx; mov $0x80000000, %edx; wrmsr")
CUBE_GUEST_CODE(lstar_not_canonical, "mov $0xc0000082, %ecx; mov $0x80000000, %edx; wrmsr")
CUBE_GUEST_CODE(gs_base_not_canonical, "mov $0x8000000000000000, %rax; wrgsbase %rax")
CUBE_GUEST_CODE(msr_unknown, "mov $0x12345678, %ecx; rdmsr")
CUBE_GUEST_CODE(msr_write_unknown, "mov $0x12345678, %ecx; wrmsr")
CUBE_GUEST_CODE(model_specific_registers, R"(
  mov $0xc0000081, %ecx    # STAR
  mov $0x11223344, %eax
  mov $0x00200010, %edx
  wrmsr
  rdmsr
  mov %rax, 0x14000
  mov %rdx, 0x14008
  mov $0xc0000082, %ecx    # LSTAR
  mov $0x10080, %eax
  mov $0xffff8000, %edx
  wrmsr
  rdmsr
  mov %rax, 0x14010
  mov %rdx, 0x14018
  mov $0xc0000084, %ecx    # SYSCALL_MASK
  mov $0x47700, %eax
  xor %edx, %edx
  wrmsr
  rdmsr
  mov %rax, 0x14020
  mov $0xc0000080, %ecx    # EFER
  rdmsr
  mov %rax, 0x14028
  xor %edx, %edx
)")
CUBE_GUEST_CODE(tsc_aux, R"(
  mov $0x80000001, %eax
  cpuid
  bt $27, %edx             # RDTSCP
  jnc 1f
  mov $0xc0000103, %ecx
  mov $0x1234, %eax
  xor %edx, %edx
  wrmsr
  rdmsr
  mov %rax, 0x14030
  rdtscp
  mov %rcx, 0x14038
1:
  xor %eax, %eax
  xor %edx, %edx
)")
CUBE_GUEST_CODE(invalidate_page, R"(
  movq $1, 0x1a000
  movq $2, 0x1b000
  mov 0x1a000, %rax
  # the page of 0x1a000 becomes that of 0x1b000
  mov 0x40d8, %rcx
  mov %rcx, 0x40d0
  invlpg 0x1a000
  mov 0x1a000, %rbx
  movq $3, 0x1a008
  mov 0x1b008, %rdx
  # and cannot be written
  andq $~2, 0x40d0
  invlpg 0x1afff
  mov 0x1a008, %rsi
  movq $0, 0x1a008
)")
CUBE_GUEST_CODE(flush_by_cr3, R"(
  movq $1, 0x1a000
  movq $2, 0x1b000
  mov 0x40d8, %rcx
  mov %rcx, 0x40d0
  mov %cr3, %rax
  mov %rax, %cr3
  mov 0x1a000, %rbx
  movq $0, 0x40d0
  mov %rax, %cr3
  mov 0x1a000, %rsi
)")
CUBE_GUEST_CODE(interrupt_flag, R"(
  pushf
  pop %rax
  sti
  nop
  pushf
  pop %rbx
  cli
  pushf
  pop %rcx
  mov $0x247ed7, %rdx      # all but TF and what is reserved
  push %rdx
  popf
  pushf
  pop %rsi
  push $2
  popf
  pushf
  pop %rdi
  mov $0x3f0ad7, %r8       # VM, VIF and VIP cannot be loaded
  push %r8
  popf
  pushf
  pop %r9
  cld
  pushw $0x0ad7
  popfw
  pushf
  pop %r10
  pushfw
  popw 0x14000
  push $2
  popf
)")
CUBE_GUEST_CODE(return_to_itself, R"(
  mov %rsp, %rbp
  push $0x18
  push %rbp
  pushq $0x240ad7          # not IOPL, which KVM's IRET does not load
  push $0x10
  lea 1f(%rip), %rax
  push %rax
  iretq
1:
  pushf
  pop %rbx
  mov %ss, %ecx
  push $2
  popf
  push $0                  # no stack segment, another stack
  push $0x14800
  pushq $2
  push $0x10
  lea 2f(%rip), %rax
  push %rax
  iretq
2:
  mov %ss, %edx
  push %rax
  mov %rsp, %rsi
)")
CUBE_GUEST_CODE(return_to_user, R"(
  mov $0x1234, %eax
  push $0x2b
  push $0x2fff0
  push $0x202
  push $0x33
  push $0x20000
  iretq
)")
CUBE_GUEST_CODE(return_to_user_all_flags, R"(
  push $0x2b
  push $0x2fff0
  pushq $0x247ed7
  push $0x33
  push $0x20000
  iretq
)")
CUBE_GUEST_CODE(return_to_no_segment, "push $0x2b; push $0; push $2; push $0x1003; push $0x20000; iretq")
CUBE_GUEST_CODE(return_to_null, "push $0x2b; push $0; push $2; push $0; push $0x20000; iretq")
CUBE_GUEST_CODE(return_nested, "push $0x4002; popf; push $0x18; push $0; push $2; push $0x10; push $0x10000; iretq")
CUBE_GUEST_CODE(system_return, R"(
  mov $0x20000, %ecx
  mov $0x246ad7, %r11d
  mov $0xc0000081, %r8d
  mov $0x2fff0, %esp
  mov %rcx, %r9
  mov %r8d, %ecx
  xor %eax, %eax
  mov $0x00200010, %edx
  wrmsr
  mov %r9, %rcx
  sysretq
)")
CUBE_GUEST_CODE(segment_registers, R"(
  mov $0x18, %eax
  mov %eax, %ds
  mov %eax, %es
  mov $0x2b, %eax
  mov %eax, %fs
  mov %eax, %gs
  mov %ds, %rbx
  mov %fs, %rcx
  mov %gs, 0x14000
  xor %eax, %eax
  mov %eax, %ds
  mov %eax, %fs
  mov $3, %eax
  mov %eax, %gs
  mov %gs, %edx
  mov $0x18, %eax
  mov %eax, %ss
  mov %ss, %esi
  pushq $0x2b
  pop %fs
  push %fs
  pop %rdi
  lss 0x14010, %r8d
)")
CUBE_GUEST_CODE(segment_not_there, "mov $0x100, %eax; mov %eax, %ds")
CUBE_GUEST_CODE(segment_of_code, "mov $0x38, %eax; mov %eax, %es")
CUBE_GUEST_CODE(null_stack, "mov $3, %eax; mov %eax, %ss")
CUBE_GUEST_CODE(task_register, R"(
  str %rax
  str 0x14000
  sldt %rbx
  xor %ecx, %ecx
  lldt %cx
  andb $~2, 0x503d         # no longer busy
  mov $0x38, %edx
  ltr %dx
  mov 0x5038, %rsi
  str %rdi
)")
CUBE_GUEST_CODE(busy_task, "mov $0x38, %eax; ltr %ax")
CUBE_GUEST_CODE(segment_rights, R"(
  mov $0x10, %eax
  lar %eax, %ebx
  lsl %eax, %ecx
  mov $0x33, %eax
  lar %eax, %edx
  lsl %eax, %esi
  mov $0x100, %eax
  mov $7, %edi
  lar %eax, %edi
  setz 0x14000
  verr %ax
  setz 0x14001
  mov $0x18, %eax
  verw %ax
  setz 0x14002
  mov $0x10, %eax
  verw %ax
  setz 0x14003
  xor %eax, %eax
)")
CUBE_GUEST_CODE(far_transfers, R"(
  push $0x10
  lea 1f(%rip), %rax
  push %rax
  lretq
1:
  movq $0x10, 0x14008
  lea 2f(%rip), %rax
  mov %rax, 0x14000
  rex.W ljmp *0x14000
2:
  mov %cs, %ebx
)")
CUBE_GUEST_CODE(breakpoint, "int3")
CUBE_GUEST_CODE(undefined, "ud2")
CUBE_GUEST_CODE(divide, "xor %ecx, %ecx; div %ecx")
CUBE_GUEST_CODE(software_interrupt, "int $0x10")
CUBE_GUEST_CODE(no_gate, "int $0x80")
CUBE_GUEST_CODE(missing_page, "mov $7, %eax; mov %rax, 0x3c123")
CUBE_GUEST_CODE(missing_code, "mov $0x3c000, %eax; jmp *%rax")
CUBE_GUEST_CODE(read_only_page, "movb $7, 0x38ff8")
CUBE_GUEST_CODE(not_canonical, "mov $0x8000000000000000, %rax; mov (%rax), %rbx")
CUBE_GUEST_CODE(stack_not_canonical, "mov $0x8000000000000000, %rax; mov %rax, %rbp; mov (%rbp), %rbx")
CUBE_GUEST_CODE(jump_not_canonical, "mov $0x8000000000000000, %rax; jmp *%rax")
CUBE_GUEST_CODE(jump_by_memory, "btsq $63, 0x14000; jmp *0x14000")
CUBE_GUEST_CODE(call_not_canonical, "mov $0x8000000000000001, %rax; call *%rax")
CUBE_GUEST_CODE(return_not_canonical, "mov $0x7fffffffffffffff, %rax; push %rax; ret")
CUBE_GUEST_CODE(iret_not_canonical, R"(
  mov $0x8000000000000000, %rax
  push $0x18
  push $0x9000
  push $2
  push $0x10
  push %rax
  iretq
)")
CUBE_GUEST_CODE(no_execute, R"(
  btsq $63, 0x40d0
  mov $0x1a000, %eax
  invlpg (%rax)
  jmp *%rax
)")
CUBE_GUEST_CODE(reserved_bit, "btsq $51, 0x40d0; invlpg 0x1a000; mov 0x1a000, %rax")
CUBE_GUEST_CODE(repeated_into_missing_page, R"(
  mov $0x3bf00, %edi
  mov $0x1000, %ecx
  mov $-1, %eax
  rep stosl
)")
CUBE_GUEST_CODE(identify, R"(
  mov $0, %eax
  cpuid
  mov %ebx, %esi
  mov $0xd, %eax
  xor %ecx, %ecx
  cpuid
)")
CUBE_GUEST_CODE(extended_control, "xor %ecx, %ecx; xgetbv; xsetbv; xgetbv; wbinvd; clflush 0x14000")
CUBE_GUEST_CODE(extended_control_wrong, "xor %ecx, %ecx; xor %eax, %eax; xor %edx, %edx; xsetbv")
CUBE_GUEST_CODE(user_access_flag, R"(
  stac
  pushf
  pop %rax
  clac
  pushf
  pop %rbx
)")

#define CUBE_CASE(name, kind) {name(), Kind::kind, 0}
#define CUBE_FAULT(name, vector) {name(), Kind::kException, vector}
const Case kCases[] = {
    CUBE_CASE(control_registers, kDone),
    CUBE_FAULT(cr4_reserved, kVectorGeneralProtection),
    CUBE_FAULT(cr0_paging_off, kVectorGeneralProtection),
    CUBE_FAULT(cr3_reserved, kVectorGeneralProtection),
    CUBE_FAULT(cr1, kVectorInvalidOpcode),
    CUBE_CASE(task_switched, kDone),
    CUBE_CASE(debug_registers, kDone),
    CUBE_CASE(descriptor_tables, kDone),
    CUBE_FAULT(new_idt_is_used, kVectorBreakpoint),
    CUBE_CASE(swap_gs, kDone),
    CUBE_FAULT(msr_not_canonical, kVectorGeneralProtection),
    CUBE_FAULT(kernel_gs_not_canonical, kVectorGeneralProtection),
    CUBE_FAULT(lstar_not_canonical, kVectorGeneralProtection),
    CUBE_FAULT(gs_base_not_canonical, kVectorGeneralProtection),
    CUBE_FAULT(msr_unknown, kVectorGeneralProtection),
    CUBE_FAULT(msr_write_unknown, kVectorGeneralProtection),
    CUBE_CASE(model_specific_registers, kDone),
    CUBE_CASE(tsc_aux, kDone),
    CUBE_FAULT(invalidate_page, kVectorPageFault),
    CUBE_FAULT(flush_by_cr3, kVectorPageFault),
    CUBE_CASE(interrupt_flag, kDone),
    CUBE_CASE(return_to_itself, kDone),
    CUBE_CASE(return_to_user, kDoorbell),
    CUBE_CASE(return_to_user_all_flags, kDoorbell),
    CUBE_FAULT(return_to_no_segment, kVectorGeneralProtection),
    CUBE_FAULT(return_to_null, kVectorGeneralProtection),
    CUBE_FAULT(return_nested, kVectorGeneralProtection),
    CUBE_CASE(system_return, kDoorbell),
    CUBE_CASE(segment_registers, kDone),
    CUBE_FAULT(segment_not_there, kVectorGeneralProtection),
    CUBE_FAULT(segment_of_code, kVectorGeneralProtection),
    CUBE_FAULT(null_stack, kVectorGeneralProtection),
    CUBE_CASE(task_register, kDone),
    CUBE_FAULT(busy_task, kVectorGeneralProtection),
    CUBE_CASE(segment_rights, kDone),
    CUBE_CASE(far_transfers, kDone),
    CUBE_FAULT(breakpoint, kVectorBreakpoint),
    CUBE_FAULT(undefined, kVectorInvalidOpcode),
    CUBE_FAULT(divide, kVectorDivideError),
    CUBE_FAULT(software_interrupt, 0x10),
    CUBE_FAULT(no_gate, kVectorGeneralProtection),
    CUBE_FAULT(missing_page, kVectorPageFault),
    CUBE_FAULT(missing_code, kVectorPageFault),
    CUBE_FAULT(read_only_page, kVectorPageFault),
    CUBE_FAULT(not_canonical, kVectorGeneralProtection),
    CUBE_FAULT(stack_not_canonical, kVectorStackFault),
    CUBE_FAULT(jump_not_canonical, kVectorGeneralProtection),
    CUBE_FAULT(jump_by_memory, kVectorGeneralProtection),
    CUBE_FAULT(call_not_canonical, kVectorGeneralProtection),
    CUBE_FAULT(return_not_canonical, kVectorGeneralProtection),
    CUBE_FAULT(iret_not_canonical, kVectorGeneralProtection),
    CUBE_FAULT(no_execute, kVectorPageFault),
    CUBE_FAULT(reserved_bit, kVectorPageFault),
    CUBE_FAULT(repeated_into_missing_page, kVectorPageFault),
    CUBE_CASE(identify, kDone),
    CUBE_CASE(extended_control, kDone),
    CUBE_FAULT(extended_control_wrong, kVectorGeneralProtection),
    CUBE_CASE(user_access_flag, kDone),
};

void PrintTo(const Case& test, std::ostream* out) { *out << test.code.name; }

// mov %rax, 0x1f0000
constexpr uint8_t kUserCode[] = {0x48, 0x89, 0x04, 0x25, 0x00, 0x00, 0x1f, 0x00};
static_assert(MicroGuest::kDoorbell == 0x1f0000);

class SystemInstruction : public testing::TestWithParam<Case> {
 protected:
  static void Prepare(MicroGuest* guest, const Case& test) {
    guest->SetKernelCode(test.code.bytes());
    guest->SetUserCode(kUserCode);
    ASSERT_TRUE(guest->StartKernel().ok());
  }
  static CpuState StateOf(KvmVcpu* vcpu) {
    return CpuState::Of(*vcpu->regs().value(), *vcpu->sregs().value());
  }
};

// The first word that differs, "0x14000: interpreted 1, KVM 2".
std::string CompareMemory(const GuestMemory& engine, const GuestMemory& kvm) {
  constexpr uint64_t kRoot = 0x1000, kTables = 0x1000, kTablesEnd = 0x5000;
  for (uint64_t at = 0; at < MicroGuest::kSize; at += 8) {
    uint64_t ours = engine.ReadObject<uint64_t>(at).value();
    uint64_t theirs = kvm.ReadObject<uint64_t>(at).value();
    if (at >= kTables && at < kTablesEnd) {
      // The stub is there while KVM runs; accessed and dirty bits depend on TLBs.
      if (at == kRoot + 256 * 8) continue;
      ours &= ~(kEntryAccessed | kEntryDirty);
      theirs &= ~(kEntryAccessed | kEntryDirty);
    }
    if (ours != theirs) {
      return Format("memory at %#lx: interpreted %#lx, KVM %#lx", at, ours, theirs);
    }
  }
  return "";
}

TEST_P(SystemInstruction, IsAsKvmsEmulatorHasIt) {
  const Case& test = GetParam();
  auto kvm = Kvm::Open();
  ASSERT_TRUE(kvm.ok()) << kvm.error().message();
  auto emulated = MicroGuest::Create(*kvm, true);
  ASSERT_TRUE(emulated.ok()) << emulated.error().message();
  Prepare(emulated->get(), test);
  auto expected = (*emulated)->Run();
  ASSERT_TRUE(expected.ok()) << expected.error().message();
  EXPECT_EQ(static_cast<int>(expected->kind), static_cast<int>(test.kind))
      << "KVM: reason " << expected->reason << " vector " << int{expected->vector};
  EXPECT_EQ(int{expected->vector}, int{test.vector}) << "KVM";

  auto engine = EngineGuest::Create(*kvm, {});
  ASSERT_TRUE(engine.ok()) << engine.error().message();
  Prepare(&(*engine)->micro(), test);
  ASSERT_TRUE((*engine)->StartEngine().ok());
  auto found = (*engine)->Run();
  ASSERT_TRUE(found.ok()) << found.error().message();
  EXPECT_EQ(static_cast<int>(found->kind), static_cast<int>(test.kind))
      << "engine: reason " << found->reason << " vector " << int{found->vector};
  EXPECT_EQ(int{found->vector}, int{test.vector}) << "engine";
  EXPECT_EQ(found->value, expected->value);

  auto difference = StateOf(&(*engine)->vcpu(0)).Difference(StateOf(&(*emulated)->vcpu()),
                                                            kFlagResume);
  EXPECT_EQ(difference.value_or(""), "");
  EXPECT_EQ(CompareMemory((*engine)->micro().memory(), (*emulated)->memory()), "");
}

INSTANTIATE_TEST_SUITE_P(All, SystemInstruction, testing::ValuesIn(kCases),
                         [](const testing::TestParamInfo<Case>& info) {
                           return std::string(info.param.code.name);
                         });

}  // namespace
}  // namespace cube::vmm::ring0
