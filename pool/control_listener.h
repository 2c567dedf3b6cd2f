#ifndef CUBE_POOL_CONTROL_LISTENER_H_
#define CUBE_POOL_CONTROL_LISTENER_H_

#include <boost/asio/local/stream_protocol.hpp>
#include <memory>
#include <string>

#include "pool/async.h"
#include "pool/control_api.h"
#include "pool/events.h"

namespace cube::pool {

// cubed's control socket: a Unix stream socket of mode 0600. Each connection's requests are carried
// out one after another; {"op":"events"} turns it into a stream of events. On one thread.
class ControlListener {
 public:
  // A request is at most this long; a peer that sends more is cut off.
  static constexpr size_t kMaxLine = 256 * 1024;
  static constexpr size_t kMaxConnections = 1000;
  // Events that a peer does not read are kept up to so many; then it is cut off.
  static constexpr size_t kMaxEvents = 10'000;

  // `api` and `events` outlive the connections, which may outlive the listener.
  ControlListener(asio::io_context& io, ControlApi* api, Events* events)
      : io_(io),
        api_(api),
        events_(events),
        acceptor_(io),
        connections_(std::make_shared<size_t>(0)) {}
  ~ControlListener();

  // Replaces a socket of a daemon that is gone. The caller has made sure that there is no other.
  Status Listen(const std::string& path);
  void Close();

 private:
  using Socket = asio::local::stream_protocol::socket;

  Task<void> Accept();
  Task<void> Serve(std::shared_ptr<Socket> socket);
  Task<void> Stream(std::shared_ptr<Socket> socket);

  asio::io_context& io_;
  ControlApi* api_;
  Events* events_;
  asio::local::stream_protocol::acceptor acceptor_;
  std::string path_;
  std::shared_ptr<size_t> connections_;
};

}  // namespace cube::pool

#endif  // CUBE_POOL_CONTROL_LISTENER_H_
