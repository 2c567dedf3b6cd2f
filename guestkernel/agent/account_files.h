#ifndef CUBE_GUESTKERNEL_AGENT_ACCOUNT_FILES_H_
#define CUBE_GUESTKERNEL_AGENT_ACCOUNT_FILES_H_

#include <grp.h>
#include <pwd.h>

#include <functional>
#include <string>

namespace cube::agent {

// Calls `each` with the entries of a file as passwd(5) has it, in order, until it returns false. Lines
// that are none, or longer than 64 KiB, are left out or end it; a file that is not there has none. By
// libc's parser, without its lookups: those would load libraries that PID 1 is not linked with.
void ForEachUser(const std::string& path, const std::function<bool(const passwd&)>& each);
// The same of group(5).
void ForEachGroup(const std::string& path, const std::function<bool(const group&)>& each);

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_ACCOUNT_FILES_H_
