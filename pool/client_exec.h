#ifndef CUBE_POOL_CLIENT_EXEC_H_
#define CUBE_POOL_CLIENT_EXEC_H_

#include <string>
#include <vector>

#include "pool/client_guest.h"

namespace cube::pool {

// `cube sandbox exec`, as given.
struct ExecWords {
  std::vector<std::string> command;
  std::vector<std::string> environment;  // NAME=VALUE
  std::string folder;
  bool terminal = false;  // it has one, which is ours
  bool as_json = false;   // what it has said is told as JSON when it has ended
};

// Runs a command in a sandbox with our stdin, stdout and stderr: its exit status, or 128+n if it
// was ended by a signal. SIGTERM, and SIGINT without a terminal, are passed on. An error if it
// could not be started, or was lost. Leaves threads: the process has to end after it.
Result<int> ExecInGuest(const GuestAccess& access, const ExecWords& words);

// Likewise, without input: what it has said, and how it ended. For small things.
struct ExecOutput {
  int status = 0;
  std::string out, err;
};
Result<ExecOutput> RunInGuest(const GuestAccess& access, const std::vector<std::string>& command);

}  // namespace cube::pool

#endif  // CUBE_POOL_CLIENT_EXEC_H_
