#include "vmm/cli/run_command.h"

#include <cstdio>
#include <memory>

#include "vmm/cli/command_answer.h"
#include "vmm/cli/filters.h"
#include "vmm/cli/run.h"

namespace cube::vmm {

namespace {

int RunToEnd(std::unique_ptr<Run> run) {
  auto status = run->Execute();
  // A sandbox may be forked, and its children as well.
  while (run->forked()) {
    run = Run::GoOnAsChild(std::move(run));
    status = run->Execute();
  }
  if (!status.ok()) run->ReportFailure(status.error());
  // The Run is gone, and a terminal as it was, before an error is written.
  run.reset();
  if (status.ok()) return *status;
  fprintf(stderr, "cube-vmm: %s\n", status.error().message().c_str());
  return kStatusVmmError;
}

}  // namespace

int RunCommand(const RunOptions& options, uint64_t start) {
  auto filters = Filters::Of(options.filters);
  Status filtered = filters.ok() ? filters->machine.Apply() : Status(filters.error());
  if (!filtered.ok()) return AnswerError(filtered.error(), options.json);
  return RunToEnd(std::make_unique<Run>(options, start));
}

int RunPrepared(const RunOptions& options, Prepared prepared, uint64_t start) {
  return RunToEnd(std::make_unique<Run>(options, std::move(prepared), start));
}

}  // namespace cube::vmm
