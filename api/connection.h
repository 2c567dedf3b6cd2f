#ifndef CUBE_API_CONNECTION_H_
#define CUBE_API_CONNECTION_H_

#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <string>

#include "api/message.h"
#include "api/relay.h"
#include "api/sandbox_address.h"
#include "pool/config.h"

namespace cube::api {

// What a connection's requests are given to. All outlive it.
struct Handlers {
  // Of the control plane: the whole request.
  std::function<Task<Reply>(Request)> control;
  // The sandbox whose signature a request has that names none.
  std::function<std::optional<SandboxAddress>(const Request&)> signed_for;
  // Whether a body of that request goes to a file, and where: its path; "" if not.
  std::function<std::string(const Request&)> upload_path;
  // The file is whole.
  std::function<Reply(const Request&, const std::string& path)> uploaded;
  // Of a sandbox: a connection to it, or what is answered instead.
  struct Opened {
    std::shared_ptr<GuestLink> guest;
    Reply instead;
    std::string host;  // in place of the client's, if not empty
  };
  // `idle`: a connection of before, which serves as well if it is to the same one.
  std::function<Task<Opened>(SandboxAddress, std::shared_ptr<Request>,
                             std::shared_ptr<GuestLink> idle)>
      open;
};

// A client's connection: requests one after another, each with its limits (docs/api.md). On one
// thread.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(asio::io_context& io, Socket socket, std::string peer, const pool::ApiConfig& config,
             const Handlers* handlers)
      : io_(io),
        client_(std::make_shared<ClientSide>(std::move(socket))),
        peer_(std::move(peer)),
        config_(config),
        handlers_(handlers),
        watch_(io) {}

  // Until the client goes, or has to.
  Task<void> Serve();
  void Close();

 private:
  using Clock = asio::steady_timer::clock_type;

  // Ends the connection unless the time is set anew by then.
  void SetDeadline(pool::milliseconds time);
  void ClearDeadline() { deadline_ = Clock::time_point::max(); }
  Task<void> Watch();

  // False: the connection is over.
  Task<bool> ServeOne();
  // The length of the header; 0: the connection is over.
  Task<size_t> ReadHeader();
  Task<bool> ServeControl(Request request, std::shared_ptr<RequestParser> parser);
  Task<bool> ServeSandbox(SandboxAddress address, std::shared_ptr<Request> request,
                          std::shared_ptr<RequestParser> parser);
  Task<std::optional<Reply>> ReadWhole(RequestParser* parser, std::string* body);
  Task<Reply> ReadToFile(const Request& request, RequestParser* parser, std::string path);
  Task<bool> Continue(const RequestParser& parser);
  Task<bool> Answer(const Request& request, const Reply& reply, bool keep);
  Task<bool> SendFile(std::shared_ptr<UniqueFd> file, uint64_t size);
  // An answer after which no more is read.
  Task<void> Refuse(const Request& request, unsigned status, std::string message);

  asio::io_context& io_;
  std::shared_ptr<ClientSide> client_;
  std::string peer_;
  const pool::ApiConfig config_;
  const Handlers* handlers_;
  asio::steady_timer watch_;
  Clock::time_point deadline_ = Clock::time_point::max();
  Clock::time_point watched_ = Clock::time_point::max();
  bool closed_ = false;
  std::shared_ptr<GuestLink> guest_;  // of the request before
};

}  // namespace cube::api

#endif  // CUBE_API_CONNECTION_H_
