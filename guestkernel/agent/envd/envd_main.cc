// envd as a program of this machine, for clients in tests and for strace: no PID 1, no mailbox.
//
//   envd PORT [TOKEN]

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <utility>

#include "guestkernel/agent/envd/daemon.h"
#include "guestkernel/agent/loop/listener.h"

namespace cube::agent {
namespace {

Status Main(int argc, char** argv) {
  if (argc < 2) return Errorf("usage: envd PORT [TOKEN]");
  CUBE_ASSIGN(std::unique_ptr<EventLoop> loop, EventLoop::Create());
  CUBE_ASSIGN(std::unique_ptr<ChildReaper> reaper, ChildReaper::Create(loop.get()));
  MemoryBudget memory(MemoryBudget::LimitOfMachine());
  envd::Daemon daemon(loop.get(), reaper.get(), &memory);
  Identity identity;
  identity.sandbox_id = "here";
  if (argc > 2) identity.access_token = argv[2];
  daemon.TakeIdentity(identity);
  CUBE_ASSIGN(UniqueFd socket, ListenOnTcp(static_cast<uint16_t>(atoi(argv[1]))));
  CUBE_TRY(daemon.Serve(std::move(socket)));
  return loop->Run();
}

}  // namespace
}  // namespace cube::agent

int main(int argc, char** argv) {
  cube::Status status = cube::agent::Main(argc, argv);
  if (!status.ok()) fprintf(stderr, "envd: %s\n", status.error().message().c_str());
  return 1;
}
