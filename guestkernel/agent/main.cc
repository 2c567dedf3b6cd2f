// cube-agent: PID 1 of the guest. It sets up what programs expect of a machine, then serves the
// mailbox until the program it was asked to run has ended.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/unique_fd.h"
#include "guestkernel/agent/agent.h"
#include "guestkernel/agent/console.h"
#include "guestkernel/agent/doorbell.h"
#include "guestkernel/agent/envd/daemon.h"
#include "guestkernel/agent/forward/forwarder.h"
#include "guestkernel/agent/hosts_file.h"
#include "guestkernel/agent/interpreter/daemon.h"
#include "guestkernel/agent/log.h"
#include "guestkernel/agent/loop/child_reaper.h"
#include "guestkernel/agent/loop/event_loop.h"
#include "guestkernel/agent/loop/listener.h"
#include "guestkernel/agent/machine.h"
#include "guestkernel/agent/mailbox.h"
#include "guestkernel/agent/mounts.h"
#include "guestkernel/agent/network.h"
#include "guestkernel/agent/root_disk.h"
#include "guestkernel/agent/settle.h"
#include "guestkernel/agent/shares.h"
#include "guestkernel/agent/tools/tools.h"
#include "guestkernel/agent/tools/warm_up.h"

namespace cube::agent {
namespace {

constexpr char kConsolePath[] = "/dev/ttyS0";
constexpr char kWorkerFolder[] = "/run/cube-interpreter";
constexpr char kHostName[] = "cube";

struct ControlDevice {
  DeviceDoorbell doorbell;
  Mailbox mailbox;
};

Result<ControlDevice> OpenControlDevice() {
  // Without O_SYNC: the mailbox is memory and has to be mapped as such, write-back.
  CUBE_ASSIGN(UniqueFd dev_mem, OpenFile("/dev/mem", O_RDWR));
  // The mailbox first: a VMM that has none would take stores to the doorbell for an error.
  CUBE_ASSIGN(Mailbox mailbox, Mailbox::Map(dev_mem.get()));
  CUBE_ASSIGN(DeviceDoorbell doorbell, DeviceDoorbell::Map(dev_mem.get()));
  return ControlDevice{std::move(doorbell), std::move(mailbox)};
}

void Warn(const Status& status) {
  if (!status.ok()) Log(status.error().message());
}

// The VMM's word on the kernel's command line, which the kernel does not know and hands on.
void SetUpNetwork() {
  const char* text = getenv("cube_net");
  if (text == nullptr) return;
  Result<std::vector<InterfaceSettings>> interfaces = ParseNetwork(text);
  if (!interfaces.ok()) {
    Log(interfaces.error().message());
    return;
  }
  for (const InterfaceSettings& settings : *interfaces) {
    Warn(SetUpInterface(settings, "/etc/resolv.conf"));
  }
}

// Nothing on a root that is read-only, or that has no such folder.
std::optional<HostsFile> PrepareHosts() {
  if (access("/etc", W_OK) < 0) return std::nullopt;
  Result<HostsFile> hosts = HostsFile::Prepare("/etc/hosts", kHostName);
  if (hosts.ok()) return std::move(*hosts);
  Log(hosts.error().message());
  return std::nullopt;
}

// The ports that others on the machine and the host find the agent at. They are open before the
// machine is frozen, so that a clone serves at once.
void Listen(envd::Daemon* daemon, interpreter::Daemon* interpreter, Forwarder* forwarder) {
  auto serve = [](auto* server, Result<UniqueFd> socket) -> Status {
    if (!socket.ok()) return socket.error();
    return server->Serve(std::move(socket).value());
  };
  Warn(serve(daemon, ListenOnTcp(envd::kPort)));
  Warn(serve(daemon, ListenOnVsock(envd::kPort)));
  Warn(serve(interpreter, ListenOnTcp(interpreter::kPort)));
  Warn(serve(interpreter, ListenOnVsock(interpreter::kPort)));
  Warn(serve(forwarder, ListenOnVsock(kForwardPort)));
}

Status Main() {
  umask(022);
  Status dev = MountDev();
  OpenStandardFds();
  CUBE_TRY(dev);
  CUBE_ASSIGN(ControlDevice device, OpenControlDevice());
  device.doorbell.Send(abi::Command::kBooted, 0);

  CUBE_TRY(EnterRoot());
  MountRest();
  MountShares();
  Warn(SetHostName(kHostName));
  std::optional<HostsFile> hosts = PrepareHosts();
  Warn(BringUpLoopback());
  SetUpNetwork();
  RaiseFileLimit();
  ReportSmallFreeAreas();
  CUBE_ASSIGN(Console console, Console::Open(kConsolePath));
  CUBE_ASSIGN(std::unique_ptr<EventLoop> loop, EventLoop::Create());
  CUBE_ASSIGN(std::unique_ptr<ChildReaper> reaper, ChildReaper::Create(loop.get()));
  MemoryBudget memory(MemoryBudget::LimitOfMachine());
  envd::Daemon daemon(loop.get(), reaper.get(), &memory);
  Forwarder forwarder(loop.get(), &memory);
  interpreter::Daemon interpreter(daemon.context(), kWorkerFolder);
  Listen(&daemon, &interpreter, &forwarder);
  Warn(interpreter.Warm());
  Warn(daemon.Warm());
  CUBE_ASSIGN(std::unique_ptr<Agent> agent,
              Agent::Create({.mailbox = &device.mailbox,
                             .doorbell = &device.doorbell,
                             .console = &console,
                             .loop = loop.get(),
                             .reaper = reaper.get(),
                             .hosts = hosts ? &*hosts : nullptr,
                             .on_identity = [&](const Identity& identity) {
                               daemon.TakeIdentity(identity);
                               interpreter.TakeIdentity();
                             }}));
  Status warm = WarmUpIfAsked();
  if (!warm.ok()) {
    Log(warm.error().message());
    device.doorbell.Send(abi::Command::kExit, 1);
    while (true) pause();
  }
  Settle(&device.doorbell);
  agent->Park();
  CUBE_TRY(agent->Run());
  // The VMM has not run the guest since kExit. Should it ever do so again, there is nothing to do.
  while (true) pause();
}

}  // namespace
}  // namespace cube::agent

int main(int argc, char** argv) {
  // PID 1 may have arguments, too: words of the kernel's command line.
  if (getpid() != 1 && argc > 1) return cube::agent::RunTool(argc, argv);
  cube::Status status = cube::agent::Main();
  cube::agent::Die(status.error());
}
