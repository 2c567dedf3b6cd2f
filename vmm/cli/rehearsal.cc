#include "vmm/cli/rehearsal.h"

#include <sys/epoll.h>

#include <utility>

#include "snapshot/page_scan.h"
#include "vmm/cli/machine_inbox.h"
#include "vmm/identity.h"

namespace cube::vmm {
namespace {

// Even where KVM emulates ring 0.
constexpr uint64_t kPatienceNanoseconds = 20'000'000'000;

Result<std::vector<snapshot::PageRun>> Written(const GuestMemory& memory) {
  CUBE_ASSIGN(snapshot::PageScan scan, snapshot::PageScan::Open());
  std::vector<snapshot::PageRun> runs;
  uint64_t offset = 0;
  for (const MemoryRegion& region : memory.regions()) {
    CUBE_TRY(scan.Find(region.host, offset, &runs));
    offset += region.host.size();
  }
  return runs;
}

}  // namespace

Result<Rehearsal> Rehearsal::Run(const Kvm& kvm, const snapshot::Snapshot& base,
                                 const MachineConfig& config, std::vector<NamedDevice> devices,
                                 EventLoop* loop) {
  bool ready = false;
  std::string reason = "it takes too long";
  MachineInbox inbox;
  MachineInbox::Reader reader;
  reader.command = [&](abi::Command command, uint32_t) {
    ready |= command == abi::Command::kReady;
    if (ready) loop->Leave();
  };
  reader.notified = [] {};
  reader.stopped = [&](const StopReason& stopped) {
    reason = stopped.text;
    loop->Leave();
  };
  CUBE_TRY(inbox.Open(loop, std::move(reader)));
  CUBE_ASSIGN(Timer timer, Timer::Create());
  CUBE_TRY(timer.Set(kPatienceNanoseconds));
  CUBE_TRY(loop->Add(timer.fd(), EPOLLIN, [&](uint32_t) { loop->Leave(); }));

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
  CUBE_TRY(machine->Start());
  CUBE_TRY(loop->Run());
  machine->Stop();
  if (!ready) {
    return Errorf("%s: no clone of it becomes ready: %s", base.path().c_str(), reason.c_str());
  }

  Rehearsal rehearsal;
  CUBE_ASSIGN(rehearsal.written, Written(machine->memory()));
  std::vector<Machine::ImageStretch> stretches;
  for (const snapshot::PageRun& run : rehearsal.written) stretches.push_back({run.start, run.size});
  rehearsal.caches = machine->TakeCaches(stretches);
  return rehearsal;
}

}  // namespace cube::vmm
