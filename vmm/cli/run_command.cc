#include "vmm/cli/run_command.h"

#include <cstdio>

#include "base/byte_io.h"
#include "vmm/cli/run.h"

namespace cube::vmm {

int RunCommand(const RunOptions& options, uint64_t start) {
  // The Run is gone, and a terminal as it was, before an error is written.
  auto status = Run(options, start).Execute();
  if (status.ok()) return *status;
  fprintf(stderr, "cube-vmm: %s\n", status.error().message().c_str());
  return kStatusVmmError;
}

int RunPrepared(const RunOptions& options, Prepared prepared, uint64_t start) {
  auto status = Run(options, std::move(prepared), start).Execute();
  if (status.ok()) return *status;
  const std::string answer = ErrorAnswer(status.error());
  (void)WriteAll(options.parked, {reinterpret_cast<const uint8_t*>(answer.data()), answer.size()},
                 "the zygote");
  fprintf(stderr, "cube-vmm: %s\n", status.error().message().c_str());
  return kStatusVmmError;
}

}  // namespace cube::vmm
