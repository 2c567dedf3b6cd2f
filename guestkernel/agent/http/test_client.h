#ifndef CUBE_GUESTKERNEL_AGENT_HTTP_TEST_CLIENT_H_
#define CUBE_GUESTKERNEL_AGENT_HTTP_TEST_CLIENT_H_

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/unique_fd.h"

namespace cube::agent::http {

// For tests: a client that sends what it is told, right or wrong, and waits for answers.
class TestClient {
 public:
  using Fields = std::vector<std::pair<std::string, std::string>>;
  struct Answer {
    int status = 0;                             // 0: the connection ended before there was one
    std::map<std::string, std::string> fields;  // names in lower case
    std::string body;
    bool whole = false;  // the body ended as it was to
  };

  // `socket` is connected, and blocks.
  explicit TestClient(UniqueFd socket) : socket_(std::move(socket)) {}

  // False if the server has closed.
  bool Send(std::string_view bytes);
  // A request with a body, if it is not null.
  bool SendRequest(const std::string& method, const std::string& target, const Fields& fields = {},
                   const std::string* body = nullptr);
  void CloseOurHalf();
  void Close() { socket_.Reset(); }

  Answer ReadAnswer();
  // The head only; the body is then read by ReadPiece().
  Answer ReadHead();
  // The next chunk, or what there is of a body with a length; nothing at the end of it.
  std::optional<std::string> ReadPiece();
  // True if nothing but the end of the connection comes.
  bool AtEnd();

  int fd() const { return socket_.get(); }

 private:
  // More bytes into `received_`; false at the end.
  bool Receive();
  std::optional<std::string> TakeLine();
  std::optional<std::string> Take(size_t size);

  UniqueFd socket_;
  std::string received_;
  bool chunked_ = false;
  bool until_end_ = false;
  size_t left_ = 0;
  bool whole_ = false;
};

}  // namespace cube::agent::http

#endif  // CUBE_GUESTKERNEL_AGENT_HTTP_TEST_CLIENT_H_
