#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_WARM_REQUEST_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_WARM_REQUEST_H_

#include <string>

#include "base/result.h"
#include "guestkernel/agent/http/server.h"
#include "guestkernel/agent/loop/event_loop.h"

namespace cube::agent::envd {

// Does once, before the machine is frozen, what clients of its clones will ask for first: `user`'s
// login shell runs a command. What that reads from the disk is in memory then, and the way of a
// request through `server` has been gone. Runs the loop until it is done. An error if that takes
// too long; that there is no such user or shell is none.
Status WarmLoginShell(EventLoop* loop, http::Server* server, const std::string& user);

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_WARM_REQUEST_H_
