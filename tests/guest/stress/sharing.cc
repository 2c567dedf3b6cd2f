// Memory that several processes share, and threads that compute while the mappings beside them come
// and go by the thousand.
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "tests/guest/stress/stress.h"

namespace cube::testing {
namespace {

constexpr uint32_t kProcesses = 4;
constexpr size_t kWords = kPage / 8;

uint64_t Mix(uint64_t a, uint64_t b) { return Random(a * 64 + b).Next(); }

void Wait(std::atomic<uint32_t>* word, uint32_t value) {
  syscall(SYS_futex, word, FUTEX_WAIT, value, nullptr, nullptr, 0);
}

void WakeAll(std::atomic<uint32_t>* word) {
  syscall(SYS_futex, word, FUTEX_WAKE, kProcesses, nullptr, nullptr, 0);
}

template <typename Body>
void InProcesses(const Body& body) {
  pid_t children[kProcesses];
  for (uint32_t i = 0; i < kProcesses; ++i) children[i] = Fork([&] { body(i); });
  for (pid_t child : children) Join(child);
}

// A token goes round between processes by futex; who has it changes all pages, and finds them as
// the one before has left them.
void TokenRing(Run& run) {
  constexpr size_t kPages = 24;
  auto* shared = static_cast<uint64_t*>(
      Map(nullptr, (kPages + 1) * kPage, PROT_READ | PROT_WRITE, MAP_SHARED));
  auto* turn = reinterpret_cast<std::atomic<uint32_t>*>(shared + kPages * kWords);
  InProcesses([&](uint32_t process) {
    for (uint64_t round = 0; round < run.rounds; ++round) {
      uint32_t mine = static_cast<uint32_t>(round) * kProcesses + process;
      for (uint32_t seen; (seen = turn->load()) != mine;) Wait(turn, seen);
      for (size_t page = 0; page < kPages; ++page) {
        uint64_t* word = shared + page * kWords + (mine + page) % kWords;
        uint64_t* last = shared + page * kWords + (mine - 1 + page) % kWords;
        if (mine > 0 && *last != Mix(mine - 1, page))
          Fail("turn %u, page %zu: the last is not seen", mine, page);
        *word = Mix(mine, page);
      }
      // Now and then its own mapping goes away, and the pages are found again.
      if (run.rounds > 0 && (mine % 7) == 3) {
        Must(madvise(shared, kPages * kPage, MADV_DONTNEED) == 0, "madvise");
      }
      turn->fetch_add(1);
      WakeAll(turn);
    }
  });
  for (size_t i = 0; i < kPages * kWords; ++i) run.Add(shared[i]);
  Must(munmap(shared, (kPages + 1) * kPage) == 0, "munmap");
}

// One file seen at three places in every process: a store through one shows at the others.
void Aliases(Run& run) {
  constexpr size_t kPages = 8;
  int file = memfd_create("aliases", MFD_CLOEXEC);
  Must(file >= 0 && ftruncate(file, kPages * kPage) == 0, "memfd_create");
  auto map = [&](int flags) {
    void* at = mmap(nullptr, kPages * kPage, PROT_READ | PROT_WRITE, flags, file, 0);
    Must(at != MAP_FAILED, "mmap");
    return static_cast<volatile uint64_t*>(at);
  };
  InProcesses([&](uint32_t process) {
    volatile uint64_t* views[3] = {map(MAP_SHARED), map(MAP_SHARED), map(MAP_SHARED)};
    volatile uint64_t* own = map(MAP_PRIVATE);
    Random random(run.seed * kProcesses + process);
    for (uint64_t round = 0; round < run.rounds * 100; ++round) {
      size_t at =
          random.Below(kPages) * kWords + random.Below(kWords / kProcesses) * kProcesses + process;
      uint64_t value = random.Next();
      views[round % 3][at] = value;
      if (views[(round + 1) % 3][at] != value || views[(round + 2) % 3][at] != value) {
        Fail("an alias shows another value");
      }
      uint64_t through_file = 0;
      if (round % 16 == 0) {
        Must(pread(file, &through_file, 8, static_cast<off_t>(at * 8)) == 8, "pread");
        if (through_file != value) Fail("the file shows another value");
        value = ~value;
        Must(pwrite(file, &value, 8, static_cast<off_t>(at * 8)) == 8, "pwrite");
        if (views[round % 3][at] != value) Fail("a mapping does not show what was written");
      }
      if (round % 64 == 5) {  // its own copy stays what it was
        size_t page = random.Below(kPages) * kWords;
        own[page + process] = round;
        uint64_t before = views[0][page + process];
        views[1][page + process] = before + 1;
        if (own[page + process] != round) Fail("a private page has changed");
        views[1][page + process] = before;
      }
      if (round % 50 == 49) {
        auto* old = const_cast<uint64_t*>(views[round % 3]);
        void* fresh = Map(nullptr, kPages * kPage, PROT_NONE);
        Must(mremap(old, kPages * kPage, kPages * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, fresh) ==
                 fresh,
             "mremap");
        views[round % 3] = static_cast<volatile uint64_t*>(fresh);
      }
    }
  });
  volatile uint64_t* all = map(MAP_SHARED);
  for (size_t i = 0; i < kPages * kWords; ++i) run.Add(all[i]);
  Must(munmap(const_cast<uint64_t*>(all), kPages * kPage) == 0, "munmap");
  close(file);
}

// A robust mutex outlives its owners; a segment of System V memory outlives its mappings.
void Locks(Run& run) {
  struct Shared {
    pthread_mutex_t mutex;
    pthread_barrier_t barrier;
    uint64_t count;
    uint64_t deaths;
    std::atomic<uint64_t> atomic;
  };
  int id = shmget(IPC_PRIVATE, sizeof(Shared), IPC_CREAT | 0600);
  Must(id >= 0, "shmget");
  auto* shared = static_cast<Shared*>(shmat(id, nullptr, 0));
  Must(shared != reinterpret_cast<void*>(-1), "shmat");
  Must(shmctl(id, IPC_RMID, nullptr) == 0, "shmctl");
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(&shared->mutex, &attributes);
  pthread_barrierattr_t barrier_attributes;
  pthread_barrierattr_init(&barrier_attributes);
  pthread_barrierattr_setpshared(&barrier_attributes, PTHREAD_PROCESS_SHARED);
  pthread_barrier_init(&shared->barrier, &barrier_attributes, kProcesses);
  auto lock = [&] {
    int error = pthread_mutex_lock(&shared->mutex);
    if (error == EOWNERDEAD) {
      ++shared->deaths;
      error = pthread_mutex_consistent(&shared->mutex);
    }
    if (error != 0) Fail("pthread_mutex_lock: %s", strerror(error));
  };
  for (uint64_t round = 0; round < run.rounds; ++round) {
    InProcesses([&](uint32_t process) {
      pthread_barrier_wait(&shared->barrier);
      for (int i = 0; i < 200; ++i) {
        lock();
        ++shared->count;
        if (i % 50 == 0) sched_yield();
        pthread_mutex_unlock(&shared->mutex);
        shared->atomic.fetch_add(3);
      }
      pthread_barrier_wait(&shared->barrier);
      if (process == 0) {
        lock();
        _exit(0);  // with the mutex held
      }
    });
    lock();
    pthread_mutex_unlock(&shared->mutex);
  }
  if (shared->count != run.rounds * kProcesses * 200 || shared->deaths != run.rounds ||
      shared->atomic != run.rounds * kProcesses * 600) {
    Fail("count %llu, deaths %llu", (unsigned long long)shared->count,
         (unsigned long long)shared->deaths);
  }
  run.Add(shared->count + shared->deaths);
  Must(shmdt(shared) == 0, "shmdt");
}

// ---- storms

// Threads compute in pages whose neighbours, in the same page tables, are protected, unprotected,
// discarded, moved and unmapped all the time, 1 to 512 pages at once.
void Storm(Run& run) {
  constexpr size_t kSpan = 2 << 20;
  constexpr int kWorkers = 3;
  auto* base =
      static_cast<uint8_t*>(Map(nullptr, 4 * kSpan, PROT_READ | PROT_WRITE, MAP_NORESERVE));
  base = reinterpret_cast<uint8_t*>((reinterpret_cast<uint64_t>(base) + kSpan - 1) & ~(kSpan - 1));
  // Of every 64 pages the first 8 are the workers', the rest the storm's.
  constexpr size_t kGroup = 64, kStill = 8, kGroups = 2 * kSpan / kPage / kGroup;
  struct Worker {
    pthread_t thread;
    int index;
    uint8_t* base;
    uint64_t seed;
    std::atomic<bool>* done;
    uint64_t passes;
  };
  std::atomic<bool> done{false};
  Worker workers[kWorkers];
  for (int i = 0; i < kWorkers; ++i) {
    workers[i] = {0, i, base, run.seed, &done, 0};
    int error = pthread_create(
        &workers[i].thread, nullptr,
        [](void* argument) -> void* {
          auto* worker = static_cast<Worker*>(argument);
          auto word = [&](size_t n) {
            size_t page = n / kStill * kGroup + n % kStill;
            return reinterpret_cast<volatile uint64_t*>(worker->base + page * kPage) +
                   static_cast<size_t>(worker->index) * 16 + n % 16;
          };
          do {
            for (size_t n = 0; n < kGroups * kStill; ++n)
              *word(n) = Mix(worker->seed + worker->passes, n);
            for (size_t n = 0; n < kGroups * kStill; ++n) {
              if (*word(n) != Mix(worker->seed + worker->passes, n)) {
                Fail("worker %d, pass %llu: word %zu is lost", worker->index,
                     (unsigned long long)worker->passes, n);
              }
            }
            ++worker->passes;
          } while (!worker->done->load(std::memory_order_relaxed));
          return nullptr;
        },
        &workers[i]);
    if (error != 0) Fail("pthread_create: %s", strerror(error));
  }
  auto* elsewhere = static_cast<uint8_t*>(Map(nullptr, kSpan, PROT_NONE, MAP_NORESERVE));
  for (uint64_t round = 0; round < run.rounds * 40; ++round) {
    size_t group = run.random.Below(kGroups);
    size_t first = kStill + run.random.Below(kGroup - kStill);
    size_t count = 1 + run.random.Below(kGroup - first);
    uint8_t* at = base + (group * kGroup + first) * kPage;
    volatile auto* value = reinterpret_cast<volatile uint64_t*>(at);
    switch (run.random.Below(6)) {
      case 0:
        Must(mprotect(at, count * kPage, PROT_READ) == 0, "mprotect");
        if (TryWrite(value, 1) != SIGSEGV) Fail("a read-only page was written");
        Must(mprotect(at, count * kPage, PROT_READ | PROT_WRITE) == 0, "mprotect");
        break;
      case 1:
        Must(munmap(at, count * kPage) == 0, "munmap");
        if (TryWrite(value, 1) != SIGSEGV) Fail("a page that is gone was written");
        Map(at, count * kPage, PROT_READ | PROT_WRITE);
        break;
      case 2:
        for (size_t i = 0; i < count; ++i) at[i * kPage] = static_cast<uint8_t>(round);
        Must(madvise(at, count * kPage, MADV_DONTNEED) == 0, "madvise");
        if (*value != 0) Fail("a discarded page holds %#llx", (unsigned long long)*value);
        break;
      case 3: {
        // Made anew, for only an area that is one to the kernel can be moved.
        Map(at, count * kPage, PROT_READ | PROT_WRITE);
        *value = round;
        Must(mremap(at, count * kPage, count * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, elsewhere) ==
                 elsewhere,
             "mremap");
        if (*reinterpret_cast<volatile uint64_t*>(elsewhere) != round)
          Fail("a moved page is another");
        Must(mremap(elsewhere, count * kPage, count * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, at) ==
                 at,
             "mremap");
        if (*value != round) Fail("a page moved back is another");
        Map(elsewhere, count * kPage, PROT_NONE);
        break;
      }
      case 4:
        *value = round;
        Must(mprotect(at, count * kPage, PROT_NONE) == 0, "mprotect");
        Must(mprotect(at, count * kPage, PROT_READ | PROT_WRITE) == 0, "mprotect");
        if (*value != round) Fail("a page that was closed is another");
        break;
      default: {
        // All at once: two whole page tables of the storm's own.
        auto* large = static_cast<uint8_t*>(Map(nullptr, 2 * kSpan, PROT_READ | PROT_WRITE));
        for (size_t i = 0; i < 2 * kSpan; i += 16 * kPage) large[i] = static_cast<uint8_t>(i >> 16);
        Must(mprotect(large, 2 * kSpan, PROT_READ) == 0, "mprotect");
        for (size_t i = 0; i < 2 * kSpan; i += 16 * kPage) {
          if (large[i] != static_cast<uint8_t>(i >> 16)) Fail("a page of a large area is another");
        }
        Must(munmap(large, 2 * kSpan) == 0, "munmap");
        break;
      }
    }
  }
  done = true;
  for (Worker& worker : workers) {
    pthread_join(worker.thread, nullptr);
    if (worker.passes == 0) Fail("worker %d did nothing", worker.index);
  }
  run.Add(run.random.Next());
}

constexpr Subtest kSubtests[] = {
    {"token_ring", TokenRing, 100},
    {"aliases", Aliases, 20},
    {"locks", Locks, 10},
    {"storm", Storm, 20},
};

}  // namespace

std::span<const Subtest> SharingSubtests() { return kSubtests; }

}  // namespace cube::testing
