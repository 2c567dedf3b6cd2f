#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_USERS_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_USERS_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "guestkernel/agent/launch.h"

namespace cube::agent::envd {

struct User {
  std::string name;
  std::string home;
  std::string shell;  // empty if it has none of its own
  Credentials credentials;
};

// The machine's users and groups, as /etc/passwd and /etc/group have them. They are read when first
// asked for, and again when they have changed. A machine without them has root.
class Users {
 public:
  // Paths of the two files.
  Users(std::string passwd, std::string group);

  // Nothing if there is no such user.
  std::optional<User> Find(const std::string& name);
  // The same of what the configuration of a container image calls a user: a name or a number, and
  // perhaps a ':' and a group, a name or a number, whose only member it then is. A number need not
  // be in the files.
  std::optional<User> FindConfigured(const std::string& text);
  // Names, or the numbers if they have none.
  std::string UserName(uid_t uid);
  std::string GroupName(gid_t gid);

 private:
  // What tells one version of a file from the next.
  struct Version {
    bool operator==(const Version&) const = default;

    uint64_t inode = 0;
    int64_t size = -1;
    int64_t seconds = 0;
    int64_t nanoseconds = 0;
  };
  struct Account {
    uid_t uid;
    gid_t gid;
    std::string home;
    std::string shell;
  };
  struct Group {
    gid_t gid;
    std::vector<std::string> members;
  };

  static Version Look(const std::string& path);
  // Reads the files if they are not as they were. Looks at most twice a second, or `now`.
  void Refresh(bool now);
  void ReadPasswd();
  void ReadGroup();

  std::string passwd_;
  std::string group_;
  Version passwd_version_;
  Version group_version_;
  uint64_t looked_ = 0;  // CLOCK_MONOTONIC; 0: never
  std::map<std::string, Account> accounts_;
  std::map<std::string, Group> groups_;
  std::map<uid_t, std::string> user_names_;
  std::map<gid_t, std::string> group_names_;
};

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_USERS_H_
