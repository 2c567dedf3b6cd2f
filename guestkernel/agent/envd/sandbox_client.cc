#include "guestkernel/agent/envd/sandbox_client.h"

#include "guestkernel/agent/connect/base64.h"
#include "guestkernel/agent/connect/envelope.h"

namespace cube::agent::envd {
namespace json = boost::json;

namespace {

json::value ParseOrNull(const std::string& text) {
  boost::system::error_code error;
  json::value value = json::parse(text, error);
  return error ? json::value() : value;
}

std::string Text(const json::value& value) {
  return std::string(value.as_string().data(), value.as_string().size());
}

}  // namespace

std::pair<int, SandboxClient::Json> SandboxClient::Call(const std::string& method,
                                                        const std::string& json,
                                                        const Fields& fields) {
  Fields all = {{"Content-Type", "application/json"}, {"Connect-Protocol-Version", "1"}};
  all.insert(all.end(), fields.begin(), fields.end());
  http_.SendRequest("POST", method, all, &json);
  http::TestClient::Answer answer = http_.ReadAnswer();
  return {answer.status, ParseOrNull(answer.body)};
}

std::string SandboxClient::ErrorOf(const std::string& method, const std::string& json,
                                   const Fields& fields) {
  auto [status, value] = Call(method, json, fields);
  if (status == 200) return "";
  const json::object* error = value.if_object();
  const json::value* code = error == nullptr ? nullptr : error->if_contains("code");
  return code != nullptr && code->is_string() ? Text(*code) : "status " + std::to_string(status);
}

bool SandboxClient::Open(const std::string& method, const std::string& json, const Fields& fields) {
  Fields all = {{"Content-Type", "application/connect+json"}, {"Connect-Protocol-Version", "1"}};
  all.insert(all.end(), fields.begin(), fields.end());
  const std::string body = connect::MakeEnvelope(0, json);
  http_.SendRequest("POST", method, all, &body);
  received_.clear();
  error_.clear();
  ended_ = false;
  return http_.ReadHead().status == 200;
}

std::optional<SandboxClient::Json> SandboxClient::Next() {
  if (ended_) return std::nullopt;
  while (true) {
    if (received_.size() >= connect::kEnvelopeHeader) {
      size_t size = 0;
      for (size_t i = 1; i < 5; ++i) size = size << 8 | static_cast<uint8_t>(received_[i]);
      if (received_.size() >= connect::kEnvelopeHeader + size) {
        const int flags = received_[0];
        Json message = ParseOrNull(received_.substr(connect::kEnvelopeHeader, size));
        received_.erase(0, connect::kEnvelopeHeader + size);
        if (flags == 0) return message;
        ended_ = true;
        if (const json::value* error = message.as_object().if_contains("error")) {
          error_ =
              Text(error->as_object().at("code")) + ": " + Text(error->as_object().at("message"));
        }
        if (http_.ReadPiece()) error_ = "more after the end";
        return std::nullopt;
      }
    }
    std::optional<std::string> piece = http_.ReadPiece();
    if (!piece) {
      ended_ = true;
      error_ = "the stream broke off";
      return std::nullopt;
    }
    received_ += *piece;
  }
}

int64_t Transcript::exit_code() const {
  if (!end) return -2;
  const json::value* code = end->if_contains("exitCode");
  return code == nullptr ? 0 : code->as_int64();
}

Transcript ReadEvents(SandboxClient* client, bool (*until)(const Transcript&)) {
  Transcript all;
  while (std::optional<SandboxClient::Json> message = client->Next()) {
    const json::object& event = message->as_object().at("event").as_object();
    if (const json::value* start = event.if_contains("start")) {
      all.pid = start->as_object().at("pid").as_int64();
    } else if (const json::value* data = event.if_contains("data")) {
      for (const auto& [name, value] : data->as_object()) {
        std::string bytes = connect::DecodeBase64(Text(value)).value_or("(not base64)");
        (name == "stdout" ? all.out : name == "stderr" ? all.err : all.terminal) += bytes;
      }
    } else if (const json::value* end = event.if_contains("end")) {
      all.end = end->as_object();
    }
    if (until != nullptr && until(all)) break;
  }
  return all;
}

std::string Shell(const std::string& script, const std::string& more) {
  json::object process = {{"cmd", "/bin/sh"}, {"args", {"-c", script}}};
  return "{\"process\":" + json::serialize(process) + more + "}";
}

}  // namespace cube::agent::envd
