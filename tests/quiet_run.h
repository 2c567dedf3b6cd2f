#ifndef CUBE_TESTS_QUIET_RUN_H_
#define CUBE_TESTS_QUIET_RUN_H_

#include <string>
#include <vector>

namespace cube::testing {

// Runs `command` by Vmm() with these options, for `seconds` at most, and expects status 0, nothing
// on stderr, and no complaint of the guest's kernel on its console. Returns what it printed.
std::string RunQuietly(std::vector<std::string> options, const std::vector<std::string>& command,
                       int seconds = 600);

}  // namespace cube::testing

#endif  // CUBE_TESTS_QUIET_RUN_H_
