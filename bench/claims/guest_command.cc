#include "bench/claims/guest_command.h"

#include <algorithm>
#include <boost/archive/iterators/binary_from_base64.hpp>
#include <boost/archive/iterators/transform_width.hpp>
#include <boost/json.hpp>
#include <optional>

#include "bench/claims/http_connection.h"

namespace cube::bench {
namespace {

namespace json = boost::json;

constexpr int kEnvdPort = 49983, kInterpreterPort = 49999;
constexpr size_t kEnvelopeHead = 5;
constexpr uint8_t kEndOfStream = 2;

// The body of the answer to one request.
Result<std::string> Post(const std::string& vsock, int port, const std::string& path,
                         const std::string& type, const std::string& body) {
  CUBE_ASSIGN(HttpConnection connection, HttpConnection::OpenGuestPort(vsock, port));
  CUBE_ASSIGN(
      HttpAnswer answer,
      connection.Ask("POST", path,
                     "Host: sandbox\r\nConnection: close\r\nContent-Type: " + type + "\r\n", body));
  if (answer.status != 200) {
    return Errorf("%s: status %u: %.300s", path.c_str(), answer.status, answer.body.c_str());
  }
  return std::move(answer.body);
}

std::optional<std::string> FromBase64(std::string_view text) {
  using namespace boost::archive::iterators;
  using Bytes = transform_width<binary_from_base64<const char*>, 8, 6>;
  while (text.ends_with('=')) text.remove_suffix(1);
  std::string bytes(text.size() * 3 / 4, '\0');
  try {
    Bytes next(text.data());
    for (char& c : bytes) c = *next++;
  } catch (const dataflow_exception&) {
    return std::nullopt;
  }
  return bytes;
}

const json::object* ObjectIn(const json::object* from, const char* name) {
  const json::value* value = from == nullptr ? nullptr : from->if_contains(name);
  return value == nullptr ? nullptr : value->if_object();
}

const json::string* TextIn(const json::object* from, const char* name) {
  const json::value* value = from == nullptr ? nullptr : from->if_contains(name);
  return value == nullptr ? nullptr : value->if_string();
}

}  // namespace

Result<std::string> OutputOfStream(std::string_view stream) {
  std::string output;
  bool has_ended = false;
  while (stream.size() >= kEnvelopeHead) {
    const auto* head = reinterpret_cast<const uint8_t*>(stream.data());
    const size_t size =
        size_t{head[1]} << 24 | size_t{head[2]} << 16 | size_t{head[3]} << 8 | head[4];
    if (stream.size() - kEnvelopeHead < size) break;
    const std::string_view message = stream.substr(kEnvelopeHead, size);
    stream.remove_prefix(kEnvelopeHead + size);
    json::error_code failed;
    json::value value = json::parse(json::string_view(message.data(), message.size()), failed);
    const json::object* object = failed ? nullptr : value.if_object();
    if (object == nullptr) return Errorf("a message that is no object");
    if ((head[0] & kEndOfStream) != 0) {
      if (object->contains("error")) return Errorf("%.300s", std::string(message).c_str());
      if (has_ended) return output;
      break;
    }
    const json::object* event = ObjectIn(object, "event");
    if (const json::string* text = TextIn(ObjectIn(event, "data"), "stdout")) {
      auto bytes = FromBase64(*text);
      if (!bytes) return Errorf("output that is no base64");
      output += *bytes;
    }
    if (const json::object* end = ObjectIn(event, "end")) {
      const json::string* status = TextIn(end, "status");
      if (status == nullptr || *status != "exit status 0") {
        return Errorf("the command: %.300s", std::string(message).c_str());
      }
      has_ended = true;
    }
  }
  return Errorf("the stream of a command is cut off");
}

Result<std::string> RunInGuest(const std::string& vsock,
                               const std::vector<std::string>& arguments) {
  json::array more(arguments.begin() + 1, arguments.end());
  std::string message = json::serialize(
      json::object{{"process", json::object{{"cmd", arguments[0]}, {"args", std::move(more)}}},
                   {"stdin", false}});
  std::string envelope(kEnvelopeHead, '\0');
  for (size_t i = 0; i < 4; ++i) {
    envelope[i + 1] = static_cast<char>(message.size() >> (8 * (3 - i)));
  }
  CUBE_ASSIGN(std::string body, Post(vsock, kEnvdPort, "/process.Process/Start",
                                     "application/connect+json", envelope + message));
  return OutputOfStream(body);
}

Result<std::string> RunCell(const std::string& vsock, const std::string& code) {
  const json::object request = {{"code", code}, {"language", "python"}};
  CUBE_ASSIGN(std::string body, Post(vsock, kInterpreterPort, "/execute", "application/json",
                                     json::serialize(request)));
  std::string output;
  for (size_t at = 0; at < body.size();) {
    size_t end = std::min(body.find('\n', at), body.size());
    json::error_code failed;
    json::value value = json::parse(body.substr(at, end - at), failed);
    at = end + 1;
    const json::object* object = failed ? nullptr : value.if_object();
    const json::string* type = TextIn(object, "type");
    if (type == nullptr) continue;
    if (*type == "error") return Errorf("the cell: %.300s", json::serialize(*object).c_str());
    if (*type != "stdout") continue;
    if (const json::string* text = TextIn(object, "text"))
      output.append(text->data(), text->size());
  }
  return output;
}

}  // namespace cube::bench
