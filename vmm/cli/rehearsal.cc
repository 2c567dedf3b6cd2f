#include "vmm/cli/rehearsal.h"

#include <utility>

#include "base/monotonic.h"
#include "snapshot/page_scan.h"
#include "vmm/cli/machine_inbox.h"
#include "vmm/identity.h"

namespace cube::vmm {
namespace {

// Even where KVM emulates ring 0.
constexpr uint64_t kPatienceNanoseconds = 20'000'000'000;
// Of the guest's time, and what that may take of ours.
constexpr uint64_t kIdleNanoseconds = 10'000'000'000;
constexpr uint64_t kIdlePatienceNanoseconds = 2'000'000'000;
constexpr int kLookMilliseconds = 10;

}  // namespace

Result<Rehearsal> Rehearsal::Run(const Kvm& kvm, const snapshot::Snapshot& base,
                                 const MachineConfig& config, std::vector<NamedDevice> devices,
                                 EventLoop* loop) {
  bool ready = false, ended = false;
  std::string reason = "it takes too long";
  MachineInbox inbox;
  MachineInbox::Reader reader;
  reader.command = [&](abi::Command command, uint32_t) {
    ready |= command == abi::Command::kReady;
  };
  reader.notified = [] {};
  reader.stopped = [&](const StopReason& stopped) {
    reason = stopped.text;
    ended = true;
  };
  CUBE_TRY(inbox.Open(loop, std::move(reader)));

  std::unique_ptr<Machine> machine;
  MachineEvents events;
  events.console = [](uint8_t) {};
  events.command = [&](abi::Command command, uint32_t argument) {
    // The pages are counted where this store ends.
    if (command == abi::Command::kReady) machine->RequestStop();
    inbox.PostCommand(command, argument);
  };
  events.notify = [] {};
  events.stopped = [&](StopReason stopped) { inbox.PostStop(std::move(stopped)); };
  CUBE_ASSIGN(GuestMemory memory, base.MapMemory());
  CUBE_ASSIGN(machine, Machine::Restore(kvm, config, std::move(memory), base.state(),
                                        std::move(devices), loop, std::move(events)));
  Identity identity;
  identity.sandbox_id = identity.hostname = "rehearsal";
  CUBE_TRY(WriteIdentity(machine->memory().mailbox(), identity));
  machine->WakeAgent();
  CUBE_TRY(machine->Start());
  const uint64_t start = MonotonicNow();
  auto wait = [&](auto done, uint64_t patience) -> Status {
    while (!done() && !ended && MonotonicNow() - start < patience) {
      CUBE_ASSIGN(bool stopped, loop->RunOnce(kLookMilliseconds));
      (void)stopped;
    }
    machine->Stop();
    return OkStatus();
  };
  CUBE_TRY(wait([&] { return ready; }, kPatienceNanoseconds));
  if (!ready) {
    return Errorf("%s: no clone of it becomes ready: %s", base.path().c_str(), reason.c_str());
  }
  Rehearsal rehearsal;
  CUBE_ASSIGN(rehearsal.written, snapshot::PrivateRuns(machine->memory()));
  // What it does when nobody asks anything of it.
  if (config.ring0 == Ring0Mode::kEngine) {
    machine->SkipIdleTime(true);
    CUBE_TRY(machine->Start());
    CUBE_TRY(wait([&] { return machine->skipped_nanoseconds() > kIdleNanoseconds; },
                  MonotonicNow() - start + kIdlePatienceNanoseconds));
  }
  CUBE_ASSIGN(std::vector<snapshot::PageRun> changed, snapshot::PrivateRuns(machine->memory()));
  std::vector<Machine::ImageStretch> stretches;
  for (const snapshot::PageRun& run : changed) stretches.push_back({run.start, run.size});
  rehearsal.caches = machine->TakeCaches(stretches);
  return rehearsal;
}

}  // namespace cube::vmm
