// vector_state [ROUNDS]: run in a guest by vector_state_test. Processes that each hold a pattern of
// their own in every vector register of the processor, while they yield, talk through pipes, sleep,
// compute and are interrupted by signals whose handler spoils the registers. Afterwards each
// register has to hold its pattern, bit for bit. The exit status is the number of differences.
#include <cpuid.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "tests/guest/vector_registers.h"

namespace cube::testing {
namespace {

constexpr int kWorkers = 6;
// Of user time, between signals that come at any moment. Where ring 0 is emulated the delivery of
// one takes longer than a tick of the guest's clock: much less would leave room for nothing else.
constexpr long kTimerMicroseconds = 50000;
constexpr uint64_t kSpins = 3000000;  // about a millisecond

struct Shared {
  std::atomic<uint32_t> differences;
  std::atomic<uint32_t> signals;
};

Shared* shared;
VectorLevel level;
VectorRegisters noise;

void Must(bool ok, const char* what) {
  if (ok) return;
  perror(what);
  exit(126);
}

VectorLevel LevelOfProcessor() {
  constexpr uint64_t kYmmState = 0x6, kZmmState = 0xe6;  // of XCR0
  unsigned a, b, c, d;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & bit_OSXSAVE) == 0 || (c & bit_AVX) == 0) {
    return VectorLevel::kXmm;
  }
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if ((low & kYmmState) != kYmmState) return VectorLevel::kXmm;
  if ((low & kZmmState) == kZmmState && __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 &&
      (b & bit_AVX512F) != 0 && (b & bit_AVX512BW) != 0) {
    return VectorLevel::kZmm;
  }
  return VectorLevel::kYmm;
}

// xorshift64*, for patterns in which no two registers are alike.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 1) {}
  uint64_t Next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1d;
  }
  void Fill(void* to, size_t size) {
    for (size_t at = 0; at < size; at += 8) {
      uint64_t word = Next();
      memcpy(static_cast<uint8_t*>(to) + at, &word, std::min<size_t>(8, size - at));
    }
  }

 private:
  uint64_t state_;
};

// A part in its initial state may be saved and restored in another way, so that some patterns leave
// parts at zero: bit 0 of `zero` x87, bit 1 the upper halves of YMM, bit 2 those of ZMM, bit 3
// zmm16-31, bit 4 the masks.
void MakePattern(uint64_t seed, unsigned zero, VectorRegisters* out) {
  Random random(seed);
  *out = {};
  FxImage& fx = out->fx;
  bool x87 = (zero & 1) == 0;
  // All exceptions masked, any rounding; flags and condition codes as they come.
  fx.control = static_cast<uint16_t>(0x037f | (x87 ? random.Next() & 0x0c00 : 0));
  fx.status = static_cast<uint16_t>(x87 ? random.Next() & 0x7f3f : 0);
  fx.tags = static_cast<uint8_t>(x87 ? 0xff : 0);
  fx.mxcsr = static_cast<uint32_t>(0x1f80 | (random.Next() & 0xe07f));
  for (auto& st : fx.st) {
    if (x87) random.Fill(st, 10);
    // With an exponent of all ones it is an MMX register.
    if (x87 && seed % 2 == 0) memset(st + 8, 0xff, 2);
  }
  for (int i = 0; i < 32; ++i) {
    if (i >= 16 && (zero & 8) != 0) continue;
    size_t size = (zero & 2) != 0 ? 16 : (zero & 4) != 0 ? 32 : 64;
    random.Fill(out->zmm[i], size);
  }
  for (int i = 0; i < 16; ++i) memcpy(fx.xmm[i], out->zmm[i], 16);
  if ((zero & 16) == 0) random.Fill(out->k, sizeof out->k);
}

// Compares and says what differs.
class Comparison {
 public:
  Comparison(int worker, int round) : worker_(worker), round_(round) {}

  void Registers(const char* name, int count, const void* wanted, const void* got, size_t size,
                 size_t stride) {
    for (int i = 0; i < count; ++i) {
      size_t at = static_cast<size_t>(i) * stride;
      if (memcmp(static_cast<const uint8_t*>(wanted) + at, static_cast<const uint8_t*>(got) + at,
                 size) == 0) {
        continue;
      }
      fprintf(stderr, "worker %d, round %d: %s%d differs\n", worker_, round_, name, i);
      ++shared->differences;
    }
  }

 private:
  int worker_, round_;
};

void Compare(int worker, int round, const VectorRegisters& wanted, const VectorRegisters& got) {
  Comparison compare(worker, round);
  const FxImage &a = wanted.fx, &b = got.fx;
  compare.Registers("x87 control word ", 1, &a.control, &b.control, sizeof a.control, 0);
  compare.Registers("x87 status word ", 1, &a.status, &b.status, sizeof a.status, 0);
  compare.Registers("x87 tags ", 1, &a.tags, &b.tags, sizeof a.tags, 0);
  compare.Registers("mxcsr ", 1, &a.mxcsr, &b.mxcsr, sizeof a.mxcsr, 0);
  compare.Registers("st", 8, a.st, b.st, 10, sizeof a.st[0]);
  compare.Registers("xmm", 16, a.xmm, b.xmm, 16, 16);
  if (level == VectorLevel::kYmm) compare.Registers("ymm", 16, wanted.zmm, got.zmm, 32, 64);
  if (level == VectorLevel::kZmm) {
    compare.Registers("zmm", 32, wanted.zmm, got.zmm, 64, 64);
    compare.Registers("k", 8, wanted.k, got.k, 8, 8);
  }
}

void OnSignal(int) {
  ++shared->signals;
  // Last: the compiler knows nothing of this.
  LoadVectors(&noise, level);
}

// One of the processes; `from` and `to` are its places in a ring of pipes.
void Work(int worker, int rounds, int from, int to) {
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  Must(sigaction(SIGUSR1, &action, nullptr) == 0, "sigaction");
  Must(sigaction(SIGVTALRM, &action, nullptr) == 0, "sigaction");
  MakePattern(1000000 + static_cast<uint64_t>(worker), 0, &noise);
  const itimerval timer = {{0, kTimerMicroseconds}, {0, kTimerMicroseconds}};
  Must(setitimer(ITIMER_VIRTUAL, &timer, nullptr) == 0, "setitimer");

  char token = 't';
  const timespec nap = {0, 1000000};
  auto address = [](const void* object) { return reinterpret_cast<uint64_t>(object); };
  const HoldStep yield = {SYS_sched_yield, {}, 0};
  const HoldStep steps[] = {
      yield,
      yield,
      {SYS_write, {static_cast<uint64_t>(to), address(&token), 1}, 0},
      {SYS_read, {static_cast<uint64_t>(from), address(&token), 1}, kSpins},
      yield,
      {SYS_kill, {static_cast<uint64_t>(getpid()), SIGUSR1}, kSpins},
      {SYS_nanosleep, {address(&nap), 0}, kSpins},
      yield,
  };
  // Which parts are zero: every one alone, all, none.
  const unsigned zeros[] = {0, 1, 2, 4, 8, 16, 0, 31};
  for (int round = 0; round < rounds; ++round) {
    VectorRegisters wanted, got;
    MakePattern(static_cast<uint64_t>(worker * rounds + round),
                zeros[static_cast<size_t>(worker + round) % std::size(zeros)], &wanted);
    got = {};
    HoldVectors(&wanted, &got, level, steps, std::size(steps));
    Compare(worker, round, wanted, got);
  }
  exit(0);
}

int Main(int rounds) {
  level = LevelOfProcessor();
  void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                      -1, 0);
  Must(memory != MAP_FAILED, "mmap");
  shared = new (memory) Shared{};
  int pipes[kWorkers][2];
  for (auto& ends : pipes) Must(pipe(ends) == 0, "pipe");
  pid_t workers[kWorkers];
  for (int i = 0; i < kWorkers; ++i) {
    workers[i] = fork();
    Must(workers[i] >= 0, "fork");
    if (workers[i] == 0) Work(i, rounds, pipes[i][0], pipes[(i + 1) % kWorkers][1]);
  }
  bool all_ended_well = true;
  for (int i = 0; i < kWorkers; ++i) {
    int status = 0;
    Must(wait(&status) > 0, "wait");
    if (status == 0) continue;
    fprintf(stderr, "a worker ended with wait status %#x\n", static_cast<unsigned>(status));
    all_ended_well = false;
    // Its neighbours would wait for it for ever.
    for (pid_t worker : workers) kill(worker, SIGKILL);
  }
  rusage usage = {};
  getrusage(RUSAGE_CHILDREN, &usage);
  const char* const names[] = {"xmm", "ymm", "zmm"};
  uint32_t differences = shared->differences;
  printf("level %s, %d workers, %d rounds, %ld switches, %u signals, %u differences\n",
         names[static_cast<size_t>(level)], kWorkers, rounds, usage.ru_nvcsw + usage.ru_nivcsw,
         shared->signals.load(), differences);
  if (!all_ended_well) return 125;
  return static_cast<int>(std::min(differences, 100u));
}

}  // namespace
}  // namespace cube::testing

int main(int argc, char** argv) { return cube::testing::Main(argc > 1 ? atoi(argv[1]) : 10); }
