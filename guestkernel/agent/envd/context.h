#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_CONTEXT_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_CONTEXT_H_

#include <span>
#include <string>

#include "guestkernel/agent/connect/rpc_error.h"
#include "guestkernel/agent/envd/settings.h"
#include "guestkernel/agent/envd/users.h"
#include "guestkernel/agent/http/request.h"
#include "guestkernel/agent/loop/child_reaper.h"
#include "guestkernel/agent/loop/event_loop.h"
#include "guestkernel/agent/loop/memory_budget.h"

namespace cube::agent::envd {

// What all of envd works with. It outlives every request.
struct Context {
  // The user of a call: by its basic authorization, else the default one.
  connect::Outcome<User> UserOf(const http::Request& request);
  // The user of that name; the default one if it is "".
  connect::Outcome<User> UserNamed(const std::string& name);

  // The absolute path, without "." and "..", that `path` means to `user`. Relative paths are from
  // `folder`, "~" is the user's home; of another's home there is no short form.
  static connect::Outcome<std::string> Resolve(const std::string& path, const User& user,
                                               const std::string& folder);
  // The same of a file: from the default working directory, else from the user's home.
  connect::Outcome<std::string> ResolveFile(const std::string& path, const User& user) const;

  EventLoop* loop;
  ChildReaper* reaper;
  MemoryBudget* memory;
  Settings settings;
  Users users;
  // Where files and pipes are read to; nothing of it is kept between two calls.
  std::span<char> scratch;
};

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_CONTEXT_H_
