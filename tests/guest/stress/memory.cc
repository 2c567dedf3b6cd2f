// Private memory of one process and its forks: every system call that changes page tables, checked
// against a model of what each page must hold and allow.
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "tests/guest/stress/stress.h"

namespace cube::testing {
namespace {

constexpr size_t kTableSpan = 2 << 20;  // of address space, mapped by one page table
constexpr size_t kWords = kPage / 8;

uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t x = a * 0x9e3779b97f4a7c15 + b;
  x ^= x >> 29;
  return x * 0xbf58476d1ce4e5b9 ^ x >> 32;
}

// Groups of pages around the boundaries between page tables, so that tables come and go with them.
class ModelledPages {
 public:
  ModelledPages() {
    auto start = reinterpret_cast<uint64_t>(
        Map(nullptr, (kGroups + 2) * kTableSpan, PROT_NONE, MAP_NORESERVE));
    base_ = (start + kTableSpan - 1) / kTableSpan * kTableSpan + kTableSpan - kGroup / 2 * kPage;
    Must(munmap(reinterpret_cast<void*>(start), (kGroups + 2) * kTableSpan) == 0, "munmap");
    Must(pipe(pipe_) == 0, "pipe");
  }

  void Step(Run& run, int depth) {
    size_t group = run.random.Below(kGroups);
    size_t first = group * kGroup + run.random.Below(kGroup);
    size_t count = 1 + run.random.Below((group + 1) * kGroup - first);
    const int protections[] = {PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE,
                               PROT_READ | PROT_WRITE};
    int protection = protections[run.random.Below(4)];
    switch (run.random.Below(20)) {
      case 0:
      case 1: MapNew(first, count, protection); break;
      case 2: Unmap(first, count); break;
      case 3: Unmap(group * kGroup, kGroup); break;
      case 4:
      case 5:
      case 6: Protect(first, count, protection); break;
      case 7: Discard(first, count); break;
      case 8: Move(first, run.random.Below(kPages)); break;
      case 9:
        if (depth < 3 && run.random.Below(4) == 0) ForkAndGoOn(run, depth);
        break;
      case 10: Copy(first, run.random.Below(kPages)); break;
      default: break;
    }
    for (int i = 0; i < 3; ++i) {
      size_t page = run.random.Below(kPages);
      if (run.random.Below(2) == 0) {
        Write(page, run.random.Next() | 1);
      } else {
        Read(page, run.random.Below(kWords));
      }
    }
  }

  void CheckAll(Run& run) {
    for (size_t page = 0; page < kPages; ++page) {
      Read(page, run.random.Below(kWords));
      run.Add(state_[page].pattern);
      run.Add(static_cast<uint64_t>(state_[page].protection));
    }
  }

 private:
  static constexpr size_t kGroups = 6, kGroup = 16, kPages = kGroups * kGroup;
  struct State {
    bool mapped = false;
    int protection = PROT_NONE;
    uint64_t pattern = 0;  // 0: zeros
  };

  uint8_t* Address(size_t page) const {
    return reinterpret_cast<uint8_t*>(base_ + page / kGroup * kTableSpan + page % kGroup * kPage);
  }
  bool Readable(size_t page) const { return (state_[page].protection & PROT_READ) != 0; }
  bool Writable(size_t page) const { return (state_[page].protection & PROT_WRITE) != 0; }
  uint64_t Word(size_t page, size_t word) const {
    return state_[page].pattern == 0 ? 0 : Mix(state_[page].pattern, word);
  }

  void MapNew(size_t first, size_t count, int protection) {
    Map(Address(first), count * kPage, protection);
    for (size_t i = first; i < first + count; ++i) state_[i] = {true, protection, 0};
  }
  void Unmap(size_t first, size_t count) {
    Must(munmap(Address(first), count * kPage) == 0, "munmap");
    for (size_t i = first; i < first + count; ++i) state_[i] = {};
  }
  void Protect(size_t first, size_t count, int protection) {
    for (size_t i = first; i < first + count; ++i) {
      if (!state_[i].mapped) MapNew(i, 1, protection);
    }
    Must(mprotect(Address(first), count * kPage, protection) == 0, "mprotect");
    for (size_t i = first; i < first + count; ++i) state_[i].protection = protection;
  }
  void Discard(size_t first, size_t count) {
    for (size_t i = first; i < first + count; ++i) {
      if (!state_[i].mapped) MapNew(i, 1, PROT_READ);
    }
    Must(madvise(Address(first), count * kPage, MADV_DONTNEED) == 0, "madvise");
    for (size_t i = first; i < first + count; ++i) state_[i].pattern = 0;
  }
  void Move(size_t from, size_t to) {
    if (from == to || !state_[from].mapped) return;
    void* at = mremap(Address(from), kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, Address(to));
    Must(at == Address(to), "mremap");
    state_[to] = state_[from];
    state_[from] = {};
  }
  // By the kernel, which must meet the same faults.
  void Copy(size_t from, size_t to) {
    ssize_t wrote = write(pipe_[1], Address(from), kPage);
    if (!Readable(from)) {
      if (wrote != -1 || errno != EFAULT) Fail("write from page %zu gave %zd", from, wrote);
      return;
    }
    if (wrote != static_cast<ssize_t>(kPage)) Fail("write from page %zu gave %zd", from, wrote);
    ssize_t got = read(pipe_[0], Address(to), kPage);
    if (Writable(to)) {
      if (got != static_cast<ssize_t>(kPage)) Fail("read to page %zu gave %zd", to, got);
      state_[to].pattern = state_[from].pattern;
      return;
    }
    if (got != -1 || errno != EFAULT) Fail("read to page %zu gave %zd", to, got);
    uint64_t drain[kWords];
    Must(read(pipe_[0], drain, sizeof drain) == sizeof drain, "read");
    for (size_t i = 0; i < kWords; ++i) {
      if (drain[i] != Word(from, i)) Fail("page %zu arrived as something else", from);
    }
  }
  void Read(size_t page, size_t word) {
    uint64_t value;
    auto* at = reinterpret_cast<uint64_t*>(Address(page)) + word;
    int signal = TryRead(at, &value);
    if (signal != (Readable(page) ? 0 : SIGSEGV)) {
      Fail("reading page %zu, protection %d: signal %d", page, state_[page].protection, signal);
    }
    if (signal == 0 && value != Word(page, word)) {
      Fail("page %zu word %zu is %#llx, not %#llx", page, word,
           static_cast<unsigned long long>(value),
           static_cast<unsigned long long>(Word(page, word)));
    }
    if (signal != 0 && LastFault().address != reinterpret_cast<uint64_t>(at)) {
      Fail("the fault of page %zu was at %#llx", page,
           static_cast<unsigned long long>(LastFault().address));
    }
  }
  void Write(size_t page, uint64_t pattern) {
    auto* at = reinterpret_cast<uint64_t*>(Address(page));
    int signal = TryWrite(at, Mix(pattern, 0));
    if (signal != (Writable(page) ? 0 : SIGSEGV)) {
      Fail("writing page %zu, protection %d: signal %d", page, state_[page].protection, signal);
    }
    if (signal != 0) return;
    state_[page].pattern = pattern;
    for (size_t i = 1; i < kWords; ++i) at[i] = Word(page, i);
  }
  // Parent and child go on at the same time, each with what it had.
  void ForkAndGoOn(Run& run, int depth) {
    uint64_t seed = run.random.Next();
    pid_t child = Fork([&] {
      Must(pipe(pipe_) == 0, "pipe");  // the parent uses the other
      run.random = Random(seed);
      for (int i = 0; i < 40; ++i) Step(run, depth + 1);
      CheckAll(run);
      for (int fd : pipe_) close(fd);
    });
    for (int i = 0; i < 30; ++i) Step(run, depth + 1);
    CheckAll(run);
    Join(child);
  }

  uint64_t base_;
  int pipe_[2];
  State state_[kPages];
};

void Model(Run& run) {
  ModelledPages pages;
  for (uint64_t i = 0; i < run.rounds; ++i) pages.Step(run, 0);
  pages.CheckAll(run);
}

// The same in several processes, which hand page-table pages to each other through the allocator.
void Models(Run& run) {
  std::vector<pid_t> children;
  for (uint64_t i = 0; i < 5; ++i) {
    children.push_back(Fork([&] {
      run.random = Random(run.seed * 16 + i);
      Model(run);
    }));
  }
  for (pid_t child : children) Join(child);
}

// Pages become page tables, data that looks like page-table entries, and page tables again.
void RecycleIn(Run& run) {
  constexpr size_t kTables = 60;
  auto start = reinterpret_cast<uint64_t>(
      Map(nullptr, (kTables + 1) * kTableSpan, PROT_READ | PROT_WRITE, MAP_NORESERVE));
  start = (start + kTableSpan - 1) / kTableSpan * kTableSpan;
  for (uint64_t round = 0; round < run.rounds; ++round) {
    uint64_t seed = run.random.Next();
    auto sparse = [&](size_t i) {
      return reinterpret_cast<volatile uint64_t*>(start + i * kTableSpan +
                                                  (seed >> (i % 32) & 511) * kPage);
    };
    for (size_t i = 0; i < kTables; ++i) {
      if (*sparse(i) != 0) Fail("a new sparse page holds %#llx", (unsigned long long)*sparse(i));
      *sparse(i) = Mix(seed, i);
    }
    for (size_t i = 0; i < kTables; ++i) {
      if (*sparse(i) != Mix(seed, i)) Fail("sparse page %zu is lost", i);
      run.Add(*sparse(i));
    }
    Map(reinterpret_cast<void*>(start), kTables * kTableSpan, PROT_READ | PROT_WRITE,
        MAP_NORESERVE);
    auto* dense = static_cast<uint64_t*>(Map(nullptr, 2 * kTables * kPage, PROT_READ | PROT_WRITE));
    for (size_t i = 0; i < 2 * kTables * kWords; ++i) {
      if (dense[i] != 0) Fail("a new dense word holds %#llx", (unsigned long long)dense[i]);
      // Present, user, writable, accessed, dirty, somewhere in the first 64 MiB.
      dense[i] = 0x67 | (Mix(seed, i) & 0x3fff000);
    }
    for (size_t i = 0; i < 2 * kTables * kWords; ++i) {
      if (dense[i] != (0x67 | (Mix(seed, i) & 0x3fff000))) Fail("dense word %zu is lost", i);
    }
    Must(munmap(dense, 2 * kTables * kPage) == 0, "munmap");
  }
}
void Recycle(Run& run) {
  std::vector<pid_t> children;
  for (uint64_t i = 0; i < 3; ++i) {
    children.push_back(Fork([&] {
      run.random = Random(run.seed * 16 + i);
      RecycleIn(run);
    }));
  }
  RecycleIn(run);
  for (pid_t child : children) Join(child);
}

// Large ranges at once.
void Large(Run& run) {
  constexpr size_t kCount = 2048;
  auto* memory = static_cast<uint64_t*>(Map(nullptr, kCount * kPage, PROT_READ | PROT_WRITE));
  auto word = [&](size_t page) { return memory + page * kWords + page % kWords; };
  for (uint64_t round = 0; round < run.rounds; ++round) {
    for (size_t i = 0; i < kCount; ++i) {
      if (*word(i) != 0) Fail("page %zu is not zero", i);
    }
    for (size_t i = 0; i < kCount; ++i) *word(i) = Mix(round, i);
    for (int protection : {PROT_READ, PROT_NONE, PROT_READ | PROT_WRITE, PROT_READ}) {
      Must(mprotect(memory, kCount * kPage, protection) == 0, "mprotect");
      for (int probe = 0; probe < 100; ++probe) {
        size_t page = run.random.Below(kCount);
        uint64_t value = Mix(round, page);
        if ((TryRead(word(page), &value) == 0) != ((protection & PROT_READ) != 0) ||
            (TryWrite(word(page), value) == 0) != ((protection & PROT_WRITE) != 0)) {
          Fail("page %zu has not protection %d", page, protection);
        }
      }
    }
    for (size_t i = 0; i < kCount; ++i) {
      if (*word(i) != Mix(round, i)) Fail("page %zu is lost", i);
      run.Add(*word(i));
    }
    void* elsewhere = mremap(memory, kCount * kPage, kCount * kPage, MREMAP_MAYMOVE | MREMAP_FIXED,
                             Map(nullptr, kCount * kPage, PROT_NONE));
    Must(elsewhere != MAP_FAILED, "mremap");
    memory = static_cast<uint64_t*>(elsewhere);
    for (size_t i = 0; i < kCount; ++i) {
      if (*word(i) != Mix(round, i)) Fail("page %zu was lost on its way", i);
    }
    Must(mprotect(memory, kCount * kPage, PROT_READ | PROT_WRITE) == 0, "mprotect");
    Must(madvise(memory, kCount * kPage, MADV_DONTNEED) == 0, "madvise");
  }
}

// Generations of forks, each of which changes what it inherited before and after it forks.
void Generation(Run& run, uint64_t* memory, size_t count, int depth, uint64_t id) {
  auto check = [&](uint64_t tag) {
    for (size_t i = 0; i < count; ++i) {
      if (memory[i * kWords] != Mix(tag, i)) {
        Fail("generation %d, process %llu: page %zu is another's", depth, (unsigned long long)id,
             i);
      }
    }
  };
  auto mark = [&](uint64_t tag) {
    for (size_t i = 0; i < count; ++i) memory[i * kWords] = Mix(tag, i);
  };
  mark(id);
  pid_t children[2] = {};
  for (uint64_t i = 0; depth > 0 && i < 2; ++i) {
    children[i] = Fork([&] {
      check(id + i);
      Generation(run, memory, count, depth - 1, id * 16 + 2 * i + 2);
    });
    mark(id + i + 1);
  }
  check(depth > 0 ? id + 2 : id);
  for (pid_t child : children) {
    if (child != 0) Join(child);
  }
  check(depth > 0 ? id + 2 : id);
  run.Add(memory[0]);
}
void Generations(Run& run) {
  auto* memory = static_cast<uint64_t*>(Map(nullptr, 64 * kPage, PROT_READ | PROT_WRITE));
  for (uint64_t i = 0; i < run.rounds; ++i) Generation(run, memory, 64, 3, i + 16);
}

constexpr Subtest kSubtests[] = {
    {"model", Model, 6000},       {"models", Models, 1500},          {"recycle", Recycle, 12},
    {"large", Large, 2},          {"generations", Generations, 4},
};

}  // namespace

std::span<const Subtest> MemorySubtests() { return kSubtests; }

}  // namespace cube::testing
