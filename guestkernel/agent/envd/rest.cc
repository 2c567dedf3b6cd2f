#include "guestkernel/agent/envd/rest.h"

#include <time.h>

#include <optional>
#include <utility>

#include "base/json_writer.h"
#include "guestkernel/agent/connect/message.h"
#include "guestkernel/agent/envd/clock_setting.h"
#include "guestkernel/agent/envd/compose.h"
#include "guestkernel/agent/envd/download.h"
#include "guestkernel/agent/envd/rest_error.h"
#include "guestkernel/agent/envd/secret.h"
#include "guestkernel/agent/envd/signature.h"
#include "guestkernel/agent/envd/upload.h"
#include "guestkernel/agent/http/simple_handlers.h"

namespace cube::agent::envd {

using connect::Message;
using connect::Outcome;

namespace {

constexpr size_t kMaxInit = 1 << 20;

std::unique_ptr<http::Handler> AnswerJson(http::Response* response, std::string_view json) {
  return http::Answer(response, 200,
                      {{"Content-Type", "application/json"}, {"Cache-Control", "no-store"}}, json);
}

std::string EnvironmentJson(const Variables& environment) {
  JsonWriter writer;
  writer.BeginObject();
  for (const auto& [name, value] : environment) writer.Key(name).String(value);
  return writer.EndObject().text();
}

}  // namespace

std::unique_ptr<http::Handler> Rest::Call(const http::Request& request, http::Response* response) {
  const bool get = request.method == "GET" || request.method == "HEAD";
  if (request.path == "/health" && get) {
    return http::Answer(response, 204, {{"Cache-Control", "no-store"}}, "");
  }
  if (request.path == "/envs" && get) {
    return AnswerJson(response, EnvironmentJson(context_->settings.environment));
  }
  if (request.path == "/metrics" && get) return AnswerJson(response, metrics_.Json());
  if (request.path == "/init" && request.method == "POST") {
    return http::CollectBody(
        response, kMaxInit,
        [this, &request, response](std::string body) {
          const std::string& token = context_->settings.access_token;
          const std::string* given = request.Field("x-access-token");
          if (given != nullptr && !token.empty() && !SameSecret(*given, token)) {
            return SendError(response, 401, "the access token is another one");
          }
          Init(response, body);
        },
        [response](int status, const std::string& why) { SendError(response, status, why); });
  }
  if (request.path == "/files") return Files(request, response);
  if (request.path == "/files/compose" && request.method == "POST") {
    return std::make_unique<Compose>(response, context_, watchers_);
  }
  return nullptr;
}

std::unique_ptr<http::Handler> Rest::Files(const http::Request& request, http::Response* response) {
  const bool post = request.method == "POST";
  if (!post && request.method != "GET" && request.method != "HEAD") {
    return AnswerError(response, 405, "files are read by GET and written by POST");
  }
  std::optional<std::string> refused =
      WhyUnsigned(request, post ? "write" : "read", context_->settings.access_token, time(nullptr));
  if (refused) return AnswerError(response, 401, *refused);
  if (post) return std::make_unique<Upload>(request, response, context_, watchers_);
  return std::make_unique<Download>(request, response, context_);
}

void Rest::Init(http::Response* response, const std::string& body) {
  Outcome<Message> message = Message::Parse(body);
  if (!message.ok()) return SendError(response, message.error());
  Settings next = context_->settings;
  for (const auto& [name, value] : message->StringMap("envVars")) {
    SetVariable(&next.environment, name, value);
  }
  if (message->Has("accessToken")) {
    const std::string token = message->String("accessToken");
    if (!next.access_token.empty() && token != next.access_token) {
      return SendError(response, 401, "the access token has been set, and to another one");
    }
    next.access_token = token;
  }
  if (message->Has("defaultUser")) next.default_user = message->String("defaultUser");
  if (message->Has("defaultWorkdir")) next.default_workdir = message->String("defaultWorkdir");
  std::optional<int64_t> timestamp;
  if (message->Has("timestamp")) {
    timestamp = ParseTimestamp(message->String("timestamp"));
    if (!timestamp) return SendError(response, 400, "the timestamp is not one of RFC 3339");
  }
  if (!message->error().empty()) return SendError(response, 400, message->error());
  // A request that has been overtaken by a later one changes nothing.
  const bool outdated = timestamp && *timestamp < next.initialized;
  if (!outdated) {
    if (timestamp) {
      next.initialized = *timestamp;
      SetClockIfWrong(*timestamp);
    }
    context_->settings = std::move(next);
  }
  response->Send(204, {{"Cache-Control", "no-store"}}, "");
}

}  // namespace cube::agent::envd
