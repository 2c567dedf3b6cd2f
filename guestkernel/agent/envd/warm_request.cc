#include "guestkernel/agent/envd/warm_request.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cstdint>
#include <utility>

#include "base/json_writer.h"
#include "base/unique_fd.h"
#include "guestkernel/agent/connect/envelope.h"

namespace cube::agent::envd {
namespace {

// Where KVM emulates ring 0 without an engine of ours it takes some seconds.
constexpr uint64_t kNanoseconds = 60'000'000'000;
// As the SDKs have commands run. A builtin, so that the shell itself is what ends.
constexpr char kMessage[] =
    R"({"process":{"cmd":"/bin/bash","args":["-l","-c","echo"]},"stdin":false})";

std::string MakeRequest(const std::string& user) {
  const std::string body = connect::MakeEnvelope(0, kMessage);
  return "POST /process.Process/Start HTTP/1.1\r\nHost: warm\r\nConnection: close\r\n"
         "Content-Type: application/connect+json\r\nConnect-Timeout-Ms: " +
         std::to_string(kNanoseconds / 1'000'000) + "\r\nAuthorization: Basic " +
         Base64(user + ":") + "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         body;
}

}  // namespace

Status WarmLoginShell(EventLoop* loop, http::Server* server, const std::string& user) {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0) {
    return ErrnoError("socketpair");
  }
  UniqueFd client(fds[0]);
  server->Accept(UniqueFd(fds[1]));
  const std::string request = MakeRequest(user);
  if (send(client.get(), request.data(), request.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(request.size())) {
    return ErrnoError("cannot send to itself");
  }
  CUBE_TRY(loop->Add(client.get(), EPOLLIN, [loop, &client](uint32_t) {
    char answer[4096];
    if (recv(client.get(), answer, sizeof answer, 0) <= 0) loop->Stop();
  }));
  Status done = loop->RunFor(kNanoseconds, "warming up a login shell");
  loop->Remove(client.get());
  return done;
}

}  // namespace cube::agent::envd
