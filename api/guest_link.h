#ifndef CUBE_API_GUEST_LINK_H_
#define CUBE_API_GUEST_LINK_H_

#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <cstdint>
#include <memory>
#include <string>

#include "pool/async.h"

namespace cube::api {

using pool::Task;
namespace asio = boost::asio;

// A stream socket of any family: TCP, or Unix.
using Socket = asio::generic::stream_protocol::socket;

// A connection to a TCP port of a sandbox, by its machine's vsock (docs/devices.md): to the ports
// that the agent serves itself at once, to others by its forwarder.
struct GuestLink {
  explicit GuestLink(asio::io_context& io) : socket(io) {}

  Socket socket;
  boost::beast::flat_buffer buffer;  // what has come and was not yet used
  std::string sandbox;
  uint16_t port = 0;
  pid_t process = 0;  // of the machine: another one after a pause
};

// Why there is none.
enum class LinkFault { kNone, kNoMachine, kPortClosed };

struct LinkResult {
  std::shared_ptr<GuestLink> link;
  LinkFault fault = LinkFault::kNone;
};

// `vsock`: the machine's socket on the host. A port that nobody has opened is tried again for
// a second and a half: servers take a moment to start.
Task<LinkResult> ConnectToGuest(asio::io_context& io, std::string vsock, uint16_t port);

}  // namespace cube::api

#endif  // CUBE_API_GUEST_LINK_H_
