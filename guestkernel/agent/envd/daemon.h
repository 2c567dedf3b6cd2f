#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_DAEMON_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_DAEMON_H_

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "base/unique_fd.h"
#include "guestkernel/agent/envd/context.h"
#include "guestkernel/agent/envd/filesystem_service.h"
#include "guestkernel/agent/envd/process_service.h"
#include "guestkernel/agent/envd/rest.h"
#include "guestkernel/agent/envd/watcher_table.h"
#include "guestkernel/agent/http/server.h"
#include "guestkernel/agent/identity.h"
#include "guestkernel/agent/loop/child_reaper.h"
#include "guestkernel/agent/loop/event_loop.h"

namespace cube::agent::envd {

// Where clients of the sandbox look for it, by TCP and by vsock.
inline constexpr uint16_t kPort = 49983;

// What a client of a sandbox talks to inside it: processes, files, settings. Of the loop's thread.
class Daemon {
 public:
  // All three outlive the daemon.
  Daemon(EventLoop* loop, ChildReaper* reaper, MemoryBudget* memory);

  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  // Serves those who connect to `socket`, which listens and does not block.
  Status Serve(UniqueFd socket) { return server_.Serve(std::move(socket)); }

  // Has what clients ask for first done once, so that copies of the machine are quick at it: a
  // login shell of `user` and of root. Runs the loop until then.
  Status Warm();

  // Becomes the daemon of a sandbox with this identity.
  void TakeIdentity(const Identity& identity) { context_.settings.Take(identity); }

  // What others that serve this machine's clients share with it.
  Context* context() { return &context_; }

  size_t connections() const { return server_.connections(); }

 private:
  std::unique_ptr<http::Handler> Route(const http::Request& request, http::Response* response);
  // False if the request needs an access token and has none, or another.
  bool Authorized(const http::Request& request) const;

  // Of pages that are not there before they are used.
  std::unique_ptr<char[]> socket_scratch_;
  std::unique_ptr<char[]> file_scratch_;
  Context context_;
  ProcessService processes_;
  WatcherTable watchers_;
  FilesystemService filesystem_;
  Rest rest_;
  http::Server server_;
};

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_DAEMON_H_
