#include "guestkernel/agent/interpreter/daemon.h"

#include "guestkernel/agent/interpreter/service.h"

namespace cube::agent::interpreter {
namespace {

// Where KVM emulates ring 0 without an engine of ours it takes half a minute.
constexpr uint64_t kWarmNanoseconds = 120'000'000'000;

}  // namespace

Daemon::Daemon(envd::Context* machine, std::string folder)
    : machine_(machine),
      socket_scratch_(new char[kSocketScratch]),
      interpreter_(machine, std::move(folder)),
      server_(machine->loop, machine->memory, {socket_scratch_.get(), kSocketScratch}, "",
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
  Status run = machine_->loop->RunFor(kWarmNanoseconds, "warming up Python");
  interpreter_.set_warming(false);
  if (!run.ok()) warm = run;
  // Nobody is called after that.
  if (!warm.ok()) interpreter_.GiveUpPython();
  return warm;
}

}  // namespace cube::agent::interpreter
