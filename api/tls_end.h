#ifndef CUBE_API_TLS_END_H_
#define CUBE_API_TLS_END_H_

#include <boost/asio/ip/tcp.hpp>
#include <memory>
#include <optional>
#include <string>

#include "api/guest_link.h"
#include "base/result.h"

namespace cube::api {

// Ends TLS: what a client says in it comes out of a socket in plain text, and the other way round.
// On one thread.
class TlsEnd {
 public:
  // PEM files: a certificate with those that vouch for it, and its key.
  static Result<std::unique_ptr<TlsEnd>> Create(asio::io_context& io,
                                                const std::string& certificate,
                                                const std::string& key);
  ~TlsEnd();

  // Shakes hands within ten seconds; nothing if that fails. What comes out serves as long as the
  // client is there, whatever becomes of this object.
  Task<std::optional<Socket>> Accept(asio::ip::tcp::socket client);

 private:
  struct Context;
  TlsEnd(asio::io_context& io, std::shared_ptr<Context> context);

  asio::io_context& io_;
  std::shared_ptr<Context> context_;
};

}  // namespace cube::api

#endif  // CUBE_API_TLS_END_H_
