#ifndef CUBE_BENCH_CLAIMS_CHILD_H_
#define CUBE_BENCH_CLAIMS_CHILD_H_

#include <string>
#include <vector>

#include "base/result.h"

namespace cube::bench {

struct ChildRun {
  int status = 0;      // exit status, or 128 and the signal's number
  std::string output;  // stdout and stderr, its first 1 MiB
  double ms = 0;       // from before it was started until it had ended
};

// Runs a program to its end, looked up in $PATH. `environment`: NAME=VALUE beside what this process
// has. An error if it cannot be started.
Result<ChildRun> RunChild(const std::vector<std::string>& arguments,
                          const std::vector<std::string>& environment = {});

// The same, and an error with its output unless it ends with 0.
Result<ChildRun> RunChildWell(const std::vector<std::string>& arguments,
                              const std::vector<std::string>& environment = {});

// Whether $PATH has that program.
bool HasProgram(const std::string& name);

}  // namespace cube::bench

#endif  // CUBE_BENCH_CLAIMS_CHILD_H_
