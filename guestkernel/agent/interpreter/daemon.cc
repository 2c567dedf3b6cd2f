#include "guestkernel/agent/interpreter/daemon.h"

#include "guestkernel/agent/interpreter/service.h"

namespace cube::agent::interpreter {

Daemon::Daemon(envd::Context* machine, std::string folder)
    : machine_(machine),
      socket_scratch_(new char[kSocketScratch]),
      interpreter_(machine, std::move(folder)),
      server_(machine->loop, {socket_scratch_.get(), kSocketScratch}, "",
              [this](const http::Request& request, http::Response* response) {
                return Route(&interpreter_, request, response);
              }) {}

Status Daemon::Warm() {
  if (!Interpreter::CanRun(Language::kPython).ok()) return OkStatus();
  Status warm;
  interpreter_.set_warming(true);
  interpreter_.Default(Language::kPython)->WhenReady([&](const Status& status) {
    warm = status;
    machine_->loop->Stop();
  });
  CUBE_TRY(machine_->loop->Run());
  interpreter_.set_warming(false);
  return warm;
}

}  // namespace cube::agent::interpreter
