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

  // A client whose hands were shaken. It serves as long as it is there, whatever becomes of the
  // TlsEnd.
  struct Session;
  struct Client {
    Socket socket;  // in plain text
    std::shared_ptr<Session> session;
  };

  // Shakes hands within ten seconds; nothing if that fails.
  Task<std::optional<Client>> Accept(asio::ip::tcp::socket client);
  // To be waited for once the client's plain socket is closed: what was written to it still gets to
  // the client, but one that does not take it within five seconds is given up.
  static Task<void> Finish(std::shared_ptr<Session> session);

 private:
  struct Context;
  TlsEnd(asio::io_context& io, std::shared_ptr<Context> context);

  asio::io_context& io_;
  std::shared_ptr<Context> context_;
};

}  // namespace cube::api

#endif  // CUBE_API_TLS_END_H_
