#include "api/server.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <boost/asio/ip/address.hpp>
#include <charconv>

namespace cube::api {
namespace {

using asio::ip::tcp;
using boost::system::error_code;

constexpr pool::milliseconds kAcceptPause(50);

std::optional<tcp::endpoint> EndpointOf(const std::string& listen) {
  size_t colon = listen.rfind(':');
  if (colon == std::string::npos) return std::nullopt;
  std::string host = listen.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  if (host == "localhost") host = "127.0.0.1";
  error_code failed;
  auto address = asio::ip::make_address(host, failed);
  if (failed) return std::nullopt;
  uint16_t port = 0;
  const char* end = listen.data() + listen.size();
  auto [read, wrong] = std::from_chars(listen.data() + colon + 1, end, port);
  if (wrong != std::errc() || read != end) return std::nullopt;
  return tcp::endpoint(address, port);
}

}  // namespace

bool IsLoopback(const std::string& listen) {
  auto endpoint = EndpointOf(listen);
  return endpoint && endpoint->address().is_loopback();
}

Status Server::Configure(const pool::ApiConfig& config) {
  std::unique_ptr<TlsEnd> tls;
  if (!config.tls_certificate.empty()) {
    CUBE_ASSIGN(tls, TlsEnd::Create(io_, config.tls_certificate, config.tls_key));
  }
  tls_ = std::move(tls);
  config_ = config;
  return OkStatus();
}

Status Server::Listen(const pool::ApiConfig& config) {
  CUBE_TRY(Configure(config));
  auto endpoint = EndpointOf(config.listen);
  if (!endpoint) {
    return Errorf("api.listen \"%s\" is not ADDRESS:PORT or off", config.listen.c_str());
  }
  error_code failed;
  acceptor_.open(endpoint->protocol(), failed);
  if (!failed) acceptor_.set_option(tcp::acceptor::reuse_address(true), failed);
  if (!failed) acceptor_.bind(*endpoint, failed);
  if (!failed) acceptor_.listen(4096, failed);
  if (failed) return Errorf("api.listen %s: %s", config.listen.c_str(), failed.message().c_str());
  fcntl(acceptor_.native_handle(), F_SETFD, FD_CLOEXEC);
  tcp::endpoint bound = acceptor_.local_endpoint(failed);
  std::string host = bound.address().to_string();
  address_ = (bound.address().is_v6() ? "[" + host + "]" : host) + Format(":%u", bound.port());
  pool::Spawn(io_, Accept());
  return OkStatus();
}

void Server::Close() {
  error_code ignored;
  acceptor_.close(ignored);
  address_.clear();
}

Task<void> Server::Accept() {
  asio::steady_timer pause(io_);
  for (;;) {
    tcp::socket socket(io_);
    auto [failed] = co_await acceptor_.async_accept(socket, pool::kAsTuple);
    if (failed == asio::error::operation_aborted || !acceptor_.is_open()) co_return;
    if (failed) {
      spdlog::warn("the HTTP listener: {}", failed.message());
      co_await pool::Sleep(pause, kAcceptPause);
      continue;
    }
    // One too many is closed at once.
    if (*count_ >= config_.max_connections) continue;
    error_code ignored;
    fcntl(socket.native_handle(), F_SETFD, FD_CLOEXEC);
    socket.set_option(tcp::no_delay(true), ignored);
    socket.set_option(asio::socket_base::keep_alive(true), ignored);
    std::string peer = socket.remote_endpoint(ignored).address().to_string();
    pool::Spawn(io_, Serve(std::move(socket), std::move(peer)));
  }
}

Task<void> Server::Serve(tcp::socket socket, std::string peer) {
  struct Counted {
    explicit Counted(std::shared_ptr<size_t> counter) : count(std::move(counter)) { ++*count; }
    ~Counted() { --*count; }
    std::shared_ptr<size_t> count;
  } counted(count_);
  Socket plain(io_);
  std::shared_ptr<TlsEnd::Session> session;
  if (tls_ != nullptr) {
    auto client = co_await tls_->Accept(std::move(socket));
    if (!client) co_return;
    plain = std::move(client->socket);
    session = std::move(client->session);
  } else {
    plain = Socket(std::move(socket));
  }
  auto connection =
      std::make_shared<Connection>(io_, std::move(plain), std::move(peer), config_, &handlers_);
  co_await connection->Serve();
  // It counts until then.
  if (session != nullptr) co_await TlsEnd::Finish(std::move(session));
}

}  // namespace cube::api
