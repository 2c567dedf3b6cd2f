#include "api/guest_request.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>

#include "api/guest_link.h"
#include "api/http_parser.h"

namespace cube::api {
namespace {

constexpr uint64_t kMaxBody = 64 * 1024;
constexpr pool::milliseconds kLimit(2000);

}  // namespace

Task<pool::Outcome<std::string>> GetFromGuest(asio::io_context& io, std::string vsock,
                                              uint16_t port, std::string path, std::string token) {
  auto connected = co_await ConnectToGuest(io, std::move(vsock), port);
  if (connected.link == nullptr) {
    co_return pool::Refuse(pool::Fault::kInternal, "port %u of the sandbox is not open", port);
  }
  auto link = connected.link;
  asio::steady_timer timer(io, kLimit);
  timer.async_wait([weak = std::weak_ptr(link)](boost::system::error_code cancelled) {
    auto late = weak.lock();
    if (!cancelled && late != nullptr) late->socket.close(cancelled);
  });
  std::string text = "GET " + path + " HTTP/1.1\r\nHost: sandbox\r\nConnection: close\r\n";
  if (!token.empty()) text += "X-Access-Token: " + token + "\r\n";
  text += "\r\n";
  auto [broken, written] =
      co_await asio::async_write(link->socket, asio::buffer(text), pool::kAsTuple);
  http::response_parser<http::string_body> parser;
  parser.body_limit(kMaxBody);
  boost::system::error_code failed = broken;
  if (!failed) {
    auto [wrong, size] =
        co_await http::async_read(link->socket, link->buffer, parser, pool::kAsTuple);
    failed = wrong;
  }
  timer.cancel();
  if (failed) {
    co_return pool::Refuse(pool::Fault::kInternal, "port %u of the sandbox: %s", port,
                           failed.message().c_str());
  }
  if (parser.get().result_int() != 200) {
    co_return pool::Refuse(pool::Fault::kInternal, "port %u of the sandbox answers %u", port,
                           parser.get().result_int());
  }
  co_return std::move(parser.get().body());
}

}  // namespace cube::api
