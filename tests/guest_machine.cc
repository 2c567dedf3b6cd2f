#include "tests/guest_machine.h"

#include <fcntl.h>
#include <unistd.h>

#include <utility>

#include "tests/vmm_command.h"
#include "vmm/assist/host_probe.h"
#include "vmm/identity.h"
#include "vmm/vcpu.h"

namespace cube::testing {

Result<std::unique_ptr<GuestMachine>> GuestMachine::Start(uint64_t mebibytes,
                                                          std::vector<vmm::NamedDevice> devices,
                                                          std::vector<std::string> command) {
  std::unique_ptr<GuestMachine> guest(new GuestMachine);
  CUBE_TRY(guest->Create(mebibytes, std::move(devices), std::move(command)));
  return guest;
}

GuestMachine::~GuestMachine() {
  if (machine_ != nullptr) machine_->Stop();
}

Status GuestMachine::Create(uint64_t mebibytes, std::vector<vmm::NamedDevice> devices,
                            std::vector<std::string> command) {
  static const Status installed = vmm::Vcpu::InstallKickSignal();
  CUBE_TRY(installed);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) return ErrnoError("pipe2");
  input_.Reset(ends[0]);
  to_input_.Reset(ends[1]);
  CUBE_ASSIGN(kvm_, vmm::Kvm::Open("/dev/kvm"));
  CUBE_ASSIGN(vmm::HostProbe probe, vmm::ProbeHost(*kvm_));
  CUBE_ASSIGN(loop_, vmm::EventLoop::Create());
  CUBE_TRY(inbox_.Open(
      &*loop_, {[this](abi::Command what, uint32_t) {
                  if (what == abi::Command::kExit) Ended("");
                },
                [this] { Pump(); },
                [this](const vmm::StopReason& reason) { Ended(reason.text + reason.detail); }}));

  vmm::MachineConfig config;
  config.kernel = Env("CUBE_KERNEL");
  config.initrd = Env("CUBE_INITRD");
  config.append = "quiet";
  config.memory = mebibytes << 20;
  config.ring0 = probe.emulated_ring0() ? vmm::Ring0Mode::kEngine : vmm::Ring0Mode::kNative;
  vmm::MachineEvents events;
  events.console = [](uint8_t) {};
  events.command = [this](abi::Command what, uint32_t argument) {
    inbox_.PostCommand(what, argument);
  };
  events.notify = [this] { inbox_.PostNotification(); };
  events.stopped = [this](vmm::StopReason reason) { inbox_.PostStop(std::move(reason)); };
  CUBE_ASSIGN(machine_,
              vmm::Machine::Create(*kvm_, config, std::move(devices), &*loop_, std::move(events)));

  std::span<uint8_t> mailbox = machine_->memory().mailbox();
  vmm::Identity identity;
  identity.hostname = identity.sandbox_id = "test";
  CUBE_TRY(vmm::WriteIdentity(mailbox, identity));
  session_ = std::make_unique<vmm::GuestSession>(
      &*loop_, mailbox, input_.get(),
      vmm::GuestSession::Callbacks{[this](abi::RingId, std::span<const uint8_t> bytes) {
                                     output_.append(bytes.begin(), bytes.end());
                                     return bytes.size();
                                   },
                                   [](abi::RingId) { return false; },
                                   [this] { machine_->WakeAgent(); }, [](uint32_t) {},
                                   [this](uint32_t, const std::string& text) { Ended(text); }});
  CUBE_TRY(session_->Start({.arguments = std::move(command), .environment = {}, .directory = ""}));
  return machine_->Start();
}

bool GuestMachine::Until(const std::function<bool()>& reached) {
  while (!reached()) {
    if (ended_) return false;
    Result<bool> stopped = loop_->RunOnce(-1);
    if (!stopped.ok()) Ended(stopped.error().message());
  }
  return true;
}

void GuestMachine::Send(const std::string& text) const {
  // A short write is the test's mistake, and shows as a guest that waits for ever.
  (void)!write(to_input_.get(), text.data(), text.size());
}

void GuestMachine::Pump() {
  Status pumped = session_->Pump();
  if (!pumped.ok()) Ended(pumped.error().message());
}

void GuestMachine::Ended(const std::string& why) {
  if (ended_) return;
  ended_ = true;
  end_ = why;
}

}  // namespace cube::testing
