#ifndef CUBE_POOL_DAEMON_H_
#define CUBE_POOL_DAEMON_H_

#include <boost/asio/signal_set.hpp>
#include <memory>
#include <optional>
#include <string>

#include "api/endpoint.h"
#include "base/unique_fd.h"
#include "pool/control_listener.h"
#include "pool/node.h"

namespace cube::pool {

// `cubed`, as given.
struct DaemonOptions {
  std::string config;  // file; empty: the defaults
  std::string home;    // in place of the configuration's, if not empty
  std::string vmm;     // likewise
  std::string listen;  // of HTTP, likewise
  bool jail = true;
};

// The process of the node daemon: configuration, signals, the node and its control socket.
class Daemon {
 public:
  explicit Daemon(DaemonOptions options);
  // Runs until it is told to leave: the exit status. Says "ready" on stdout once requests are
  // taken.
  Result<int> Run();

 private:
  Result<Config> LoadConfig() const;
  Result<std::unique_ptr<Launcher>> MakeLauncher(const Config& config);
  Status TakeLock(const std::string& home);
  Task<void> Begin();
  Outcome<Done> Reload();
  void AwaitSignal();
  void AwaitChildren();
  void Leave(int status);
  Task<void> AwaitForgotten();

  DaemonOptions options_;
  asio::io_context io_;
  asio::signal_set signals_, children_;
  UniqueFd lock_;
  std::unique_ptr<Node> node_;
  std::unique_ptr<api::Endpoint> endpoint_;
  std::optional<ControlApi> api_;
  std::optional<ControlListener> listener_;
  std::optional<Error> failed_;
  int status_ = 0;
};

}  // namespace cube::pool

#endif  // CUBE_POOL_DAEMON_H_
