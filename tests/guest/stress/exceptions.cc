// Every exception a program can raise, as the signal it must become; single steps under ptrace.
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <iterator>

#include "tests/guest/stress/stress.h"

namespace cube::testing {
namespace {

alignas(64) uint8_t unaligned[64];

struct Case {
  const char* name;
  void (*raise)();
  int signal;
  int code;
  uint64_t trap;  // as the kernel stores it in the signal frame
};

constexpr uint64_t kDivide = 0, kDebug = 1, kBreakpoint = 3, kInvalid = 6, kProtection = 13,
                   kFault = 14, kX87 = 16, kAlignment = 17, kSimd = 19, kStack = 12;

const Case kCases[] = {
    {"divide by zero",
     [] { asm volatile("xor %%ecx, %%ecx; mov $1, %%eax; cltd; idiv %%ecx" ::: "eax", "ecx", "edx"); },
     SIGFPE, FPE_INTDIV, kDivide},
    {"quotient too large",
     [] { asm volatile("mov $-1, %%ecx; mov $0x80000000, %%eax; cltd; idiv %%ecx" ::: "eax", "ecx", "edx"); },
     SIGFPE, FPE_INTDIV, kDivide},
    {"ud2", [] { asm volatile("ud2"); }, SIGILL, ILL_ILLOPN, kInvalid},
    {"invalid in 64 bits", [] { asm volatile(".byte 0x06"); }, SIGILL, ILL_ILLOPN, kInvalid},
    {"lock without memory", [] { asm volatile(".byte 0xf0, 0x01, 0xc0"); }, SIGILL, ILL_ILLOPN,
     kInvalid},
    {"int3", [] { asm volatile("int3"); }, SIGTRAP, SI_KERNEL, kBreakpoint},
    {"int 3 in two bytes", [] { asm volatile(".byte 0xcd, 0x03"); }, SIGTRAP, SI_KERNEL,
     kBreakpoint},
    {"icebp", [] { asm volatile(".byte 0xf1; nop"); }, SIGTRAP, TRAP_BRKPT, kDebug},
    {"trap flag",
     [] { asm volatile("pushfq; orl $0x100, (%%rsp); popfq; nop; nop" ::: "memory", "cc"); },
     SIGTRAP, TRAP_TRACE, kDebug},
    {"hlt", [] { asm volatile("hlt"); }, SIGSEGV, SI_KERNEL, kProtection},
    {"cli", [] { asm volatile("cli"); }, SIGSEGV, SI_KERNEL, kProtection},
    {"in", [] { asm volatile("mov $0x60, %%edx; in %%dx, %%al" ::: "eax", "edx"); }, SIGSEGV,
     SI_KERNEL, kProtection},
    {"rdmsr", [] { asm volatile("xor %%ecx, %%ecx; rdmsr" ::: "eax", "ecx", "edx"); }, SIGSEGV,
     SI_KERNEL, kProtection},
    {"mov cr0", [] { asm volatile("mov %%cr0, %%rax" ::: "rax"); }, SIGSEGV, SI_KERNEL,
     kProtection},
    {"not canonical", [] { asm volatile("mov $1, %%rax; shl $63, %%rax; mov (%%rax), %%rax" ::: "rax"); },
     SIGSEGV, SI_KERNEL, kProtection},
    {"stack not canonical",
     [] {
       asm volatile(
           "mov $1, %%rax; shl $63, %%rax; mov %%rbp, %%rcx; mov %%rax, %%rbp; mov (%%rbp), %%rax;"
           "mov %%rcx, %%rbp" ::: "rax", "rcx");
     },
     SIGBUS, SI_KERNEL, kStack},
    {"unaligned movaps",
     [] { asm volatile("movaps %0, %%xmm0" ::"m"(unaligned[1]) : "xmm0"); }, SIGSEGV, SI_KERNEL,
     kProtection},
    {"bad segment", [] { asm volatile("mov $0x18f, %%eax; mov %%eax, %%fs" ::: "eax"); }, SIGSEGV,
     SI_KERNEL, kProtection},
    {"int $0x80", [] { asm volatile("mov $20, %%eax; int $0x80" ::: "rax"); }, SIGSEGV, SI_KERNEL,
     kProtection},  // as without 32-bit system calls
    {"int $4", [] { asm volatile("int $4"); }, SIGSEGV, SI_KERNEL, 4},
    {"int $0x20", [] { asm volatile("int $0x20"); }, SIGSEGV, SI_KERNEL, kProtection},
    {"int $0xec", [] { asm volatile("int $0xec"); }, SIGSEGV, SI_KERNEL, kProtection},
    {"int $0xff", [] { asm volatile("int $0xff"); }, SIGSEGV, SI_KERNEL, kProtection},
    {"int $0x0e", [] { asm volatile("int $0x0e"); }, SIGSEGV, SI_KERNEL, kProtection},
    {"int $0x0d", [] { asm volatile("int $0x0d"); }, SIGSEGV, SI_KERNEL, kProtection},
    {"int $0x02", [] { asm volatile("int $0x02"); }, SIGSEGV, SI_KERNEL, kProtection},
    {"null", [] { asm volatile("xor %%eax, %%eax; mov (%%rax), %%rax" ::: "rax"); }, SIGSEGV,
     SEGV_MAPERR, kFault},
    {"kernel read", [] { asm volatile("mov $0xffffffff81000000, %%rax; mov (%%rax), %%rax" ::: "rax"); },
     SIGSEGV, SEGV_MAPERR, kFault},
    {"kernel jump", [] { asm volatile("mov $0xffffffff81000000, %%rax; call *%%rax" ::: "rax", "memory"); },
     SIGSEGV, SEGV_MAPERR, kFault},
    {"vsyscall write",
     [] { asm volatile("mov $0xffffffffff600000, %%rax; mov %%rax, (%%rax)" ::: "rax", "memory"); },
     SIGSEGV, SEGV_MAPERR, kFault},
    {"data executed",
     [] { unaligned[0] = 0xc3; asm volatile("call *%0" ::"r"(unaligned) : "memory"); }, SIGSEGV,
     SEGV_ACCERR, kFault},
    {"text written", [] { asm volatile("lea 0(%%rip), %%rax; mov %%al, (%%rax)" ::: "rax", "memory"); },
     SIGSEGV, SEGV_ACCERR, kFault},
    {"x87 division",
     [] {
       const uint16_t control = 0x037b;
       asm volatile("fninit; fldcw %0; fldz; fld1; fdivp; fwait" ::"m"(control));
     },
     SIGFPE, FPE_FLTDIV, kX87},
    {"SSE division",
     [] {
       const uint32_t control = 0x1d80;
       asm volatile("ldmxcsr %0; pxor %%xmm1, %%xmm1; mov $1, %%eax; cvtsi2sd %%eax, %%xmm0;"
                    "divsd %%xmm1, %%xmm0" ::"m"(control) : "eax", "xmm0", "xmm1");
     },
     SIGFPE, FPE_FLTDIV, kSimd},
    {"alignment check",
     [] {
       asm volatile("pushfq; orl $0x40000, (%%rsp); popfq; mov 1(%0), %%eax" ::"r"(unaligned)
                    : "eax", "memory");
     },
     SIGBUS, BUS_ADRALN, kAlignment},
};

// Each in a process of its own, which goes on calling the kernel afterwards.
void Exceptions(Run& run) {
  int failed = 0;
  for (uint64_t round = 0; round < run.rounds; ++round) {
    for (const Case& one : kCases) {
      failed += StatusOf(Fork([&] {
        int signal = TryCall(one.raise);
        asm volatile("pushfq; andl $~0x40100, (%%rsp); popfq; fninit" ::: "memory", "cc");
        Fault fault = LastFault();
        if (signal != one.signal || fault.code != one.code || fault.trap != one.trap) {
          Fail("%s: signal %d, code %d, trap %llu, error %#llx, address %#llx", one.name, signal,
               fault.code, (unsigned long long)fault.trap, (unsigned long long)fault.error,
               (unsigned long long)fault.address);
        }
        for (int i = 0; i < 3; ++i) Must(getppid() > 0, "getppid");
      })) != 0;
      run.Add(static_cast<uint64_t>(one.signal) * 64 + one.trap);
    }
    if (failed != 0) Fail("%d of %zu exceptions differ", failed, std::size(kCases));
  }
}

// A tracer counts the steps of a loop, and writes into what it traces.
void SingleSteps(Run& run) {
  pid_t child = fork();
  if (child == 0) {
    Must(ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) == 0, "PTRACE_TRACEME");
    raise(SIGSTOP);
    uint64_t result;
    asm volatile(
        "xor %%eax, %%eax; mov $200, %%ecx; 1: add %%rcx, %%rax; lea 3(%%rax), %%rax;"
        "mov %%rax, -64(%%rsp); dec %%ecx; jnz 1b; mov %%rax, %0; int3"
        : "=r"(result)::"rax", "rcx", "memory");
    syscall(SYS_getppid);
    _exit(result == 200 * 201 / 2 + 600 ? 17 : 18);
  }
  int status;
  Must(waitpid(child, &status, 0) == child && WIFSTOPPED(status), "waitpid");
  uint64_t steps = 0, in_loop = 0;
  user_regs_struct regs;
  while (true) {
    Must(ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr) == 0, "PTRACE_SINGLESTEP");
    Must(waitpid(child, &status, 0) == child, "waitpid");
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP) Fail("step: status %#x", status);
    Must(ptrace(PTRACE_GETREGS, child, nullptr, &regs) == 0, "PTRACE_GETREGS");
    long word = ptrace(PTRACE_PEEKTEXT, child, regs.rip, nullptr);
    // dec %ecx: as often as the loop is passed.
    if ((word & 0xffff) == 0xc9ff) ++in_loop;
    // int3
    if ((word & 0xff) == 0xcc) break;
    if (++steps > 20000) Fail("no end of steps, rip %#llx", regs.rip);
  }
  if (in_loop != 200) Fail("%llu passes", (unsigned long long)in_loop);
  // The step over int3 stops once, behind it; then steps over two system calls.
  Must(ptrace(PTRACE_CONT, child, nullptr, nullptr) == 0, "PTRACE_CONT");
  Must(waitpid(child, &status, 0) == child && WIFSTOPPED(status), "waitpid");
  user_regs_struct after;
  Must(ptrace(PTRACE_GETREGS, child, nullptr, &after) == 0, "PTRACE_GETREGS");
  if (WSTOPSIG(status) != SIGTRAP || after.rip != regs.rip + 1) Fail("int3: status %#x", status);
  for (int i = 0; i < 30; ++i) {
    Must(ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr) == 0, "PTRACE_SINGLESTEP");
    Must(waitpid(child, &status, 0) == child, "waitpid");
    if (WIFEXITED(status)) break;
    Must(ptrace(PTRACE_GETREGS, child, nullptr, &regs) == 0, "PTRACE_GETREGS");
    if (regs.rip == after.rip && i > 0) Fail("step %d did not move", i);
  }
  if (!WIFEXITED(status)) {
    Must(ptrace(PTRACE_CONT, child, nullptr, nullptr) == 0, "PTRACE_CONT");
    Must(waitpid(child, &status, 0) == child, "waitpid");
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 17) Fail("exit: status %#x", status);
  run.Add(in_loop);
}

// System calls entered by a step, from a stopped and changed program: PTRACE_SYSCALL.
void SystemCallStops(Run& run) {
  pid_t child = fork();
  if (child == 0) {
    Must(ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) == 0, "PTRACE_TRACEME");
    raise(SIGSTOP);
    uint64_t sum = 0;
    for (uint64_t i = 0; i < 50; ++i) sum += static_cast<uint64_t>(syscall(SYS_getuid, i));
    _exit(sum == 50 * 49 / 2 + 50 * 1000 ? 19 : 20);
  }
  int status;
  Must(waitpid(child, &status, 0) == child && WIFSTOPPED(status), "waitpid");
  uint64_t seen = 0;
  bool entry = true;
  while (true) {
    Must(ptrace(PTRACE_SYSCALL, child, nullptr, nullptr) == 0, "PTRACE_SYSCALL");
    Must(waitpid(child, &status, 0) == child, "waitpid");
    if (WIFEXITED(status)) break;
    user_regs_struct regs;
    Must(ptrace(PTRACE_GETREGS, child, nullptr, &regs) == 0, "PTRACE_GETREGS");
    if (regs.orig_rax == SYS_getuid && !entry) {
      regs.rax = regs.rdi + 1000;
      Must(ptrace(PTRACE_SETREGS, child, nullptr, &regs) == 0, "PTRACE_SETREGS");
      ++seen;
    }
    entry = !entry;
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 19) Fail("exit: status %#x", status);
  run.Add(seen);
}

// A write by a tracer goes into a private copy, though the page is read-only.
void PokeText(Run& run) {
  auto* page = static_cast<uint64_t*>(Map(nullptr, kPage, PROT_READ | PROT_WRITE));
  for (uint64_t i = 0; i < run.rounds; ++i) {
    page[0] = i;
    Must(mprotect(page, kPage, PROT_READ) == 0, "mprotect");
    pid_t child = fork();
    if (child == 0) {
      Must(ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) == 0, "PTRACE_TRACEME");
      bool before = *static_cast<volatile uint64_t*>(page) == i;
      raise(SIGSTOP);
      bool after = *static_cast<volatile uint64_t*>(page) == i + 1000;
      _exit(before && after ? 0 : 1);
    }
    int status;
    Must(waitpid(child, &status, 0) == child && WIFSTOPPED(status), "waitpid");
    Must(ptrace(PTRACE_POKEDATA, child, page, i + 1000) == 0, "PTRACE_POKEDATA");
    if (*static_cast<volatile uint64_t*>(page) != i) Fail("the tracer's own page changed");
    Must(ptrace(PTRACE_CONT, child, nullptr, nullptr) == 0, "PTRACE_CONT");
    Join(child);
    Must(mprotect(page, kPage, PROT_READ | PROT_WRITE) == 0, "mprotect");
  }
  run.Add(run.rounds);
}

constexpr Subtest kSubtests[] = {
    {"exceptions", Exceptions, 3},
    {"steps", SingleSteps, 1},
    {"syscall_stops", SystemCallStops, 1},
    {"poke", PokeText, 50},
};

}  // namespace

std::span<const Subtest> ExceptionSubtests() { return kSubtests; }

}  // namespace cube::testing
