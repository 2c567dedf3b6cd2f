#include "pool/client_guest.h"

#include <fcntl.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "base/json_writer.h"
#include "pool/jail/place.h"

namespace cube::pool {
namespace {

namespace json = boost::json;

constexpr unsigned kAgentPort = 49983;
constexpr size_t kPiece = 64 * 1024;
constexpr size_t kMaxLine = 64 * 1024;
constexpr int kMaxFields = 256;
constexpr size_t kEnvelope = 5;
constexpr unsigned char kEndOfStream = 2;

std::string Envelope(const std::string& message) {
  auto size = static_cast<uint32_t>(message.size());
  std::string bytes(1, '\0');
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(size >> shift & 255);
  return bytes + message;
}

Result<json::object> ObjectOf(const std::string& text) {
  json::error_code failed;
  json::value value = json::parse(text, failed);
  if (failed || !value.is_object()) return Errorf("the agent's answer is not an object of JSON");
  return std::move(value.get_object());
}

bool IsName(std::string_view field, const char* name) {
  return field.size() == strlen(name) && strncasecmp(field.data(), name, field.size()) == 0;
}

}  // namespace

Result<GuestConnection> GuestConnection::Open(const GuestAccess& access) {
  // The machine may have put a link in the socket's place.
  CUBE_ASSIGN(UniqueFd place, OpenNoLinks(access.vsock, O_PATH));
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return ErrnoError("socket");
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d", place.get());
  if (connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) {
    return ErrnoError("the sandbox's socket");
  }
  GuestConnection connection(std::move(socket), access);
  CUBE_TRY(connection.Greet());
  return connection;
}

Status GuestConnection::Greet() {
  CUBE_TRY(Send(Format("CONNECT %u\n", kAgentPort)));
  CUBE_ASSIGN(std::string line, ReadLine());
  if (line.starts_with("OK")) return OkStatus();
  return Errorf("the sandbox's agent does not answer");
}

Status GuestConnection::SendHead(const std::string& method, const std::string& target,
                                 uint64_t length, const Fields& fields) {
  std::string head = method + " " + target + " HTTP/1.1\r\nHost: sandbox\r\n";
  head += Format("Content-Length: %llu\r\n", static_cast<unsigned long long>(length));
  if (!access_.token.empty()) head += "X-Access-Token: " + access_.token + "\r\n";
  if (!access_.user.empty()) head += "Authorization: Basic " + Base64(access_.user + ":") + "\r\n";
  for (const auto& [name, value] : fields) head += name + ": " + value + "\r\n";
  return Send(head + "\r\n");
}

Status GuestConnection::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t n = send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError("the sandbox");
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return OkStatus();
}

Result<bool> GuestConnection::Fill() {
  char piece[kPiece];
  ssize_t n;
  while ((n = recv(socket_.get(), piece, sizeof piece, 0)) < 0 && errno == EINTR) {
  }
  if (n < 0) return ErrnoError("the sandbox");
  held_.append(piece, static_cast<size_t>(n));
  return n > 0;
}

Result<std::string> GuestConnection::ReadLine() {
  for (;;) {
    size_t end = held_.find('\n');
    if (end != std::string::npos) {
      std::string line = held_.substr(0, end);
      held_.erase(0, end + 1);
      if (line.ends_with('\r')) line.pop_back();
      return line;
    }
    if (held_.size() > kMaxLine) return Errorf("the agent's answer is not HTTP/1.1");
    CUBE_ASSIGN(bool more, Fill());
    if (!more) return Errorf("the sandbox has ended the connection");
  }
}

Result<int> GuestConnection::ReadHead() {
  CUBE_ASSIGN(std::string line, ReadLine());
  int status = 0;
  if (!line.starts_with("HTTP/1.1 ") || line.size() < 12 ||
      std::from_chars(line.data() + 9, line.data() + 12, status).ec != std::errc()) {
    return Errorf("the agent's answer is not HTTP/1.1");
  }
  left_ = 0;
  chunked_ = begun_ = false;
  for (int i = 0;; ++i) {
    CUBE_ASSIGN(std::string field, ReadLine());
    if (field.empty()) break;
    if (i == kMaxFields) return Errorf("the agent's answer has more than %d fields", kMaxFields);
    size_t colon = field.find(':');
    if (colon == std::string::npos) continue;
    std::string_view name(field.data(), colon);
    std::string_view value(field.data() + colon + 1, field.size() - colon - 1);
    value.remove_prefix(std::min(value.find_first_not_of(' '), value.size()));
    if (IsName(name, "transfer-encoding")) chunked_ = value == "chunked";
    if (!IsName(name, "content-length")) continue;
    auto [end, failed] = std::from_chars(value.data(), value.data() + value.size(), left_);
    if (failed != std::errc()) return Errorf("the agent's answer is not HTTP/1.1");
  }
  done_ = !chunked_ && left_ == 0;
  return status;
}

Status GuestConnection::BeginChunk() {
  if (begun_) CUBE_TRY(ReadLine());
  begun_ = true;
  CUBE_ASSIGN(std::string line, ReadLine());
  auto [end, failed] = std::from_chars(line.data(), line.data() + line.size(), left_, 16);
  if (failed != std::errc()) return Errorf("the agent's answer is not HTTP/1.1");
  if (left_ != 0) return OkStatus();
  done_ = true;
  CUBE_TRY(ReadLine());
  return OkStatus();
}

Result<std::string> GuestConnection::Read() {
  if (!done_ && chunked_ && left_ == 0) CUBE_TRY(BeginChunk());
  if (done_) return std::string();
  if (held_.empty()) {
    CUBE_ASSIGN(bool more, Fill());
    if (!more) return Errorf("the sandbox has ended the connection");
  }
  auto size = static_cast<size_t>(std::min<uint64_t>(left_, held_.size()));
  std::string piece = held_.substr(0, size);
  held_.erase(0, size);
  left_ -= size;
  done_ = !chunked_ && left_ == 0;
  return piece;
}

Result<std::string> GuestConnection::ReadAll() {
  std::string all;
  for (;;) {
    CUBE_ASSIGN(std::string piece, Read());
    if (piece.empty()) return all;
    all += piece;
    if (all.size() > kMaxMessage) return Errorf("the agent's answer is longer than 16 MiB");
  }
}

Error GuestConnection::Refusal(int status, const std::string& body) {
  auto object = ObjectOf(body);
  const json::value* message = object.ok() ? object->if_contains("message") : nullptr;
  std::string text = message != nullptr && message->is_string()
                         ? std::string(message->get_string()).substr(0, 1000)
                         : Format("the agent answers with status %d", status);
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) c = '?';
  }
  return Error(std::move(text));
}

Result<json::object> GuestConnection::Call(const std::string& method, const json::object& message) {
  std::string body = json::serialize(message);
  CUBE_TRY(SendHead("POST", "/" + method, body.size(),
                    {{"Content-Type", "application/json"}, {"Connect-Protocol-Version", "1"}}));
  CUBE_TRY(Send(body));
  CUBE_ASSIGN(int status, ReadHead());
  CUBE_ASSIGN(std::string answer, ReadAll());
  if (status != 200) return Refusal(status, answer);
  return ObjectOf(answer);
}

Status GuestConnection::Open(const std::string& method, const json::object& message) {
  std::string body = Envelope(json::serialize(message));
  stream_.clear();
  CUBE_TRY(
      SendHead("POST", "/" + method, body.size(),
               {{"Content-Type", "application/connect+json"}, {"Connect-Protocol-Version", "1"}}));
  CUBE_TRY(Send(body));
  CUBE_ASSIGN(int status, ReadHead());
  if (status == 200) return OkStatus();
  CUBE_ASSIGN(std::string answer, ReadAll());
  return Refusal(status, answer);
}

Result<json::object> GuestConnection::Next() {
  for (;;) {
    size_t size = 0;
    for (size_t i = 1; i < kEnvelope && stream_.size() >= kEnvelope; ++i) {
      size = size << 8 | static_cast<unsigned char>(stream_[i]);
    }
    if (size > kMaxMessage) return Errorf("a message of the agent is longer than 16 MiB");
    if (stream_.size() >= kEnvelope && stream_.size() >= kEnvelope + size) {
      bool last = (static_cast<unsigned char>(stream_[0]) & kEndOfStream) != 0;
      CUBE_ASSIGN(json::object message, ObjectOf(stream_.substr(kEnvelope, size)));
      stream_.erase(0, kEnvelope + size);
      if (!last) return message;
      const json::value* error = message.if_contains("error");
      if (error != nullptr) return Refusal(200, json::serialize(*error));
      return json::object{{"", true}};
    }
    CUBE_ASSIGN(std::string piece, Read());
    if (piece.empty()) return Errorf("the agent has broken off its answer");
    stream_ += piece;
  }
}

}  // namespace cube::pool
