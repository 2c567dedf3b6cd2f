#ifndef CUBE_TESTS_AWAIT_H_
#define CUBE_TESTS_AWAIT_H_

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

namespace cube::testing {

// Waits until there is no process `pid` any more, or it has only to be waited for.
void AwaitEnd(pid_t pid);
// The same for any of these.
void AwaitAnyEnd(const std::vector<pid_t>& pids);

// Waits until `done` says so, which is asked once, and again when something in `folder`, or what is
// written to a file in it, has changed.
void AwaitChange(const std::string& folder, const std::function<bool()>& done);

// Waits until nothing has that name.
void AwaitGone(const std::string& path);

}  // namespace cube::testing

#endif  // CUBE_TESTS_AWAIT_H_
