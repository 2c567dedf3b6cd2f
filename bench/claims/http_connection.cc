#include "bench/claims/http_connection.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cerrno>
#include <charconv>
#include <cstring>

namespace cube::bench {
namespace {

namespace http = boost::beast::http;

constexpr size_t kMaxAnswer = 64u << 20;
constexpr time_t kLimitSeconds = 120;

Status Connect(int fd, const sockaddr* address, socklen_t size, const std::string& peer) {
  timeval limit = {kLimitSeconds, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  return connect(fd, address, size) == 0 ? OkStatus() : Status(ErrnoError("%s", peer.c_str()));
}

}  // namespace

Status HttpConnection::SendAll(std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t sent = send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return ErrnoError("sending to %s", peer_.c_str());
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return OkStatus();
}

Result<HttpConnection> HttpConnection::OpenGuestPort(const std::string& vsock, int port) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return ErrnoError("socket");
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
  if (vsock.size() >= sizeof address.sun_path) return Errorf("%s: too long", vsock.c_str());
  memcpy(address.sun_path, vsock.data(), vsock.size());
  CUBE_TRY(Connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address, vsock));
  HttpConnection connection(std::move(fd), Format("port %d of the guest", port));
  CUBE_TRY(connection.SendAll(Format("CONNECT %d\n", port)));
  char c = 0;
  std::string line;
  while (c != '\n' && line.size() < 64) {
    ssize_t size = recv(connection.fd_.get(), &c, 1, 0);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return Errorf("port %d of the guest does not answer", port);
    line += c;
  }
  if (!line.starts_with("OK ")) return Errorf("port %d of the guest: %s", port, line.c_str());
  return connection;
}

Result<HttpConnection> HttpConnection::OpenTcp(const std::string& address) {
  const size_t colon = std::min(address.rfind(':'), address.size());
  sockaddr_in to = {};
  to.sin_family = AF_INET;
  uint16_t port = 0;
  const char* end = address.data() + address.size();
  auto [read, wrong] =
      std::from_chars(address.data() + std::min(colon + 1, address.size()), end, port);
  if (wrong != std::errc() || read != end ||
      inet_pton(AF_INET, address.substr(0, colon).c_str(), &to.sin_addr) != 1) {
    return Errorf("\"%s\" is not A.B.C.D:PORT", address.c_str());
  }
  to.sin_port = htons(port);
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return ErrnoError("socket");
  int yes = 1;
  setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  CUBE_TRY(Connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof to, address));
  return HttpConnection(std::move(fd), address);
}

Result<HttpAnswer> HttpConnection::Ask(std::string_view method, std::string_view target,
                                       std::string_view headers, std::string_view body) {
  std::string request;
  request.append(method).append(" ").append(target).append(" HTTP/1.1\r\n").append(headers);
  if (!body.empty() || method == "POST") {
    request += "Content-Length: " + std::to_string(body.size()) + "\r\n";
  }
  request.append("\r\n").append(body);
  CUBE_TRY(SendAll(request));
  http::response_parser<http::string_body> parser;
  parser.body_limit(kMaxAnswer);
  parser.eager(true);
  char piece[64 * 1024];
  boost::system::error_code bad;
  while (!parser.is_done()) {
    ssize_t size = recv(fd_.get(), piece, sizeof piece, 0);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return ErrnoError("reading from %s", peer_.c_str());
    if (size == 0) {
      parser.put_eof(bad);
    } else {
      input_.append(piece, static_cast<size_t>(size));
      input_.erase(0, parser.put(boost::asio::buffer(input_), bad));
      if (bad == http::error::need_more) bad.clear();
    }
    if (bad) return Errorf("%s: %s", peer_.c_str(), bad.message().c_str());
  }
  return HttpAnswer{parser.get().result_int(), std::move(parser.get().body())};
}

}  // namespace cube::bench
