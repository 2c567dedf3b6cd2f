#ifndef CUBE_BENCH_CLAIMS_GUEST_COMMAND_H_
#define CUBE_BENCH_CLAIMS_GUEST_COMMAND_H_

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace cube::bench {

// Runs a program in a sandbox, as user `user`, by envd's process.Process/Start over `vsock`, the
// sandbox's socket for connections from the host. Waits for its end; its stdout. An error if it
// ends with anything but 0.
Result<std::string> RunInGuest(const std::string& vsock, const std::vector<std::string>& arguments);

// Runs a cell of Python in the sandbox's code interpreter; what it printed.
Result<std::string> RunCell(const std::string& vsock, const std::string& code);

// The stdout of a stream of Connect envelopes, as process.Process/Start answers (JSON). An error
// if it is cut off, or says that the program failed.
Result<std::string> OutputOfStream(std::string_view stream);

}  // namespace cube::bench

#endif  // CUBE_BENCH_CLAIMS_GUEST_COMMAND_H_
