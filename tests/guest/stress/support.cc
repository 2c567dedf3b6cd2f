#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "tests/guest/stress/stress.h"

namespace cube::testing {
namespace {

thread_local sigjmp_buf retreat;
thread_local volatile bool armed = false;
thread_local Fault last_fault;

void OnFault(int signal, siginfo_t* info, void* context) {
  // The kernel leaves AC as it was, and the C library is not written for it.
  asm volatile("pushfq; andl $~0x40000, (%%rsp); popfq" ::: "memory", "cc");
  const auto* machine = &static_cast<ucontext_t*>(context)->uc_mcontext;
  last_fault = {info->si_code, reinterpret_cast<uint64_t>(info->si_addr),
                static_cast<uint64_t>(machine->gregs[REG_TRAPNO]),
                static_cast<uint64_t>(machine->gregs[REG_ERR])};
  if (!armed) {
    Fail("unexpected signal %d, code %d, address %#llx, rip %#llx, trap %llu, error %#llx", signal,
         info->si_code, static_cast<unsigned long long>(last_fault.address),
         static_cast<unsigned long long>(machine->gregs[REG_RIP]),
         static_cast<unsigned long long>(last_fault.trap),
         static_cast<unsigned long long>(last_fault.error));
  }
  siglongjmp(retreat, signal);
}

}  // namespace

void Fail(const char* format, ...) {
  char text[512];
  int length = snprintf(text, sizeof text, "pid %d: ", getpid());
  va_list arguments;
  va_start(arguments, format);
  length += vsnprintf(text + length, sizeof text - static_cast<size_t>(length) - 1, format,
                      arguments);
  va_end(arguments);
  text[length++] = '\n';
  if (write(1, text, static_cast<size_t>(length)) < 0) _exit(2);
  _exit(1);
}

void Must(bool ok, const char* what) {
  if (!ok) Fail("%s: %s", what, strerror(errno));
}

void* Map(void* at, size_t size, int protection, int more_flags) {
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | more_flags | (at != nullptr ? MAP_FIXED : 0);
  if ((more_flags & MAP_SHARED) != 0) flags &= ~MAP_PRIVATE;
  void* memory = mmap(at, size, protection, flags, -1, 0);
  Must(memory != MAP_FAILED, "mmap");
  return memory;
}

pid_t ForkOrFail() {
  pid_t child = fork();
  Must(child >= 0, "fork");
  return child;
}

void Leave(int status) { _exit(status); }

int StatusOf(pid_t child) {
  int status = -1;
  pid_t got;
  do {
    got = waitpid(child, &status, 0);
  } while (got < 0 && errno == EINTR);
  Must(got == child, "waitpid");
  return status;
}

void Join(pid_t child) {
  int status = StatusOf(child);
  if (status != 0) Fail("child %d ended with wait status %#x", child, static_cast<unsigned>(status));
}

int TemporaryFile(const char* name) {
  int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  Must(fd >= 0, name);
  Must(unlink(name) == 0, "unlink");
  return fd;
}

void CatchFaults() {
  struct sigaction action = {};
  action.sa_sigaction = OnFault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  for (int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP}) {
    Must(sigaction(signal, &action, nullptr) == 0, "sigaction");
  }
}

int TryRead(const volatile uint64_t* from, uint64_t* value) {
  if (int signal = sigsetjmp(retreat, 0); signal != 0) {
    armed = false;
    return signal;
  }
  armed = true;
  *value = *from;
  armed = false;
  return 0;
}

int TryWrite(volatile uint64_t* to, uint64_t value) {
  if (int signal = sigsetjmp(retreat, 0); signal != 0) {
    armed = false;
    return signal;
  }
  armed = true;
  *to = value;
  armed = false;
  return 0;
}

int TryCall(void (*function)()) {
  if (int signal = sigsetjmp(retreat, 0); signal != 0) {
    armed = false;
    return signal;
  }
  armed = true;
  function();
  armed = false;
  return 0;
}

Fault LastFault() { return last_fault; }

uint64_t Nanoseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000 + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace cube::testing
