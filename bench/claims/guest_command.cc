#include "bench/claims/guest_command.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <boost/archive/iterators/binary_from_base64.hpp>
#include <boost/archive/iterators/transform_width.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/json.hpp>
#include <cerrno>
#include <cstring>
#include <optional>

#include "base/unique_fd.h"

namespace cube::bench {
namespace {

namespace json = boost::json;
namespace http = boost::beast::http;

constexpr int kEnvdPort = 49983, kInterpreterPort = 49999;
constexpr size_t kMaxAnswer = 64u << 20;
constexpr time_t kLimitSeconds = 120;
constexpr size_t kEnvelopeHead = 5;
constexpr uint8_t kEndOfStream = 2;

Status SendAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t sent = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return ErrnoError("sending to a sandbox");
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return OkStatus();
}

// A connection to a port of the guest.
Result<UniqueFd> ConnectToPort(const std::string& vsock, int port) {
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return ErrnoError("socket");
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
  if (vsock.size() >= sizeof address.sun_path) return Errorf("%s: too long", vsock.c_str());
  memcpy(address.sun_path, vsock.data(), vsock.size());
  timeval limit = {kLimitSeconds, 0};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    return ErrnoError("%s", vsock.c_str());
  }
  CUBE_TRY(SendAll(fd.get(), Format("CONNECT %d\n", port)));
  char c = 0;
  std::string line;
  while (c != '\n' && line.size() < 64) {
    ssize_t size = recv(fd.get(), &c, 1, 0);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return Errorf("port %d of the guest does not answer", port);
    line += c;
  }
  if (!line.starts_with("OK ")) return Errorf("port %d of the guest: %s", port, line.c_str());
  return fd;
}

// The body of the answer to one request.
Result<std::string> Post(const std::string& vsock, int port, const std::string& path,
                         const std::string& type, const std::string& body) {
  CUBE_ASSIGN(UniqueFd fd, ConnectToPort(vsock, port));
  CUBE_TRY(SendAll(fd.get(), "POST " + path + " HTTP/1.1\r\nHost: sandbox\r\nContent-Type: " +
                                 type + "\r\nConnection: close\r\nContent-Length: " +
                                 std::to_string(body.size()) + "\r\n\r\n" + body));
  http::response_parser<http::string_body> parser;
  parser.body_limit(kMaxAnswer);
  parser.eager(true);
  std::string input;
  char piece[64 * 1024];
  boost::system::error_code bad;
  while (!parser.is_done()) {
    ssize_t size = recv(fd.get(), piece, sizeof piece, 0);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return ErrnoError("reading from port %d of the guest", port);
    if (size == 0) {
      parser.put_eof(bad);
    } else {
      input.append(piece, static_cast<size_t>(size));
      input.erase(0, parser.put(boost::asio::buffer(input), bad));
      if (bad == http::error::need_more) bad.clear();
    }
    if (bad) return Errorf("port %d of the guest: %s", port, bad.message().c_str());
  }
  if (parser.get().result() != http::status::ok) {
    return Errorf("%s: status %u: %.300s", path.c_str(), parser.get().result_int(),
                  parser.get().body().c_str());
  }
  return std::move(parser.get().body());
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
