#ifndef CUBE_GUESTKERNEL_AGENT_INTERPRETER_DAEMON_H_
#define CUBE_GUESTKERNEL_AGENT_INTERPRETER_DAEMON_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "base/result.h"
#include "base/unique_fd.h"
#include "guestkernel/agent/envd/context.h"
#include "guestkernel/agent/http/server.h"
#include "guestkernel/agent/interpreter/interpreter.h"

namespace cube::agent::interpreter {

// Where clients of the code interpreter look for it, by TCP and by vsock.
inline constexpr uint16_t kPort = 49999;

// What a client talks to that wants code run, contexts kept. Of the loop's thread.
class Daemon {
 public:
  // `machine` outlives the daemon; `folder`: see Interpreter.
  Daemon(envd::Context* machine, std::string folder);

  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  // Serves those who connect to `socket`, which listens and does not block.
  Status Serve(UniqueFd socket) { return server_.Serve(std::move(socket)); }

  // Has Python ready for its first cell, where the machine has it, so that copies of the machine
  // need not start it. Runs the loop until then, for two minutes at most: what has not come by then
  // is ended, and copies begin anew.
  Status Warm();

  // Workers may be copies of others from now on.
  void TakeIdentity() { interpreter_.TakeIdentity(); }

 private:
  static constexpr size_t kSocketScratch = 64 * 1024;

  envd::Context* machine_;
  std::unique_ptr<char[]> socket_scratch_;
  Interpreter interpreter_;
  http::Server server_;
};

}  // namespace cube::agent::interpreter

#endif  // CUBE_GUESTKERNEL_AGENT_INTERPRETER_DAEMON_H_
