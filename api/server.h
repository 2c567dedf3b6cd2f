#ifndef CUBE_API_SERVER_H_
#define CUBE_API_SERVER_H_

#include <boost/asio/ip/tcp.hpp>
#include <list>
#include <memory>
#include <string>

#include "api/connection.h"
#include "api/tls_end.h"

namespace cube::api {

// The HTTP listener. On one thread.
class Server {
 public:
  Server(asio::io_context& io, Handlers handlers)
      : io_(io), acceptor_(io), handlers_(std::move(handlers)) {}

  Status Listen(const pool::ApiConfig& config);
  // Limits and certificates of connections from here on; the address stays.
  Status Configure(const pool::ApiConfig& config);
  void Close();
  // "127.0.0.1:3000", as it came to be; "" if it does not listen.
  const std::string& address() const { return address_; }
  size_t connections() const { return *count_; }

 private:
  Task<void> Accept();
  Task<void> Serve(asio::ip::tcp::socket socket, std::string peer);

  asio::io_context& io_;
  asio::ip::tcp::acceptor acceptor_;
  Handlers handlers_;
  pool::ApiConfig config_;
  std::unique_ptr<TlsEnd> tls_;
  std::string address_;
  std::shared_ptr<size_t> count_ = std::make_shared<size_t>(0);
};

// Whether an address of a configuration, "ADDRESS:PORT", is of this host alone.
bool IsLoopback(const std::string& listen);

}  // namespace cube::api

#endif  // CUBE_API_SERVER_H_
