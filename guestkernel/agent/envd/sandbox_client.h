#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_SANDBOX_CLIENT_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_SANDBOX_CLIENT_H_

#include <boost/json.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "guestkernel/agent/http/test_client.h"

namespace cube::agent::envd {

// For tests: a client of the Connect protocol, one call after the other.
class SandboxClient {
 public:
  using Fields = http::TestClient::Fields;
  using Json = boost::json::value;

  explicit SandboxClient(UniqueFd socket) : http_(std::move(socket)) {}

  // A call with one message each way: the HTTP status and the message.
  std::pair<int, Json> Call(const std::string& method, const std::string& json,
                            const Fields& fields = {});
  // The code of a call's error; "" if it did well.
  std::string ErrorOf(const std::string& method, const std::string& json,
                      const Fields& fields = {});

  // Begins a call with a stream back. False if it was refused.
  bool Open(const std::string& method, const std::string& json, const Fields& fields = {});
  // The next message; nothing when the stream has ended rightly, or not at all: see error().
  std::optional<Json> Next();
  // Of the last message: "" if all was well, else its code and message, or why there was none.
  const std::string& error() const { return error_; }

  http::TestClient& http() { return http_; }

 private:
  http::TestClient http_;
  std::string received_;
  std::string error_;
  bool ended_ = false;
};

// All that a process says, and how it ended.
struct Transcript {
  int64_t pid = 0;
  std::string out;
  std::string err;
  std::string terminal;
  std::optional<boost::json::object> end;
  // Of the end: its exit code, or -2 if there was none.
  int64_t exit_code() const;
};

// Reads the events of a process up to the end, or until `until` is true.
Transcript ReadEvents(SandboxClient* client, bool (*until)(const Transcript&) = nullptr);

// What Start is given to have a shell run `script`; `more` are further fields, after a comma.
std::string Shell(const std::string& script, const std::string& more = "");

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_SANDBOX_CLIENT_H_
