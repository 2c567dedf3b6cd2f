#include "vmm/ring0/native_run.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace cube::vmm::ring0 {
namespace {

constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
constexpr unsigned kSecondsPerBatch = 20;
constexpr size_t kSignalStack = 256 << 10;
// REG_R8 and so on are not in the order of their encoding.
constexpr int kRegisters[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                REG_R12, REG_R13, REG_R14, REG_R15};

uint8_t* At(uint64_t address) { return reinterpret_cast<uint8_t*>(address); }

// For the handler, which is given no context of ours; of the child only.
void* g_batch;

bool MapAt(uint64_t address, uint64_t size, int protection) {
  void* at = mmap(At(address), size, protection,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_POPULATE, -1, 0);
  return at == At(address);
}

}  // namespace

Result<NativeRunner> NativeRunner::Create() {
  CUBE_ASSIGN(Mapping memory,
              Mapping::Map((sizeof(Batch) + 4095) / 4096 * 4096, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0, "native test cases"));
  return NativeRunner(std::move(memory));
}

NativeRunner::NativeRunner(Mapping memory)
    : memory_(std::move(memory)), batch_(reinterpret_cast<Batch*>(memory_.data())) {}

Status NativeRunner::Run(size_t count) {
  batch_->count = static_cast<uint32_t>(std::min(count, kBatch));
  batch_->next = 0;
  pid_t child = fork();
  if (child < 0) return ErrnoError("forking a process for native cases");
  if (child == 0) Child(batch_);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  bool exited = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  if (exited && batch_->next == batch_->count) return OkStatus();
  return Errorf("native case %u did not come back: wait status %d", batch_->next, status);
}

void NativeRunner::Child(Batch* batch) {
  // Nothing of the parent's may run here: no atexit, no buffers.
  g_batch = batch;
  alarm(kSecondsPerBatch);
  bool mapped = MapAt(window::kCode, window::kCodeSize, PROT_READ | PROT_WRITE | PROT_EXEC) &&
                MapAt(window::kReadOnly, window::kSize, PROT_READ | PROT_WRITE);
  if (!mapped) _exit(2);
  memset(At(window::kCode), window::kHalt, window::kCodeSize);
  memcpy(At(window::kReadOnly), batch->pattern.data(), window::kSize);
  mprotect(At(window::kReadOnly), window::kPage, PROT_READ);
  stack_t stack = {};
  stack.ss_sp = mmap(nullptr, kSignalStack, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  stack.ss_size = kSignalStack;
  sigaltstack(&stack, nullptr);
  struct sigaction action = {};
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  action.sa_sigaction = [](int signal, siginfo_t* info, void* context) {
    // The tested flags are still there: with AC even the handler's own accesses might fault.
    asm volatile("pushfq\n\tandl $~0x40000, (%%rsp)\n\tpopfq" : : : "memory", "cc");
    OnSignal(signal, info, context);
  };
  for (int signal : kSignals) sigaction(signal, &action, nullptr);
  prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
  // The first HLT starts the first case.
  reinterpret_cast<void (*)()>(window::kCode)();
  __builtin_unreachable();
}

void NativeRunner::OnSignal(int, void*, void* opaque) {
  auto* batch = static_cast<Batch*>(g_batch);
  auto* context = static_cast<ucontext_t*>(opaque);
  auto& registers = context->uc_mcontext.gregs;
  static bool started = false;
  if (started) {
    NativeCase& done = batch->cases[batch->next];
    for (size_t i = 0; i < 16; ++i) {
      done.after.r[i] = static_cast<uint64_t>(registers[kRegisters[i]]);
    }
    done.after.rip = static_cast<uint64_t>(registers[REG_RIP]);
    done.after.rflags = static_cast<uint64_t>(registers[REG_EFL]);
    asm volatile("rdgsbase %0" : "=r"(done.after.gs_base));
    done.vector = static_cast<uint8_t>(registers[REG_TRAPNO]);
    done.error_code = static_cast<uint32_t>(registers[REG_ERR]);
    done.fault_address = static_cast<uint64_t>(registers[REG_CR2]);
    memcpy(done.memory.data(), At(window::kReadOnly), window::kSize);
    memset(At(done.before.rip), window::kHalt, done.length);
    ++batch->next;
  }
  started = true;
  if (batch->next == batch->count) {
    // exit, not exit_group: all that seccomp's strict mode allows.
    syscall(SYS_exit, 0);
  }
  Prepare(batch, opaque);
}

void NativeRunner::Prepare(Batch* batch, void* opaque) {
  auto* context = static_cast<ucontext_t*>(opaque);
  auto& registers = context->uc_mcontext.gregs;
  const NativeCase& next = batch->cases[batch->next];
  memcpy(At(window::kWritable), batch->pattern.data() + window::kPage, window::kWritableSize);
  for (const NativeCase::Patch& patch : next.patches) {
    if (patch.address != 0) memcpy(At(patch.address), &patch.value, 8);
  }
  memcpy(At(next.before.rip), next.code.data(), next.length);
  for (size_t i = 0; i < 16; ++i) {
    registers[kRegisters[i]] = static_cast<greg_t>(next.before.r[i]);
  }
  registers[REG_RIP] = static_cast<greg_t>(next.before.rip);
  registers[REG_EFL] = static_cast<greg_t>(next.before.rflags | 0x202);
  asm volatile("wrgsbase %0" : : "r"(next.before.gs_base));
}

}  // namespace cube::vmm::ring0
