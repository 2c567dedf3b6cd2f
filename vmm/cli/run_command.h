#ifndef CUBE_VMM_CLI_RUN_COMMAND_H_
#define CUBE_VMM_CLI_RUN_COMMAND_H_

#include <cstdint>

#include "vmm/cli/prepared.h"
#include "vmm/cli/run_options.h"

namespace cube::vmm {

// Runs a VM, and the command in it, to the end; returns the process's exit status. Says what went
// wrong on stderr, one line. `start` is the process's start, CLOCK_MONOTONIC nanoseconds.
int RunCommand(const RunOptions& options, uint64_t start);

// The same in a process that has been prepared for it: the child of a zygote's fork.
int RunPrepared(const RunOptions& options, Prepared prepared, uint64_t start);

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_RUN_COMMAND_H_
