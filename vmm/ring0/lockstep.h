#ifndef CUBE_VMM_RING0_LOCKSTEP_H_
#define CUBE_VMM_RING0_LOCKSTEP_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "vmm/assist/instruction.h"
#include "vmm/guest_memory.h"
#include "vmm/kvm/kvm.h"
#include "vmm/ring0/cpu_state.h"
#include "vmm/ring0/interpreter_observer.h"
#include "vmm/ring0/op.h"
#include "vmm/ring0/reference_vcpu.h"
#include "vmm/ring0/shared_ram.h"

namespace cube::vmm::ring0 {

// Holds the engine of a real guest with one vCPU against KVM's emulator, instruction by
// instruction.
//
// In a stretch, the interpreter runs first, from its own caches, over the guest's RAM; the state
// after each instruction and the pages it writes are kept. Then a vCPU of another VM runs the same
// instructions from the same state over a second view of the RAM, as it was; registers are compared
// after each, and every page that either has written at the end. The guest goes on with what the
// interpreter made.
//
// What would not come out the same twice is not compared: a stretch ends before it, and it is run
// once, by the engine. That is RDTSC, ports and devices, all that the engine hands off; TZCNT and
// LZCNT, which KVM's emulator takes for BSF and BSR; and repeated instructions of more than
// kMaxRepeats iterations, for the time they take. KVM does not stop behind SWAPGS, IRET, fences,
// accesses to segment bases, and the delivery of an exception that ring 0 raised: they are compared
// together with the instruction that follows.
class Lockstep : public InterpreterObserver {
 public:
  struct Options {
    // A stretch of `length` instructions begins about every `period`; all of them are compared if
    // the two are equal.
    uint64_t period = 1;
    uint64_t length = 1;
    // If not 0, another begins with every so many entries from user mode.
    uint64_t entries = 0;
    // See InterpreterObserver::InstructionsPerTick().
    uint64_t instructions_per_tick = 0;
    // Called after each instruction of a stretch, with its number from 0 over all stretches: to
    // spoil what the interpreter has done.
    std::function<void(Cpu& cpu, const Op* next, uint64_t number)> spoil;
    // Called when there is something to report.
    std::function<void()> reported;
  };

  static constexpr uint64_t kMaxRepeats = 4096;

  // `memory` is the guest's, with its content in place but not yet running; its RAM is replaced by
  // a mapping that both may see. One Lockstep at a time in a process.
  static Result<std::unique_ptr<Lockstep>> Create(const Kvm& kvm, const GuestMemory& memory,
                                                  std::span<const kvm_cpuid_entry2> cpuid,
                                                  Options options);

  Stop Interpret(Cpu& cpu, const kvm_sregs& segments) override;
  uint64_t InstructionsPerTick() const override { return options_.instructions_per_tick; }

  // What happened so far; once the vCPU is stopped.
  struct Counts {
    uint64_t stretches = 0, compared = 0;
    uint64_t entries = 0;          // stretches that began with one
    uint64_t exceptions = 0;       // of those compared
    uint64_t undefined_flags = 0;  // of those compared: they differ in flags that may
    uint64_t run_once = 0;         // instructions that ended a stretch
    uint64_t abandoned = 0;        // stretches that KVM could not follow
    uint64_t pages = 0;            // that were compared
    uint64_t accessed_bits = 0;  // words of page tables that differ in accessed or dirty bits only
  };
  const Counts& counts() const { return counts_; }
  // One line each, at most kMaxReports of them: block, instruction, what differs. An error of the
  // test's own is one, too.
  const std::vector<std::string>& reports() const { return reports_; }
  static constexpr size_t kMaxReports = 20;

 private:
  // An instruction the interpreter has carried out.
  struct Executed {
    uint64_t block;
    uint64_t rip;
    bool repeats;
    bool runs_on;  // KVM executes the next one in the same step
    CpuState after;
  };

  Lockstep(std::unique_ptr<SharedRam> ram, GuestMemory view, Options options);

  Stop RunStretches(Cpu& cpu, const kvm_sregs& segments);
  const Op* RunOne(Cpu& cpu, const Op* op);
  bool IsRunOnce(const Cpu& cpu, const Op* op) const;
  void Close(const Cpu& cpu);
  Status Compare(const Cpu& cpu);
  Result<ReferenceVcpu::Outcome> Follow(const Executed& executed);
  Status CompareMemory(const CpuState& last);
  // The number of the executed instruction that last changed what KVM has at an offset of the RAM.
  Result<std::optional<size_t>> LastWriter(uint64_t offset);
  bool IsTable(uint64_t page, uint64_t cr3) const;
  std::vector<uint8_t> CodeAt(uint64_t rip) const;
  uint64_t UndefinedFlags(const Executed& executed) const;
  void Report(const Executed& executed, const std::string& what);
  void Add(std::string report);

  std::unique_ptr<SharedRam> ram_;
  GuestMemory view_;
  std::unique_ptr<ReferenceVcpu> reference_;
  Options options_;
  std::set<int32_t> run_once_;  // handlers
  std::set<int32_t> repeated_;
  std::set<int32_t> runs_on_;
  InstructionDecoder decoder_;

  uint64_t next_ = 0;  // instruction count at which the next stretch begins
  bool open_ = false;
  bool delivering_ = false;  // an exception, that the last instruction raised
  uint64_t left_ = 0;        // instructions of the stretch
  bool in_user_mode_ = false;
  uint64_t entries_ = 0;  // from user mode
  CpuState start_;
  uint64_t start_kernel_gs_base_ = 0;
  kvm_sregs segments_ = {};
  Executed raised_ = {};
  std::vector<Executed> executed_;
  Counts counts_;
  std::vector<std::string> reports_;
};

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_LOCKSTEP_H_
