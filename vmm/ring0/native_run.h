#ifndef CUBE_VMM_RING0_NATIVE_RUN_H_
#define CUBE_VMM_RING0_NATIVE_RUN_H_

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "base/mapping.h"
#include "base/result.h"

// Runs single instructions on the processor itself, so that what the interpreter makes of the same
// bytes can be held against it.
namespace cube::vmm::ring0 {

// What a tested instruction sees, at the same virtual addresses natively and in the test machine:
// code with HLT wherever the instruction is not, and a window with a read-only page before three
// writable ones, with nothing mapped on either side. Below 2 GiB, so that it can be addressed
// absolutely.
namespace window {
inline constexpr uint64_t kPage = 4096;
inline constexpr uint64_t kCode = 0x20000000;
inline constexpr uint64_t kCodeSize = 3 * kPage;
inline constexpr uint64_t kReadOnly = 0x20010000;
inline constexpr uint64_t kWritable = kReadOnly + kPage;
inline constexpr uint64_t kWritableSize = 3 * kPage;
inline constexpr uint64_t kEnd = kWritable + kWritableSize;
inline constexpr uint64_t kSize = kEnd - kReadOnly;
inline constexpr uint8_t kHalt = 0xf4;
}  // namespace window

// RFLAGS that a user process can set, and so the test.
inline constexpr uint64_t kTestedFlags = 0xcd5 | 1 << 18;

struct MachineState {
  std::array<uint64_t, 16> r = {};
  uint64_t rip = 0;
  uint64_t rflags = 0;
  uint64_t gs_base = 0;
};

struct NativeCase {
  // Input.
  std::array<uint8_t, 15> code = {};
  uint8_t length = 0;
  uint8_t operand_size = 0;  // bytes; for whoever judges the result
  MachineState before;  // rip is where the code is put; it may cross a page
  // Quads that the window's pattern does not hold, within the window; an address of 0 is none.
  struct Patch {
    uint64_t address = 0;
    uint64_t value = 0;
  };
  std::array<Patch, 3> patches = {};

  // Output. `vector` is the exception that ended it: 13 at another RIP than `before` is the HLT
  // that follows the instruction or stands where it went.
  MachineState after;
  uint8_t vector = 0;
  uint32_t error_code = 0;
  uint64_t fault_address = 0;
  std::array<uint8_t, window::kSize> memory;

  bool halted() const { return vector == 13 && after.rip != before.rip; }
};

// A batch of cases, run one after another in a forked child that may make no system calls but
// sigreturn and exit. Not thread-safe.
class NativeRunner {
 public:
  static constexpr size_t kBatch = 256;

  static Result<NativeRunner> Create();

  std::span<NativeCase> cases() { return {batch_->cases, kBatch}; }
  // What the window holds before each case. At the start random with many corner values.
  std::span<uint8_t> pattern() { return batch_->pattern; }

  // Runs the first `count` cases. An error names the case that did not come back.
  Status Run(size_t count);

 private:
  struct Batch {
    NativeCase cases[kBatch];
    std::array<uint8_t, window::kSize> pattern;
    uint32_t count;
    uint32_t next;
  };

  explicit NativeRunner(Mapping memory);
  [[noreturn]] static void Child(Batch* batch);
  static void OnSignal(int signal, void* info, void* context);
  static void Prepare(Batch* batch, void* context);

  Mapping memory_;
  Batch* batch_;
};

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_NATIVE_RUN_H_
