// What the kernel's services cost a program, and what user mode costs: run in a guest by
// bench/ring0.py.
//
//   ring0_bench [--seconds S] [NAME...]   measures each operation (or those named) for about S
//                                         seconds; prints one JSON object of nanoseconds
//   ring0_bench --repeat NAME COUNT       carries one operation out COUNT times, for those who
//                                         count from outside
//
// An operation is timed in batches long enough for the clock. Preparation and cleaning up are not
// timed. Linked statically: the guest needs nothing but /bin/true, and for two lines python3.

#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

constexpr size_t kPage = 4096;
constexpr size_t kMiB = 1 << 20;
// Pages of one mapping whose faults are timed.
constexpr size_t kFaultPages = 256;
constexpr char kFile[] = "/tmp/ring0_bench.file";

[[noreturn]] void Fail(const char* what) {
  perror(what);
  _exit(1);
}

void Check(bool ok, const char* what) {
  if (!ok) Fail(what);
}

double Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

// Carries an operation out `count` times and returns the nanoseconds they took together.
using Operation = double (*)(long count);

template <typename Step>
double Timed(long count, Step step) {
  double start = Now();
  for (long i = 0; i < count; ++i) step();
  return Now() - start;
}

// ---- system calls

double GetPid(long count) {
  return Timed(count, [] { syscall(SYS_getpid); });
}

double GetParentPid(long count) {
  return Timed(count, [] { syscall(SYS_getppid); });
}

double MapAndUnmap(long count) {
  return Timed(count, [] {
    void* at = mmap(nullptr, 16 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    Check(at != MAP_FAILED, "mmap");
    munmap(at, 16 * kPage);
  });
}

void OnSignal(int) {}

double Signal(long count) {
  signal(SIGUSR1, OnSignal);
  pid_t self = getpid();
  return Timed(count, [self] { kill(self, SIGUSR1); });
}

// ---- page faults, per page

volatile uint8_t g_sink;

// Touches `count` pages in mappings of kFaultPages each, with only the touching timed.
double TouchPages(long count, int fd, int flags, bool write) {
  double total = 0;
  while (count > 0) {
    size_t pages = std::min<size_t>(count, kFaultPages);
    auto* at = static_cast<uint8_t*>(
        mmap(nullptr, pages * kPage, write ? PROT_READ | PROT_WRITE : PROT_READ, flags, fd, 0));
    Check(at != MAP_FAILED, "mmap");
    if (fd < 0) madvise(at, pages * kPage, MADV_NOHUGEPAGE);
    double start = Now();
    for (size_t i = 0; i < pages; ++i) {
      if (write) {
        static_cast<volatile uint8_t*>(at)[i * kPage] = 1;
      } else {
        g_sink = static_cast<volatile uint8_t*>(at)[i * kPage];
      }
    }
    total += Now() - start;
    munmap(at, pages * kPage);
    count -= static_cast<long>(pages);
  }
  return total;
}

int OpenFile() {
  static int fd = -1;
  if (fd >= 0) return fd;
  fd = open(kFile, O_RDWR | O_CREAT | O_TRUNC, 0600);
  Check(fd >= 0, kFile);
  std::vector<uint8_t> content(kMiB, 0x5a);
  Check(write(fd, content.data(), content.size()) == static_cast<ssize_t>(kMiB), "write");
  return fd;
}

double AnonymousWriteFault(long count) {
  return TouchPages(count, -1, MAP_PRIVATE | MAP_ANONYMOUS, true);
}

double ZeroPageFault(long count) {
  return TouchPages(count, -1, MAP_PRIVATE | MAP_ANONYMOUS, false);
}

double FileFault(long count) { return TouchPages(count, OpenFile(), MAP_SHARED, false); }

double CopyOnWriteFault(long count) { return TouchPages(count, OpenFile(), MAP_PRIVATE, true); }

// ---- files and pipes

double ReadMiB(long count) {
  static std::vector<uint8_t> buffer(kMiB, 1);
  int fd = OpenFile();
  return Timed(count, [fd] {
    Check(pread(fd, buffer.data(), kMiB, 0) == static_cast<ssize_t>(kMiB), "pread");
  });
}

double ReadPage(long count) {
  static uint8_t buffer[kPage];
  int fd = OpenFile();
  return Timed(count, [fd] {
    Check(pread(fd, buffer, kPage, 8 * kPage) == static_cast<ssize_t>(kPage), "pread");
  });
}

double PipeToSelf(long count) {
  int ends[2];
  Check(pipe(ends) == 0, "pipe");
  double total = Timed(count, [&ends] {
    char byte = 0;
    Check(write(ends[1], &byte, 1) == 1 && read(ends[0], &byte, 1) == 1, "pipe");
  });
  close(ends[0]);
  close(ends[1]);
  return total;
}

double PipeRoundTrip(long count) {
  int there[2], back[2];
  Check(pipe(there) == 0 && pipe(back) == 0, "pipe");
  pid_t child = fork();
  if (child == 0) {
    close(there[1]);
    char byte;
    while (read(there[0], &byte, 1) == 1) Check(write(back[1], &byte, 1) == 1, "write");
    _exit(0);
  }
  Check(child > 0, "fork");
  auto step = [&] {
    char byte = 0;
    Check(write(there[1], &byte, 1) == 1 && read(back[0], &byte, 1) == 1, "pipe");
  };
  step();  // the child's first faults are not a round trip's
  double total = Timed(count, step);
  for (int fd : {there[1], there[0], back[0], back[1]}) close(fd);
  waitpid(child, nullptr, 0);
  return total;
}

// ---- the kernel's code for itself

// A path of 2,000 components that lead nowhere: one long piece of kernel code for each exit.
double PathWalk(long count) {
  std::string path = "/tmp";
  for (int i = 0; i < 2000; ++i) path += "/.";
  return Timed(count, [&path] { Check(access(path.c_str(), F_OK) == 0, "access"); });
}

// ---- threads

void* EmptyThread(void*) { return nullptr; }

double Thread(long count) {
  return Timed(count, [] {
    pthread_t thread;
    Check(pthread_create(&thread, nullptr, EmptyThread, nullptr) == 0, "pthread_create");
    pthread_join(thread, nullptr);
  });
}

struct PingPong {
  std::atomic<uint32_t> turn = 0;
  long count;
};

void WaitForTurn(PingPong* game, uint32_t mine) {
  while (game->turn.load() != mine) {
    syscall(SYS_futex, &game->turn, FUTEX_WAIT_PRIVATE, mine ^ 1, nullptr, nullptr, 0);
  }
}

void PassTurn(PingPong* game, uint32_t mine) {
  game->turn.store(mine ^ 1);
  syscall(SYS_futex, &game->turn, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

void* Pong(void* argument) {
  auto* game = static_cast<PingPong*>(argument);
  for (long i = 0; i <= game->count; ++i) {
    WaitForTurn(game, 1);
    PassTurn(game, 1);
  }
  return nullptr;
}

double FutexRoundTrip(long count) {
  PingPong game;
  game.count = count;
  pthread_t thread;
  Check(pthread_create(&thread, nullptr, Pong, &game) == 0, "pthread_create");
  auto step = [&game] {
    PassTurn(&game, 0);
    WaitForTurn(&game, 0);
  };
  step();
  double total = Timed(count, step);
  pthread_join(thread, nullptr);
  return total;
}

// ---- processes

void Reap(pid_t child) {
  int status;
  Check(child > 0 && waitpid(child, &status, 0) == child, "waitpid");
  if (status != 0) {
    fprintf(stderr, "a child ended with status %#x\n", static_cast<unsigned>(status));
    _exit(1);
  }
}

double ForkExit(long count) {
  return Timed(count, [] {
    pid_t child = fork();
    if (child == 0) _exit(0);
    Reap(child);
  });
}

char* const kTrue[] = {const_cast<char*>("true"), nullptr};
char* const kNoEnvironment[] = {nullptr};

double VforkExec(long count) {
  return Timed(count, [] {
    pid_t child = vfork();
    if (child == 0) {
      execve("/bin/true", kTrue, kNoEnvironment);
      _exit(127);
    }
    Reap(child);
  });
}

// As C libraries start programs: vfork, and a system call for each signal's handler.
double SpawnTrue(long count) {
  return Timed(count, [] {
    pid_t child;
    Check(posix_spawn(&child, "/bin/true", nullptr, nullptr, kTrue, kNoEnvironment) == 0, "spawn");
    Reap(child);
  });
}

double ForkExec(long count) {
  return Timed(count, [] {
    pid_t child = fork();
    if (child == 0) {
      execve("/bin/true", kTrue, kNoEnvironment);
      _exit(127);
    }
    Reap(child);
  });
}

double RunQuietly(long count, const char* program, char* const* arguments) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 1, "/tmp/ring0_bench.out", O_WRONLY | O_CREAT, 0600);
  double total = Timed(count, [&] {
    pid_t child;
    Check(posix_spawn(&child, program, &actions, nullptr, arguments, kNoEnvironment) == 0, program);
    Reap(child);
  });
  posix_spawn_file_actions_destroy(&actions);
  return total;
}

double Python(long count, const char* script) {
  char* const arguments[] = {const_cast<char*>("python3"), const_cast<char*>("-S"),
                             const_cast<char*>("-E"),      const_cast<char*>("-c"),
                             const_cast<char*>(script),    nullptr};
  return RunQuietly(count, "/usr/bin/python3", arguments);
}

double PythonPrint(long count) { return Python(count, "print(1)"); }

double PythonImports(long count) {
  return Python(count, "import json, re, hashlib; print(hashlib.sha256(b'1').hexdigest())");
}

// What test programs do: a shell that starts others, reads their output and writes files.
double ShellScript(long count) {
  char* const arguments[] = {
      const_cast<char*>("sh"), const_cast<char*>("-c"),
      const_cast<char*>("i=0; while [ $i -lt 10 ]; do echo line $i >/tmp/ring0_bench.text; "
                        "x=$(/bin/cat /tmp/ring0_bench.text | /bin/sed s/line/word/); "
                        "[ \"$x\" = \"word $i\" ] || exit 1; i=$((i+1)); done; "
                        "/bin/rm /tmp/ring0_bench.text"),
      nullptr};
  return RunQuietly(count, "/bin/sh", arguments);
}

// ---- user mode

// SHA-256 without its padding (FIPS 180-4): the constants come from a generator, for the work is
// the same.
double Hash64MiB(long count) {
  static std::vector<uint32_t> words(kMiB, 0x01234567);
  static uint32_t constants[64];
  uint32_t seed = 1;
  for (uint32_t& constant : constants) constant = seed = seed * 1664525 + 1013904223;
  uint32_t state[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  return Timed(count, [&state] {
    for (size_t block = 0; block < kMiB; ++block) {
      uint32_t w[64];
      memcpy(w, &words[block * 16 % words.size()], 64);
      for (int i = 16; i < 64; ++i) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + w[i - 7] + (std::rotr(a, 7) ^ std::rotr(a, 18) ^ a >> 3) +
               (std::rotr(b, 17) ^ std::rotr(b, 19) ^ b >> 10);
      }
      uint32_t v[8];
      memcpy(v, state, sizeof v);
      for (int i = 0; i < 64; ++i) {
        uint32_t e = v[4], a = v[0];
        uint32_t one = v[7] + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) +
                       ((e & v[5]) ^ (~e & v[6])) + constants[i] + w[i];
        uint32_t two = (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) +
                       ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
        for (int j = 7; j > 0; --j) v[j] = v[j - 1];
        v[4] += one;
        v[0] = one + two;
      }
      for (int i = 0; i < 8; ++i) state[i] += v[i];
    }
    g_sink = static_cast<uint8_t>(state[0]);
  });
}

double SortMillion(long count) {
  static std::vector<uint32_t> values(1000000);
  double total = 0;
  for (long i = 0; i < count; ++i) {
    uint32_t seed = 12345;
    for (uint32_t& value : values) value = seed = seed * 1664525 + 1013904223;
    total += Timed(1, [] { std::sort(values.begin(), values.end()); });
    g_sink = static_cast<uint8_t>(values[500000]);
  }
  return total;
}

// A byte-code interpreter on a loop of ten million rounds.
double ByteCode(long count) {
  enum : uint8_t { kAdd, kMultiply, kXor, kDecrement, kJumpIfNotZero, kEnd };
  struct Word {
    uint8_t code, target, source;
  };
  static const volatile Word kProgram[] = {{kAdd, 0, 1},       {kMultiply, 1, 2},
                                           {kXor, 1, 0},       {kDecrement, 3, 0},
                                           {kJumpIfNotZero, 0, 3}, {kEnd, 0, 0}};
  return Timed(count, [] {
    uint64_t registers[4] = {1, 2, 6364136223846793005, 10000000};
    for (size_t at = 0;;) {
      uint8_t target = kProgram[at].target, source = kProgram[at].source;
      switch (kProgram[at].code) {
        case kAdd: registers[target] += registers[source]; break;
        case kMultiply: registers[target] *= registers[source]; break;
        case kXor: registers[target] ^= registers[source]; break;
        case kDecrement: --registers[target]; break;
        case kJumpIfNotZero:
          if (registers[source] != 0) {
            at = target;
            continue;
          }
          break;
        default: g_sink = static_cast<uint8_t>(registers[0]); return;
      }
      ++at;
    }
  });
}

struct Line {
  const char* name;
  Operation operation;
};

constexpr Line kLines[] = {
    {"getpid", GetPid},
    {"getppid", GetParentPid},
    {"anonymous write fault", AnonymousWriteFault},
    {"zero page fault", ZeroPageFault},
    {"file fault, per page", FileFault},
    {"copy on write fault", CopyOnWriteFault},
    {"read 1 MiB", ReadMiB},
    {"pread 4 KiB", ReadPage},
    {"pipe to self", PipeToSelf},
    {"pipe round trip", PipeRoundTrip},
    {"path of 2000", PathWalk},
    {"mmap and munmap", MapAndUnmap},
    {"signal", Signal},
    {"thread", Thread},
    {"futex round trip", FutexRoundTrip},
    {"fork, exit", ForkExit},
    {"vfork, exec true", VforkExec},
    {"posix_spawn true", SpawnTrue},
    {"fork, exec true", ForkExec},
    {"shell script", ShellScript},
    {"python print", PythonPrint},
    {"python imports", PythonImports},
    {"user: hash 64 MiB", Hash64MiB},
    {"user: sort 1 M", SortMillion},
    {"user: byte code 50 M", ByteCode},
};

// Prints median and least of the batches, in nanoseconds an operation.
void Measure(const Line& line, double budget, bool first) {
  constexpr size_t kBatches = 15, kFewest = 3;
  constexpr long kLargest = 1000000;
  // The first operation is dearer than the others, and a clock may stand still for a short one: so
  // the batch grows by small factors until it takes its time.
  line.operation(1);
  const double wanted = budget / kBatches;
  long batch = 1;
  for (double took = line.operation(batch); took < wanted && batch < kLargest;) {
    batch = static_cast<long>(static_cast<double>(batch) *
                              std::clamp(wanted / std::max(took, 1.0), 1.2, 8.0)) + 1;
    took = line.operation(batch);
  }
  std::vector<double> samples;
  double start = Now();
  while (samples.size() < kFewest ||
         (samples.size() < kBatches && Now() - start < budget)) {
    samples.push_back(line.operation(batch) / static_cast<double>(batch));
  }
  std::sort(samples.begin(), samples.end());
  printf("%s\n\"%s\": {\"median\": %.1f, \"least\": %.1f, \"batches\": %zu, \"batch\": %ld}",
         first ? "" : ",", line.name, samples[samples.size() / 2], samples[0], samples.size(),
         batch);
  fflush(stdout);
}

int Main(int argc, char** argv) {
  if (argc == 4 && strcmp(argv[1], "--repeat") == 0) {
    for (const Line& line : kLines) {
      if (line.name != std::string(argv[2])) continue;
      long count = atol(argv[3]);
      line.operation(1);
      if (count > 0) line.operation(count);
      return 0;
    }
    fprintf(stderr, "ring0_bench: no operation '%s'\n", argv[2]);
    return 2;
  }
  double budget = 0.4e9;
  int next = 1;
  if (argc > 2 && strcmp(argv[1], "--seconds") == 0) {
    budget = atof(argv[2]) * 1e9;
    next = 3;
  }
  bool python = access("/usr/bin/python3", X_OK) == 0;
  bool first = true;
  printf("{");
  for (const Line& line : kLines) {
    bool named = next >= argc;
    for (int i = next; i < argc; ++i) named = named || strcmp(argv[i], line.name) == 0;
    if (!named || (!python && strncmp(line.name, "python", 6) == 0)) continue;
    Measure(line, budget, first);
    first = false;
  }
  printf("\n}\n");
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return Main(argc, argv); }
