#ifndef CUBE_TESTS_GUEST_MACHINE_H_
#define CUBE_TESTS_GUEST_MACHINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/control_abi.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/cli/guest_session.h"
#include "vmm/cli/machine_inbox.h"
#include "vmm/event_loop.h"
#include "vmm/kvm/kvm.h"
#include "vmm/machine.h"

namespace cube::testing {

// A VM in the test's own process, with the kernel and the initramfs of the environment (vm_test),
// whose event loop the test turns: so it can wait for what happens inside the VMM. Used by one
// thread.
class GuestMachine {
 public:
  // Boots a guest of `mebibytes` with one vCPU, these devices and `command`.
  static Result<std::unique_ptr<GuestMachine>> Start(uint64_t mebibytes,
                                                     std::vector<vmm::NamedDevice> devices,
                                                     std::vector<std::string> command);
  ~GuestMachine();
  GuestMachine(const GuestMachine&) = delete;
  GuestMachine& operator=(const GuestMachine&) = delete;

  // Handles the VM's events until `reached`, which is asked after each round of them. False if the
  // guest has ended before.
  bool Until(const std::function<bool()>& reached);
  // What the command has written to stdout and stderr, in that order in which it came.
  const std::string& output() const { return output_; }
  // Why the guest is no longer there; empty for a command that exited.
  const std::string& end() const { return end_; }
  // To the command's stdin; less than a pipe holds.
  void Send(const std::string& text) const;
  vmm::Machine& machine() { return *machine_; }

 private:
  GuestMachine() = default;
  Status Create(uint64_t mebibytes, std::vector<vmm::NamedDevice> devices,
                std::vector<std::string> command);
  void Pump();
  void Ended(const std::string& why);

  // In the order in which they must outlive each other.
  std::optional<vmm::Kvm> kvm_;
  std::optional<vmm::EventLoop> loop_;
  vmm::MachineInbox inbox_;
  UniqueFd input_, to_input_;
  std::unique_ptr<vmm::Machine> machine_;
  std::unique_ptr<vmm::GuestSession> session_;
  std::string output_;
  std::string end_;
  bool ended_ = false;
};

}  // namespace cube::testing

#endif  // CUBE_TESTS_GUEST_MACHINE_H_
