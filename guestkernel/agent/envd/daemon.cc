#include "guestkernel/agent/envd/daemon.h"

#include <string>
#include <string_view>
#include <utility>

#include "guestkernel/agent/envd/rest_error.h"
#include "guestkernel/agent/envd/secret.h"
#include "guestkernel/agent/envd/warm_request.h"
#include "guestkernel/agent/http/simple_handlers.h"

namespace cube::agent::envd {
namespace {

// Of the protocol that is served: clients go by it.
constexpr char kFixedFields[] =
    "X-Envd-Version: 0.6.13\r\n"
    "Access-Control-Allow-Origin: *\r\n"
    "Access-Control-Expose-Headers: *\r\n";

constexpr size_t kSocketScratch = 256 * 1024;
constexpr size_t kFileScratch = 256 * 1024;

constexpr std::string_view kProcessService = "/process.Process/";
constexpr std::string_view kFilesystemService = "/filesystem.Filesystem/";

// Preflights of browsers, which ask for leave before they send what is not plain.
std::unique_ptr<http::Handler> AnswerPreflight(http::Response* response) {
  return http::Answer(response, 204,
                      {{"Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE"},
                       {"Access-Control-Allow-Headers", "*, Authorization"},
                       {"Access-Control-Max-Age", "7200"}},
                      "");
}

}  // namespace

Daemon::Daemon(EventLoop* loop, ChildReaper* reaper, MemoryBudget* memory)
    : socket_scratch_(new char[kSocketScratch]),
      file_scratch_(new char[kFileScratch]),
      context_{.loop = loop,
               .reaper = reaper,
               .memory = memory,
               .settings = {},
               .users = Users("/etc/passwd", "/etc/group"),
               .scratch = {file_scratch_.get(), kFileScratch}},
      processes_(&context_),
      watchers_(&context_),
      filesystem_(&context_, &watchers_),
      rest_(&context_, &watchers_),
      server_(loop, memory, {socket_scratch_.get(), kSocketScratch}, kFixedFields,
              [this](const http::Request& request, http::Response* response) {
                return Route(request, response);
              }) {
  // The users' files are read before the machine is frozen, rather than in each of its clones.
  context_.users.Find("root");
}

Status Daemon::Warm() {
  for (const char* user : {"user", "root"}) {
    if (context_.users.Find(user)) CUBE_TRY(WarmLoginShell(context_.loop, &server_, user));
  }
  return OkStatus();
}

bool Daemon::Authorized(const http::Request& request) const {
  const std::string& token = context_.settings.access_token;
  if (token.empty()) return true;
  const std::string& path = request.path;
  if (path == "/health" && request.method == "GET") return true;
  if (path == "/init" && request.method == "POST") return true;
  // A signature in the query does as well; what handles the request looks for it.
  if (path == "/files") return true;
  const std::string* given = request.Field("x-access-token");
  return given != nullptr && SameSecret(*given, token);
}

std::unique_ptr<http::Handler> Daemon::Route(const http::Request& request,
                                             http::Response* response) {
  if (request.method == "OPTIONS") return AnswerPreflight(response);
  if (!Authorized(request)) {
    return AnswerError(response, 401, "unauthorized access, please provide a valid access token");
  }
  const std::string_view path = request.path;
  std::unique_ptr<http::Handler> handler;
  if (path.starts_with(kProcessService)) {
    handler = processes_.Call(path.substr(kProcessService.size()), request, response);
  } else if (path.starts_with(kFilesystemService)) {
    handler = filesystem_.Call(path.substr(kFilesystemService.size()), request, response);
  } else {
    handler = rest_.Call(request, response);
  }
  if (handler != nullptr) return handler;
  return AnswerError(response, 404, "there is no " + request.path);
}

}  // namespace cube::agent::envd
