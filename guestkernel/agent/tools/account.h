#ifndef CUBE_GUESTKERNEL_AGENT_TOOLS_ACCOUNT_H_
#define CUBE_GUESTKERNEL_AGENT_TOOLS_ACCOUNT_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/result.h"

namespace cube::agent {

// Who a program runs as.
struct Account {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  // beside `gid`
  std::string home = "/";

  // What `text`, USER[:GROUP], means by these two files (passwd(5), group(5)), which need not be
  // there. Both may be numbers, which need not be in the files. A user's group, if none is given,
  // is that of the file, or 0 for a number that is not there; the other groups of a user are those
  // of the file, unless a group is given. An error names who is not there.
  static Result<Account> Find(const std::string& text, const std::string& passwd,
                              const std::string& group);
  // By /etc/passwd and /etc/group.
  static Result<Account> Find(const std::string& text);

  // Has this process be it, for good.
  Status Become() const;
};

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_TOOLS_ACCOUNT_H_
