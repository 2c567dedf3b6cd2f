#include "api/guest_link.h"

#include <fcntl.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/write.hpp>
#include <string_view>

#include "base/result.h"
#include "pool/jail/place.h"

namespace cube::api {
namespace {

using pool::kAsTuple;

constexpr uint16_t kEnvdPort = 49983;
constexpr uint16_t kInterpreterPort = 49999;
constexpr uint16_t kForwardPort = 49982;
// The agent's queue of connections may be full for a moment: it is then tried again.
constexpr int kTries = 4;
constexpr pool::milliseconds kPause(50);  // after the first try; then twice as long each time
constexpr pool::milliseconds kLimit(10'000);
constexpr size_t kMaxLine = 256;

// Says a line, and reads the one that answers it: whether that begins with OK. An error is the
// connection's end.
Task<std::pair<boost::system::error_code, bool>> Greet(GuestLink* link, std::string line) {
  auto [broken, written] = co_await asio::async_write(link->socket, asio::buffer(line), kAsTuple);
  if (broken) co_return std::pair(broken, false);
  for (;;) {
    auto data = link->buffer.data();
    std::string_view text(static_cast<const char*>(data.data()), data.size());
    size_t end = text.find('\n');
    if (end != std::string_view::npos) {
      bool ok = text.starts_with("OK");
      link->buffer.consume(end + 1);
      co_return std::pair(boost::system::error_code(), ok);
    }
    if (text.size() > kMaxLine) co_return std::pair(boost::system::error_code(), false);
    auto [failed, size] =
        co_await link->socket.async_read_some(link->buffer.prepare(kMaxLine), kAsTuple);
    if (failed) co_return std::pair(failed, false);
    link->buffer.commit(size);
  }
}

// `*is_final` is set if the agent itself has said that nobody listens at that port of the guest's.
Task<LinkResult> Try(asio::io_context& io, std::string vsock, uint16_t port, bool* is_final) {
  LinkResult result;
  auto link = std::make_shared<GuestLink>(io);
  link->port = port;
  result.fault = LinkFault::kNoMachine;
  boost::system::error_code failed;
  asio::local::stream_protocol::endpoint endpoint;
  // The machine may have put a link in its place.
  auto place = pool::OpenNoLinks(vsock, O_PATH);
  if (!place.ok()) co_return result;
  endpoint.path(Format("/proc/self/fd/%d", place->get()));
  link->socket.open(asio::local::stream_protocol(), failed);
  if (failed) co_return result;
  fcntl(link->socket.native_handle(), F_SETFD, FD_CLOEXEC);
  // A machine that hangs is given up.
  asio::steady_timer timer(io, kLimit);
  timer.async_wait([weak = std::weak_ptr(link)](boost::system::error_code cancelled) {
    auto late = weak.lock();
    if (!cancelled && late != nullptr) late->socket.close(cancelled);
  });
  auto [refused] = co_await link->socket.async_connect(endpoint, kAsTuple);
  if (refused) co_return result;
  bool is_served = port == kEnvdPort || port == kInterpreterPort;
  uint16_t first = is_served ? port : kForwardPort;
  auto [broken, ok] = co_await Greet(link.get(), Format("CONNECT %u\n", first));
  if (!broken && ok && !is_served) {
    std::tie(broken, ok) = co_await Greet(link.get(), Format("CONNECT %u\n", port));
    *is_final = !broken;
  }
  timer.cancel();
  // A port of the agent's own that is closed ends the connection without a word.
  if (broken || !ok) {
    result.fault = LinkFault::kPortClosed;
    co_return result;
  }
  result.fault = LinkFault::kNone;
  result.link = std::move(link);
  co_return result;
}

}  // namespace

Task<LinkResult> ConnectToGuest(asio::io_context& io, std::string vsock, uint16_t port) {
  asio::steady_timer timer(io);
  for (int tries = 1;; ++tries) {
    bool is_final = false;
    LinkResult result = co_await Try(io, vsock, port, &is_final);
    if (result.fault != LinkFault::kPortClosed || is_final || tries == kTries) co_return result;
    co_await pool::Sleep(timer, kPause * (1 << (tries - 1)));
  }
}

}  // namespace cube::api
