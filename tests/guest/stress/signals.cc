// Signals within signals, queues and masks of them, and stacks of their own for their handlers.
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdlib>

#include "tests/guest/stress/stress.h"

namespace cube::testing {
namespace {

using Handler = void (*)(int, siginfo_t*, void*);

// The processes that use these have one thread that does.
uint64_t seen[256];
size_t seen_count;
int deepest, depth;

void Note(uint64_t value) {
  if (seen_count < sizeof seen / sizeof seen[0]) seen[seen_count] = value;
  ++seen_count;
}

void Install(int signal, Handler handler, int flags, const sigset_t* mask = nullptr) {
  struct sigaction action = {};
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO | flags;
  if (mask != nullptr) action.sa_mask = *mask;
  Must(sigaction(signal, &action, nullptr) == 0, "sigaction");
}

void Queue(int signal, int value) {
  sigval with;
  with.sival_int = value;
  Must(sigqueue(getpid(), signal, with) == 0, "sigqueue");
}

// Each handler raises the next signal before it returns, and finds its own frame whole after it.
void OnNested(int signal, siginfo_t* info, void*) {
  uint64_t pattern[32];
  for (uint64_t i = 0; i < 32; ++i)
    pattern[i] = static_cast<uint64_t>(info->si_value.sival_int) + i;
  asm volatile("" ::"r"(pattern) : "memory");
  if (++depth > deepest) deepest = depth;
  Note(static_cast<uint64_t>(signal));
  if (signal < SIGRTMIN + 9) Queue(signal + 1, info->si_value.sival_int + 1);
  for (uint64_t i = 0; i < 32; ++i) {
    if (pattern[i] != static_cast<uint64_t>(info->si_value.sival_int) + i) {
      Fail("the frame of signal %d has changed", signal);
    }
  }
  Note(static_cast<uint64_t>(signal) | 0x100);
  --depth;
}

void OnSelf(int signal, siginfo_t* info, void*) {
  if (++depth > deepest) deepest = depth;
  if (info->si_value.sival_int > 0) Queue(signal, info->si_value.sival_int - 1);
  Note(static_cast<uint64_t>(info->si_value.sival_int));
  --depth;
}

void Nested(Run& run) {
  for (uint64_t round = 0; round < run.rounds; ++round) {
    // A chain of ten signals.
    depth = deepest = 0;
    seen_count = 0;
    for (int i = 0; i < 10; ++i) Install(SIGRTMIN + i, OnNested, 0);
    Queue(SIGRTMIN, static_cast<int>(run.random.Below(1000)));
    if (deepest != 10 || seen_count != 20) Fail("depth %d, %zu notes", deepest, seen_count);
    for (size_t i = 0; i < seen_count; ++i) run.Add(seen[i]);

    // One within itself; and one that masks itself, and so comes after itself.
    for (int flags : {SA_NODEFER, 0}) {
      depth = deepest = 0;
      seen_count = 0;
      Install(SIGRTMIN, OnSelf, flags);
      Queue(SIGRTMIN, 40);
      int wanted = flags != 0 ? 41 : 1;
      if (deepest != wanted || seen_count != 41) {
        Fail("flags %#x: depth %d, not %d, %zu notes", flags, deepest, wanted, seen_count);
      }
      for (size_t i = 0; i < seen_count; ++i) run.Add(seen[i]);
    }

    // Signals that waited come by their number, each in the order of its queue.
    sigset_t all, before;
    sigfillset(&all);
    for (int i = 0; i < 10; ++i) {
      Install(
          SIGRTMIN + i,
          [](int signal, siginfo_t* info, void*) {
            Note(static_cast<uint64_t>(signal) << 32 |
                 static_cast<uint32_t>(info->si_value.sival_int));
          },
          0, &all);
    }
    Must(sigprocmask(SIG_BLOCK, &all, &before) == 0, "sigprocmask");
    seen_count = 0;
    for (int i = 0; i < 100; ++i) Queue(SIGRTMIN + static_cast<int>(run.random.Below(10)), i);
    if (seen_count != 0) Fail("%zu signals came while they were masked", seen_count);
    Must(sigprocmask(SIG_SETMASK, &before, nullptr) == 0, "sigprocmask");
    if (seen_count != 100) Fail("%zu of 100 queued signals came", seen_count);
    // The last frame built is the first to run: see signal(7).
    for (size_t i = 1; i < seen_count; ++i) {
      if (seen[i - 1] >> 32 == seen[i] >> 32 && seen[i - 1] >= seen[i]) {
        Fail("signal %llu out of its order", (unsigned long long)(seen[i] >> 32));
      }
    }
    for (size_t i = 0; i < seen_count; ++i) run.Add(seen[i]);
  }
}

// ---- alternate stacks

constexpr size_t kAlternate = 64 << 10;
thread_local sigjmp_buf overflow;
thread_local uint8_t *alternate, *small_stack;
thread_local volatile uint64_t caught;

bool OnAlternate(const void* at) { return at >= alternate && at < alternate + kAlternate; }

void OnInner(int, siginfo_t*, void*) {
  char here;
  if (!OnAlternate(&here)) Fail("a signal left the alternate stack");
  caught = caught + 1;
}

void OnOverflow(int, siginfo_t* info, void* context) {
  char here;
  if (!OnAlternate(&here)) Fail("the handler of an overflow is not on the alternate stack");
  stack_t state;
  Must(sigaltstack(nullptr, &state) == 0, "sigaltstack");
  if (state.ss_flags != SS_ONSTACK || state.ss_sp != alternate) Fail("flags %#x", state.ss_flags);
  state.ss_flags = 0;
  if (sigaltstack(&state, nullptr) != -1 || errno != EPERM) Fail("the stack in use was replaced");
  auto* address = static_cast<uint8_t*>(info->si_addr);
  if (address < small_stack || address >= small_stack + kPage) {
    Fail("the overflow was at %p, the guard at %p", info->si_addr, static_cast<void*>(small_stack));
  }
  const auto* machine = &static_cast<ucontext_t*>(context)->uc_mcontext;
  auto rsp = static_cast<uint64_t>(machine->gregs[REG_RSP]);
  if (rsp > reinterpret_cast<uint64_t>(small_stack) + 2 * kPage)
    Fail("rsp %#llx", (unsigned long long)rsp);
  // Another one within, on the same stack.
  uint64_t before = caught;
  Must(syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1) == 0, "tgkill");
  if (caught != before + 1) Fail("the signal within did not come");
  siglongjmp(overflow, 1);
}

// Too deep for any stack; each call counts what it was called by.
[[gnu::noinline]] uint64_t Recurse(uint64_t level) {
  volatile uint64_t frame[32];
  if (level == ~0ull) return 0;
  for (uint64_t i = 0; i < 32; ++i) frame[i] = level + i;
  uint64_t below = Recurse(level + 1);
  return below + frame[level % 32];
}

// A thread of a small stack overflows it again and again.
struct Overflows {
  uint64_t rounds;
  uint8_t* stack;
  volatile uint64_t done;
};

void* OverflowThread(void* argument) {
  auto* work = static_cast<Overflows*>(argument);
  small_stack = work->stack;
  alternate = static_cast<uint8_t*>(Map(nullptr, kAlternate, PROT_READ | PROT_WRITE));
  stack_t state = {alternate, 0, kAlternate};
  Must(sigaltstack(&state, nullptr) == 0, "sigaltstack");
  while (work->done < work->rounds) {
    if (sigsetjmp(overflow, 1) == 0) {
      uint64_t round = work->done;
      work->done = round + 1;
      Recurse(round);
      Fail("no overflow");
    }
    Must(sigaltstack(nullptr, &state) == 0, "sigaltstack");
    if (state.ss_flags != 0) Fail("still on the alternate stack");
  }
  if (caught != work->rounds) Fail("%llu signals within", (unsigned long long)caught);
  state.ss_flags = SS_DISABLE;
  Must(sigaltstack(&state, nullptr) == 0, "sigaltstack");
  Must(munmap(alternate, kAlternate) == 0, "munmap");
  return nullptr;
}

void AlternateStacks(Run& run) {
  constexpr size_t kStack = 128 << 10;
  constexpr int kThreads = 3;
  Install(SIGSEGV, OnOverflow, SA_ONSTACK);
  Install(SIGUSR1, OnInner, SA_ONSTACK);
  pthread_t threads[kThreads];
  Overflows work[kThreads];
  for (int i = 0; i < kThreads; ++i) {
    auto* stack = static_cast<uint8_t*>(Map(nullptr, kPage + kStack, PROT_READ | PROT_WRITE));
    Must(mprotect(stack, kPage, PROT_NONE) == 0, "mprotect");
    work[i] = {run.rounds, stack, 0};
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, stack + kPage, kStack);
    int error = pthread_create(&threads[i], &attributes, OverflowThread, &work[i]);
    if (error != 0) Fail("pthread_create: %s", strerror(error));
    pthread_attr_destroy(&attributes);
  }
  for (int i = 0; i < kThreads; ++i) {
    pthread_join(threads[i], nullptr);
    Must(munmap(work[i].stack, kPage + kStack) == 0, "munmap");
    run.Add(work[i].rounds);
  }
  // Where there is no room for any frame, the process dies of SIGSEGV, though it would catch it.
  for (bool with_alternate : {true, false}) {
    int status = StatusOf(Fork([&] {
      Install(
          SIGSEGV, [](int, siginfo_t*, void*) { _exit(3); }, SA_ONSTACK);
      if (with_alternate) {
        stack_t read_only = {Map(nullptr, 16 * kPage, PROT_READ), 0, 16 * kPage};
        Must(sigaltstack(&read_only, nullptr) == 0, "sigaltstack");
      }
      asm volatile("xor %%esp, %%esp; ud2" ::: "memory");
    }));
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSEGV) {
      Fail("without room for a frame: wait status %#x", static_cast<unsigned>(status));
    }
    run.Add(SIGSEGV);
  }
}

// ---- interrupted computing

volatile uint64_t ticks;

// A timer's signal at any moment of a computation, each handler itself computing, with the
// direction flag and the vector registers spoiled.
void Interrupted(Run& run) {
  Install(
      SIGALRM,
      [](int, siginfo_t*, void*) {
        ticks = ticks + 1;
        asm volatile(
            "std; pcmpeqd %%xmm0, %%xmm0; movdqa %%xmm0, %%xmm7; movdqa %%xmm0, %%xmm15; cld" ::
                : "xmm0", "xmm7", "xmm15", "cc");
        getppid();
      },
      SA_RESTART);
  Random random(run.seed);
  for (uint64_t round = 0; round < run.rounds; ++round) {
    itimerval every = {{0, 1000}, {0, 1000}};
    uint64_t before = ticks;
    Must(setitimer(ITIMER_REAL, &every, nullptr) == 0, "setitimer");
    uint64_t sum = 0, again = 0;
    do {
      uint64_t start = random.Next();
      auto hash = [start] {
        double x = 1;
        uint64_t value = start;
        for (int i = 0; i < 20000; ++i) {
          x = x * 1.0000001 + 0.5;
          value = value * 0x100000001b3 ^ static_cast<uint64_t>(x);
        }
        return value;
      };
      sum = hash();
      again = hash();
      if (sum != again)
        Fail("a computation gave %#llx and then %#llx", (unsigned long long)sum,
             (unsigned long long)again);
    } while (ticks < before + 5);
    every = {};
    Must(setitimer(ITIMER_REAL, &every, nullptr) == 0, "setitimer");
  }
  run.Add(run.rounds);
}

constexpr Subtest kSubtests[] = {
    {"nested_signals", Nested, 50},
    {"alternate_stacks", AlternateStacks, 50},
    {"interrupted", Interrupted, 50},
};

}  // namespace

std::span<const Subtest> SignalSubtests() { return kSubtests; }

}  // namespace cube::testing
