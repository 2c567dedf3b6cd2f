#ifndef CUBE_TEMPLATES_SUPERVISOR_H_
#define CUBE_TEMPLATES_SUPERVISOR_H_

#include <functional>

#include "base/result.h"

namespace cube::templates {

// Runs `work` in a child process, in a process group of its own with all that it starts, and
// returns its exit status once it has ended. SIGINT, SIGTERM and SIGHUP end that group: an error
// says so. So whatever becomes of the work, the caller can clean up after it. In the child `work`
// does not return from here.
Result<int> Supervise(const std::function<int()>& work);

}  // namespace cube::templates

#endif  // CUBE_TEMPLATES_SUPERVISOR_H_
