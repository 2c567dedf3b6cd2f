#ifndef CUBE_TESTS_GUEST_STRESS_STRESS_H_
#define CUBE_TESTS_GUEST_STRESS_STRESS_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace cube::testing {

inline constexpr size_t kPage = 4096;

// xorshift64*: the same sequence for the same seed.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 1) {}
  uint64_t Next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1d;
  }
  uint64_t Below(uint64_t end) { return (Next() >> 11) % end; }

 private:
  uint64_t state_;
};

// One subtest's run. What it computes goes into `sum`, which must not depend on timing.
struct Run {
  uint64_t seed;
  uint64_t rounds;  // how much to do; 1 is the least
  Random random;
  uint64_t sum;

  void Add(uint64_t value) { sum = (sum ^ value) * 0x100000001b3; }
};

struct Subtest {
  const char* name;
  void (*run)(Run& run);
  uint64_t rounds;  // if none is asked for
};

std::span<const Subtest> MemorySubtests();
std::span<const Subtest> ThreadSubtests();
std::span<const Subtest> ExceptionSubtests();
std::span<const Subtest> SignalSubtests();
std::span<const Subtest> EventSubtests();
std::span<const Subtest> TerminalSubtests();
std::span<const Subtest> SharingSubtests();

// Prints what differs and ends the process with status 1.
[[noreturn]] void Fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
// Fail with errno's text unless `ok`.
void Must(bool ok, const char* what);

void* Map(void* at, size_t size, int protection, int more_flags = 0);

// A child that runs `body` and exits 0 after it, or fails by itself.
template <typename Body>
pid_t Fork(const Body& body);
pid_t ForkOrFail();
[[noreturn]] void Leave(int status);
// Fails unless the child ends with status 0.
void Join(pid_t child);
// The wait status of a child.
int StatusOf(pid_t child);

// A file without a name on the guest's tmpfs.
int TemporaryFile(const char* name);

// Accesses that may fault: 0, or the signal that it raised. Any thread.
void CatchFaults();
int TryRead(const volatile uint64_t* from, uint64_t* value);
int TryWrite(volatile uint64_t* to, uint64_t value);
int TryCall(void (*function)());
// si_code, si_addr and the trap number of this thread's last one.
struct Fault {
  int code;
  uint64_t address;
  uint64_t trap, error;
};
Fault LastFault();

uint64_t Nanoseconds();

template <typename Body>
pid_t Fork(const Body& body) {
  pid_t child = ForkOrFail();
  if (child == 0) {
    body();
    Leave(0);
  }
  return child;
}

}  // namespace cube::testing

#endif  // CUBE_TESTS_GUEST_STRESS_STRESS_H_
