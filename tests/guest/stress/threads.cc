// Threads that use memory while one of them changes how it is mapped: when the system call has
// returned, no thread may see what was before.
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <functional>

#include "tests/guest/stress/stress.h"

namespace cube::testing {
namespace {

constexpr int kThreads = 4;

struct Worker {
  pthread_t thread;
  int index;
  const std::function<void(int)>* body;
};

// Runs `body(i)` in kThreads threads.
void InThreads(const std::function<void(int)>& body) {
  Worker workers[kThreads];
  for (int i = 0; i < kThreads; ++i) {
    workers[i] = {0, i, &body};
    int error = pthread_create(
        &workers[i].thread, nullptr,
        [](void* argument) -> void* {
          auto* worker = static_cast<Worker*>(argument);
          (*worker->body)(worker->index);
          return nullptr;
        },
        &workers[i]);
    if (error != 0) Fail("pthread_create: %s", strerror(error));
  }
  for (Worker& worker : workers) pthread_join(worker.thread, nullptr);
}

// Everyone waits for the last, spinning in user mode, so that a wrong translation stays in use.
class SpinBarrier {
 public:
  void Wait() {
    unsigned round = round_.load();
    if (arrived_.fetch_add(1) == kThreads - 1) {
      arrived_.store(0);
      round_.fetch_add(1);
      return;
    }
    for (unsigned spins = 0; round_.load() == round; ++spins) {
      if (spins % 256 == 255) sched_yield();
    }
  }

 private:
  std::atomic<unsigned> round_{0};
  std::atomic<int> arrived_{0};
};

void Expect(const char* what, int thread, volatile uint64_t* at, int signal, uint64_t wanted,
            int write_signal) {
  uint64_t value = 0;
  int got = TryRead(at, &value);
  if (got != signal || (got == 0 && value != wanted)) {
    Fail("%s: thread %d read signal %d, value %#llx, not %d, %#llx", what, thread, got,
         (unsigned long long)value, signal, (unsigned long long)wanted);
  }
  got = TryWrite(at + 8 + thread, 1);
  if (got != write_signal) Fail("%s: thread %d wrote with signal %d", what, thread, got);
}

// One thread changes the mapping, then all of them must find the new one.
void ShootDown(Run& run) {
  constexpr size_t kPages = 8;
  auto* memory = static_cast<uint8_t*>(Map(nullptr, kPages * kPage, PROT_READ | PROT_WRITE));
  auto* elsewhere = static_cast<uint8_t*>(Map(nullptr, kPages * kPage, PROT_READ | PROT_WRITE));
  int file = TemporaryFile("/tmp/shootdown");
  SpinBarrier barrier;
  const uint64_t seed = run.seed;
  InThreads([&](int thread) {
    Random random(seed);  // the same in each
    for (uint64_t round = 1; round <= run.rounds; ++round) {
      auto* at = reinterpret_cast<volatile uint64_t*>(memory + random.Below(kPages) * kPage);
      auto* moved = reinterpret_cast<volatile uint64_t*>(elsewhere);
      auto* page = const_cast<uint64_t*>(at);
      uint64_t what = random.Below(8);
      bool acts = static_cast<int>(random.Below(kThreads)) == thread;
      if (acts) *at = round;
      barrier.Wait();
      Expect("before", thread, at, 0, round, 0);
      barrier.Wait();
      switch (what) {
        case 0:
          if (acts) Must(munmap(page, kPage) == 0, "munmap");
          barrier.Wait();
          Expect("munmap", thread, at, SIGSEGV, 0, SIGSEGV);
          break;
        case 1:
          if (acts) Map(page, kPage, PROT_READ | PROT_WRITE);
          barrier.Wait();
          Expect("mmap", thread, at, 0, 0, 0);
          break;
        case 2:
          if (acts) Must(mprotect(page, kPage, PROT_READ) == 0, "mprotect");
          barrier.Wait();
          Expect("read-only", thread, at, 0, round, SIGSEGV);
          break;
        case 3:
          if (acts) Must(mprotect(page, kPage, PROT_NONE) == 0, "mprotect");
          barrier.Wait();
          Expect("no access", thread, at, SIGSEGV, 0, SIGSEGV);
          break;
        case 4:
          if (acts) {
            Must(mremap(page, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, elsewhere) == elsewhere,
                 "mremap");
          }
          barrier.Wait();
          Expect("moved from", thread, at, SIGSEGV, 0, SIGSEGV);
          Expect("moved to", thread, moved, 0, round, 0);
          break;
        case 5:
          if (acts) Must(madvise(page, kPage, MADV_DONTNEED) == 0, "madvise");
          barrier.Wait();
          Expect("discarded", thread, at, 0, 0, 0);
          break;
        case 6:
          if (acts) {
            Must(ftruncate(file, kPage) == 0, "ftruncate");
            Must(mmap(page, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) == page,
                 "mmap");
            *at = round + 7;
          }
          barrier.Wait();
          Expect("file", thread, at, 0, round + 7, 0);
          barrier.Wait();
          if (acts) Must(ftruncate(file, 0) == 0, "ftruncate");
          barrier.Wait();
          Expect("truncated", thread, at, SIGBUS, 0, SIGBUS);
          break;
        default:
          if (acts) {
            Join(Fork([&] { Expect("child", thread, at, 0, round, 0); *at = 0; }));
          }
          barrier.Wait();
          Expect("forked", thread, at, 0, round, 0);
          break;
      }
      barrier.Wait();
      if (acts) Map(page, kPage, PROT_READ | PROT_WRITE);
      barrier.Wait();
    }
  });
  run.Add(run.rounds);
}

// Threads write all the time while their process forks: the child's copy must stand still.
void ForkWhileWriting(Run& run) {
  constexpr size_t kPages = 16;
  auto* memory = static_cast<uint64_t*>(Map(nullptr, kPages * kPage, PROT_READ | PROT_WRITE));
  std::atomic<bool> done{false};
  InThreads([&](int thread) {
    if (thread != 0) {
      for (uint64_t i = 1; !done.load(std::memory_order_relaxed); ++i) {
        for (size_t page = 0; page < kPages; ++page) {
          auto* word = reinterpret_cast<volatile uint64_t*>(memory + page * kPage / 8) + thread;
          if (*word != i - 1) Fail("thread %d lost a store", thread);
          *word = i;
        }
      }
      return;
    }
    for (uint64_t round = 0; round < run.rounds; ++round) {
      Join(Fork([&] {
        uint64_t first[kPages][kThreads];
        for (size_t page = 0; page < kPages; ++page) {
          memcpy(first[page], memory + page * kPage / 8, sizeof first[page]);
        }
        for (int i = 0; i < 3; ++i) {
          usleep(500);
          for (size_t page = 0; page < kPages; ++page) {
            if (memcmp(first[page], memory + page * kPage / 8, sizeof first[page]) != 0) {
              Fail("page %zu of the child changes", page);
            }
          }
        }
      }));
    }
    done = true;
  });
  run.Add(run.rounds);
}

// Old pages must not be seen once a newer one is known to be there, without any barrier.
void Freshness(Run& run) {
  auto* page = static_cast<uint64_t*>(Map(nullptr, kPage, PROT_READ | PROT_WRITE));
  std::atomic<uint64_t> published{0};
  std::atomic<bool> done{false};
  InThreads([&](int thread) {
    if (thread != 0) {
      while (!done.load(std::memory_order_relaxed)) {
        uint64_t least = published.load();
        uint64_t value = 0;
        int signal = TryRead(page, &value);
        if (signal == 0 && value != 0 && value < least) {
          Fail("thread %d sees %llu after %llu", thread, (unsigned long long)value,
               (unsigned long long)least);
        }
      }
      return;
    }
    for (uint64_t round = 1; round <= run.rounds; ++round) {
      if (round % 2 == 0) Must(munmap(page, kPage) == 0, "munmap");
      Map(page, kPage, PROT_READ | PROT_WRITE);
      *static_cast<volatile uint64_t*>(page) = round;
      published.store(round);
      if (round % 16 == 0) sched_yield();
    }
    done = true;
  });
  run.Add(run.rounds);
}

void Futex(std::atomic<uint32_t>* word, int operation, uint32_t value) {
  syscall(SYS_futex, word, operation, value, nullptr, nullptr, 0);
}

// A token goes round through futexes; atomics and a mutex count; membarrier orders.
void Synchronisation(Run& run) {
  std::atomic<uint32_t> turn{0};
  std::atomic<uint64_t> count{0};
  uint64_t plain = 0;
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
  InThreads([&](int thread) {
    uint64_t last = Nanoseconds();
    for (uint64_t i = 0; i < run.rounds; ++i) {
      while (turn.load() % kThreads != static_cast<uint32_t>(thread)) {
        uint32_t seen = turn.load();
        if (seen % kThreads != static_cast<uint32_t>(thread)) {
          Futex(&turn, FUTEX_WAIT_PRIVATE, seen);
        }
      }
      turn.fetch_add(1);
      Futex(&turn, FUTEX_WAKE_PRIVATE, kThreads);
      for (int j = 0; j < 1000; ++j) count.fetch_add(1);
      pthread_mutex_lock(&mutex);
      ++plain;
      pthread_mutex_unlock(&mutex);
      Must(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0, "membarrier");
      uint64_t now = Nanoseconds();
      if (now < last) Fail("the clock went back by %llu ns", (unsigned long long)(last - now));
      last = now;
    }
  });
  if (count != run.rounds * kThreads * 1000 || plain != run.rounds * kThreads) Fail("lost counts");
  run.Add(count + plain);
}

// A clock that one thread read is not behind for another that is told of it.
void SharedClock(Run& run) {
  std::atomic<uint64_t> latest{0};
  InThreads([&](int thread) {
    for (uint64_t i = 0; i < run.rounds * 1000; ++i) {
      uint64_t known = latest.load();
      uint64_t now = Nanoseconds();
      if (now < known) {
        Fail("thread %d is %llu ns behind", thread, (unsigned long long)(known - now));
      }
      while (known < now && !latest.compare_exchange_weak(known, now)) {
      }
    }
  });
  run.Add(run.rounds);
}

constexpr Subtest kSubtests[] = {
    {"shootdown", ShootDown, 300},   {"fork_writing", ForkWhileWriting, 60},
    {"freshness", Freshness, 1500},  {"synchronisation", Synchronisation, 300},
    {"clock", SharedClock, 200},
};

}  // namespace

std::span<const Subtest> ThreadSubtests() { return kSubtests; }

}  // namespace cube::testing
