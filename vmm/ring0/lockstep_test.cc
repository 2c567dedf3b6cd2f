#include "vmm/ring0/lockstep.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <cstdlib>
#include <mutex>

#include "vmm/assist/host_probe.h"
#include "vmm/cli/guest_session.h"
#include "vmm/cpuid.h"
#include "vmm/event_loop.h"
#include "vmm/machine.h"
#include "vmm/memory_map.h"
#include "vmm/ring0/handlers.h"
#include "vmm/ring0/soft_mmu.h"

// A boot, and a few programs, in which the engine and KVM's emulator run the same instructions.
// CUBE_LOCKSTEP_PERIOD in the environment makes the sample denser; 600 is all of it.
namespace cube::vmm::ring0 {
namespace {

std::string Env(const char* name) {
  const char* value = getenv(name);
  return value == nullptr ? "" : value;
}

// A machine that boots, runs one command and stops.
class Guest {
 public:
  Status Boot(Lockstep::Options options) {
    CUBE_ASSIGN(Kvm kvm, Kvm::Open());
    CUBE_ASSIGN(HostProbe probe, ProbeHost(kvm));
    if (!probe.emulated_ring0()) {
      return Errorf("lockstep compares with KVM's emulator, which this host's KVM does not use");
    }
    CUBE_TRY(Vcpu::InstallKickSignal());
    MachineConfig config;
    config.kernel = Env("CUBE_KERNEL");
    config.initrd = Env("CUBE_INITRD");
    config.memory = 96 * kMiB;
    config.ring0 = Ring0Mode::kEngine;
    // What is compared is so slow that ticks might become all the guest does: it is told that its
    // TSC runs faster than it does, and so asks for fewer.
    config.append = "tsc_early_khz=30000000";
    MachineEvents events;
    events.console = [this](uint8_t byte) {
      std::lock_guard lock(mutex_);
      console_ += static_cast<char>(byte);
    };
    events.command = [this](abi::Command command, uint32_t argument) {
      std::lock_guard lock(mutex_);
      if (command == abi::Command::kExit) status_ = static_cast<int>(argument & 0xff);
      changed_ = true;
      condition_.notify_all();
    };
    events.notify = [this] {
      std::lock_guard lock(mutex_);
      changed_ = true;
      condition_.notify_all();
    };
    events.stopped = [this](StopReason reason) {
      std::lock_guard lock(mutex_);
      stop_ = std::move(reason);
      condition_.notify_all();
    };
    CUBE_ASSIGN(loop_, EventLoop::Create());
    CUBE_ASSIGN(machine_, Machine::Create(kvm, config, {}, &*loop_, std::move(events)));
    options.reported = [this] {
      std::lock_guard lock(mutex_);
      reported_ = changed_ = true;
      condition_.notify_all();
    };
    CUBE_ASSIGN(std::vector<kvm_cpuid_entry2> supported, kvm.SupportedCpuid());
    CUBE_ASSIGN(lockstep_, Lockstep::Create(kvm, machine_->memory(),
                                            ShapeCpuid(supported, {.hide_hypercalls = true}),
                                            std::move(options)));
    machine_->Observe(lockstep_.get());
    session_ = std::make_unique<GuestSession>(
        &*loop_, machine_->memory().mailbox(), -1,
        GuestSession::Callbacks{[this](abi::RingId, std::span<const uint8_t> bytes) {
                                  output_.append(bytes.begin(), bytes.end());
                                  return bytes.size();
                                },
                                [](abi::RingId) { return false; },
                                [this] { machine_->WakeAgent(); }, [](uint32_t) {},
                                [this](uint32_t, const std::string& text) { output_ += text; }});
    return OkStatus();
  }

  // Until the command has ended, something is reported if `until_report`, or the machine stops by
  // itself.
  Status Run(const std::vector<std::string>& command, bool until_report = false) {
    GuestCommand start;
    start.arguments = command;
    start.directory = "/";
    CUBE_TRY(session_->Start(start));
    CUBE_TRY(machine_->Start());
    std::unique_lock lock(mutex_);
    while (!stop_ && !status_ && !(until_report && reported_)) {
      condition_.wait(lock, [this] { return changed_ || stop_; });
      changed_ = false;
      lock.unlock();
      CUBE_TRY(session_->Pump());
      lock.lock();
    }
    lock.unlock();
    CUBE_TRY(session_->Pump());
    machine_->Stop();
    if (stop_) return Errorf("%s; console: %s", stop_->text.c_str(), console_.c_str());
    return OkStatus();
  }

  const Lockstep& lockstep() const { return *lockstep_; }
  const std::string& output() const { return output_; }
  std::optional<int> status() const { return status_; }
  std::map<std::string, uint64_t> Counts() const { return machine_->Ring0Counts(); }

 private:
  std::mutex mutex_;
  std::condition_variable condition_;
  bool changed_ = false, reported_ = false;
  std::optional<int> status_;
  std::optional<StopReason> stop_;
  std::string console_, output_;
  std::unique_ptr<Lockstep> lockstep_;
  std::optional<EventLoop> loop_;
  std::unique_ptr<Machine> machine_;
  std::unique_ptr<GuestSession> session_;
};

// What the interpreter might do wrong, and the report of it.
struct Spoiled {
  const char* name;
  // True once it is done.
  bool (*spoil)(Cpu& cpu, const Op* next);
  std::vector<const char*> report;
  uint64_t period = 1000000, length = 50;
};

bool ReplaceAdd(Cpu&, const Op* next) {
  Op add, subtract;
  add.set_handler(AluHandler(Alu::kAdd, 8, Form::kRegReg));
  subtract.set_handler(AluHandler(Alu::kSub, 8, Form::kRegReg));
  if (next == nullptr || next->handler != add.handler) return false;
  const_cast<Op*>(next)->handler = subtract.handler;
  return true;
}

const Spoiled kSpoiled[] = {
    {"Register",
     [](Cpu& cpu, const Op*) {
       cpu.r[9] ^= 1;
       return true;
     },
     {"r9: interpreted"}},
    {"Flag",
     [](Cpu& cpu, const Op*) {
       cpu.system_flags ^= 1 << 18;
       return true;
     },
     {"rflags: interpreted"}},
    {"FaultAddress",
     [](Cpu& cpu, const Op*) {
       cpu.cr2 ^= 16;
       return true;
     },
     {"cr2: interpreted"}},
    {"SegmentBase",
     [](Cpu& cpu, const Op*) {
       cpu.segment_base[kFsSegment] ^= 8;
       return true;
     },
     {"fs base: interpreted"}},
    {"SwappedBase",
     [](Cpu& cpu, const Op*) {
       cpu.kernel_gs_base ^= 8;
       return true;
     },
     {"kernel gs base: interpreted"}},
    {"Memory",
     [](Cpu& cpu, const Op*) {
       cpu.mmu->memory().WriteObject<uint8_t>(0x5003, 0x5a);
       return true;
     },
     {"memory at 0x5000, which KVM did not write", "interpreted 0x5a000000, KVM 0"}},
    // Many short stretches: one comes by an addition, and ends before the guest comes to harm by it.
    {"Operation", ReplaceAdd, {"add r"}, 2000, 50},
};

void PrintTo(const Spoiled& spoiled, std::ostream* out) { *out << spoiled.name; }

class LockstepReport : public testing::TestWithParam<Spoiled> {};

TEST_P(LockstepReport, NamesWhatDiffers) {
  constexpr uint64_t kWhen = 100;  // in the second stretch
  Guest guest;
  Lockstep::Options options;
  options.period = GetParam().period;
  options.length = GetParam().length;
  bool done = false;
  options.spoil = [&done](Cpu& cpu, const Op* next, uint64_t number) {
    if (!done && number >= kWhen) done = GetParam().spoil(cpu, next);
  };
  Status booted = guest.Boot(options);
  ASSERT_TRUE(booted.ok()) << booted.error().message();
  // The guest may come to harm by it.
  (void)guest.Run({"/bin/true"}, true);
  ASSERT_FALSE(guest.lockstep().reports().empty());
  const std::string& report = guest.lockstep().reports()[0];
  for (const char* part : GetParam().report) {
    EXPECT_NE(report.find(part), std::string::npos) << report;
  }
  EXPECT_EQ(report.find('\n'), std::string::npos) << report;
}

INSTANTIATE_TEST_SUITE_P(All, LockstepReport, testing::ValuesIn(kSpoiled),
                         [](const testing::TestParamInfo<Spoiled>& info) {
                           return std::string(info.param.name);
                         });

TEST(Lockstep, ABootAndItsProgramsAreTheSameForBoth) {
  Guest guest;
  Lockstep::Options options;
  std::string period = Env("CUBE_LOCKSTEP_PERIOD");
  options.period = period.empty() ? 80000 : strtoull(period.c_str(), nullptr, 0);
  options.length = 600;
  options.entries = 10;
  options.instructions_per_tick = 200000;
  Status booted = guest.Boot(options);
  ASSERT_TRUE(booted.ok()) << booted.error().message();
  Status ran = guest.Run(
      {"/bin/sh", "-c", "echo $(ls / | wc -l | grep -c .) $(cat /proc/self/stat | wc -l)"});
  ASSERT_TRUE(ran.ok()) << ran.error().message();
  EXPECT_EQ(guest.status(), 0);
  EXPECT_EQ(guest.output(), "1 1\n");
  const Lockstep::Counts& counts = guest.lockstep().counts();
  auto ring0 = guest.Counts();
  printf(
      "%lu of %lu instructions compared in %lu stretches, %lu of them from one of %lu entries from "
      "user mode; %lu pages compared; %lu instructions run once; %lu differed in undefined flags, "
      "%lu words of tables in accessed bits; %lu exceptions of ring 0\n",
      counts.compared, ring0["ring0 instructions"], counts.stretches, counts.entries,
      ring0["ring0 user entries"], counts.pages, counts.run_once, counts.undefined_flags,
      counts.accessed_bits, counts.exceptions);
  for (const std::string& report : guest.lockstep().reports()) ADD_FAILURE() << report;
  EXPECT_GT(counts.compared, 100000u);
  if (options.period > options.length) {
    EXPECT_GT(counts.entries, 20u);
  } else {
    // All but what is run once.
    EXPECT_GT(counts.compared + counts.run_once, ring0["ring0 instructions"] * 98 / 100);
  }
  EXPECT_EQ(counts.abandoned, 0u);
}

}  // namespace
}  // namespace cube::vmm::ring0
