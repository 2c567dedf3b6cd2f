#ifndef CUBE_BENCH_CLAIMS_HTTP_CONNECTION_H_
#define CUBE_BENCH_CLAIMS_HTTP_CONNECTION_H_

#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace cube::bench {

struct HttpAnswer {
  unsigned status = 0;
  std::string body;
};

// A client's connection that stays open: one request after another, each waits for its answer (two
// minutes at most). One thread.
class HttpConnection {
 public:
  // To an HTTP server of the guest, over `vsock`, the sandbox's socket for connections from the
  // host.
  static Result<HttpConnection> OpenGuestPort(const std::string& vsock, int port);
  // To "A.B.C.D:PORT", as a node says where it listens.
  static Result<HttpConnection> OpenTcp(const std::string& address);

  // `headers` are whole lines with their line ends; Content-Length is added. Any status is an
  // answer.
  Result<HttpAnswer> Ask(std::string_view method, std::string_view target, std::string_view headers,
                         std::string_view body = {});

 private:
  explicit HttpConnection(UniqueFd fd, std::string peer)
      : fd_(std::move(fd)), peer_(std::move(peer)) {}
  Status SendAll(std::string_view bytes);

  UniqueFd fd_;
  std::string peer_;   // for errors
  std::string input_;  // read, and of the next answer
};

}  // namespace cube::bench

#endif  // CUBE_BENCH_CLAIMS_HTTP_CONNECTION_H_
