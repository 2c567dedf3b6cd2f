#ifndef CUBE_GUESTKERNEL_AGENT_HOSTS_FILE_H_
#define CUBE_GUESTKERNEL_AGENT_HOSTS_FILE_H_

#include <sys/types.h>

#include <string>
#include <utility>

#include "base/result.h"
#include "base/unique_fd.h"

namespace cube::agent {

// /etc/hosts, in which the machine's own name has a line of a length that no name changes, so that
// another name is one write. The file is kept open for writing; one that somebody puts in its place
// is not looked for.
class HostsFile {
 public:
  // Gives the file at `path`, which is made if there is none, a line for localhost, if it has none,
  // and one for `name`, at 127.0.1.1, in place of those that are there for it. What else stands in
  // it stays. An error if it cannot be written, or has more than 64 KiB.
  static Result<HostsFile> Prepare(const std::string& path, const std::string& name);

  // Gives the machine another name there. Where its line is no longer as it was written, somebody
  // has changed the file, and it is left alone. Two system calls, none if the name is the same.
  Status SetName(const std::string& name);

 private:
  HostsFile(UniqueFd file, off_t place, std::string line)
      : file_(std::move(file)), place_(place), line_(std::move(line)) {}

  UniqueFd file_;
  off_t place_;       // of the line in the file
  std::string line_;  // as it was written
};

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_HOSTS_FILE_H_
