#ifndef CUBE_POOL_CLIENT_GUEST_H_
#define CUBE_POOL_CLIENT_GUEST_H_

#include <boost/json/object.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace cube::pool {

// How a running sandbox's agent is reached, and as whom.
struct GuestAccess {
  std::string vsock;  // the socket of the machine's ports
  std::string token;  // the sandbox's; may be empty
  std::string user;   // of the guest; empty: its default one
};

// A connection to the agent in a sandbox (docs/envd.md), by HTTP/1.1: one request after another,
// each answered before the next. Blocks; for one thread at a time. What comes is a guest's, and may
// be anything: heads and messages are bounded.
class GuestConnection {
 public:
  using Fields = std::vector<std::pair<std::string, std::string>>;

  static Result<GuestConnection> Open(const GuestAccess& access);

  // The head of a request whose body of `length` bytes is sent by Send().
  Status SendHead(const std::string& method, const std::string& target, uint64_t length,
                  const Fields& fields);
  Status Send(std::string_view bytes);
  // The status of the answer, whose body is read by Read() or ReadAll() before the next request.
  Result<int> ReadHead();
  // A piece of the body as it comes; empty at its end.
  Result<std::string> Read();
  // The rest of the body, which may have at most kMaxMessage bytes.
  Result<std::string> ReadAll();

  // A call of Connect with one message each way. An error is the agent's own text.
  Result<boost::json::object> Call(const std::string& method, const boost::json::object& message);
  // Begins one with a stream back, whose messages are Next()'s.
  Status Open(const std::string& method, const boost::json::object& message);
  // The next message. The stream's end, which is an error if the agent says so, has the member "".
  Result<boost::json::object> Next();
  static bool IsEnd(const boost::json::object& message) { return message.contains(""); }

  // Why a request was refused, of an answer that says so.
  static Error Refusal(int status, const std::string& body);

  static constexpr size_t kMaxMessage = 16 << 20;

 private:
  GuestConnection(UniqueFd socket, GuestAccess access)
      : socket_(std::move(socket)), access_(std::move(access)) {}
  Status Greet();
  // Some bytes more in `held_`; false at the connection's end.
  Result<bool> Fill();
  Result<std::string> ReadLine();
  Status BeginChunk();

  UniqueFd socket_;
  GuestAccess access_;
  std::string held_;    // what has come and was not used
  std::string stream_;  // of a stream's messages, likewise
  uint64_t left_ = 0;   // of the body, or of its chunk
  bool chunked_ = false, begun_ = false;
  bool done_ = true;  // nothing of an answer is left
};

}  // namespace cube::pool

#endif  // CUBE_POOL_CLIENT_GUEST_H_
