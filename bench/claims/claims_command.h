#ifndef CUBE_BENCH_CLAIMS_CLAIMS_COMMAND_H_
#define CUBE_BENCH_CLAIMS_CLAIMS_COMMAND_H_

#include <CLI/CLI.hpp>

namespace cube::bench {

// Adds `cube-bench claims` and `cube-bench compare`. What they return is in `*status` once the
// arguments have been parsed.
void AddClaimsCommands(CLI::App* app, int* status);

}  // namespace cube::bench

#endif  // CUBE_BENCH_CLAIMS_CLAIMS_COMMAND_H_
