#include "guestkernel/agent/envd/rest_error.h"

#include "base/json_writer.h"
#include "guestkernel/agent/http/simple_handlers.h"

namespace cube::agent::envd {
namespace {

std::string ErrorJson(int status, const std::string& message) {
  JsonWriter writer;
  return writer.BeginObject()
      .Key("code")
      .Int(status)
      .Key("message")
      .String(message)
      .EndObject()
      .text();
}

}  // namespace

void SendError(http::Response* response, int status, const std::string& message) {
  response->Send(status, {{"Content-Type", "application/json"}}, ErrorJson(status, message));
}

void SendError(http::Response* response, const connect::RpcError& error) {
  SendError(response, connect::HttpStatus(error.code), error.message);
}

std::unique_ptr<http::Handler> AnswerError(http::Response* response, int status,
                                           const std::string& message) {
  return http::Answer(response, status, {{"Content-Type", "application/json"}},
                      ErrorJson(status, message));
}

}  // namespace cube::agent::envd
