#include "api/connection.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>

#include "base/byte_io.h"
#include "base/monotonic.h"

namespace cube::api {
namespace {

using boost::system::error_code;
using pool::kAsTuple;
using pool::milliseconds;

constexpr size_t kPiece = 64 * 1024;
constexpr milliseconds kBodyLimit(60'000);
constexpr milliseconds kUploadLimit(3'600'000);
constexpr milliseconds kLingerLimit(2000);
constexpr uint64_t kMaxUpload = uint64_t{8} << 30;

std::string_view TextOf(const beast::flat_buffer& buffer) {
  auto data = buffer.data();
  return {static_cast<const char*>(data.data()), data.size()};
}

std::string NewRequestId() {
  static uint64_t next = MonotonicNow();
  return Format("%016llx", static_cast<unsigned long long>(next++ * 0x9e3779b97f4a7c15));
}

Request RequestOf(const RequestParser& parser, const std::string& peer) {
  const auto& message = parser.get();
  Request request;
  request.id = NewRequestId();
  request.peer = peer;
  request.method = std::string(message.method_string());
  request.target = std::string(message.target());
  size_t end = request.target.find('?');
  request.path = request.target.substr(0, end);
  if (end != std::string::npos) request.query = request.target.substr(end + 1);
  for (const auto& field : message) {
    request.headers.Add(std::string(field.name_string()), std::string(field.value()));
  }
  return request;
}

const char* ReasonOf(unsigned status) {
  return http::obsolete_reason(static_cast<http::status>(status)).data();
}

}  // namespace

void Connection::SetDeadline(milliseconds time) {
  deadline_ = Clock::now() + time;
  if (deadline_ < watched_) watch_.cancel();
}

Task<void> Connection::Watch() {
  auto self = shared_from_this();
  while (!closed_) {
    if (deadline_ <= Clock::now()) {
      Close();
      co_return;
    }
    watched_ = deadline_;
    watch_.expires_at(watched_);
    co_await watch_.async_wait(kAsTuple);
  }
}

void Connection::Close() {
  closed_ = true;
  error_code ignored;
  client_->socket.close(ignored);
  if (guest_ != nullptr) guest_->socket.close(ignored);
  watch_.cancel();
}

Task<void> Connection::Serve() {
  auto self = shared_from_this();
  SetDeadline(std::chrono::seconds(config_.header_seconds));
  pool::Spawn(io_, Watch());
  while (!closed_ && co_await ServeOne()) SetDeadline(std::chrono::seconds(config_.idle_seconds));
  Close();
}

Task<size_t> Connection::ReadHeader() {
  auto& buffer = client_->buffer;
  HeaderScan scan;
  bool begun = false;
  for (;;) {
    // Empty lines before a request are passed over (RFC 9112 section 2.2).
    while (TextOf(buffer).starts_with("\r\n")) {
      buffer.consume(2);
      scan = HeaderScan();
    }
    if (!begun && buffer.size() != 0) {
      begun = true;
      SetDeadline(std::chrono::seconds(config_.header_seconds));
    }
    auto found = scan.Look(TextOf(buffer));
    if (found == HeaderScan::Found::kWhole && scan.size() <= config_.max_header_bytes) {
      co_return scan.size();
    }
    Request unknown;
    if (found == HeaderScan::Found::kWrong) {
      co_await Refuse(unknown, 400, scan.wrong());
      co_return 0;
    }
    if (buffer.size() >= config_.max_header_bytes) {
      co_await Refuse(unknown, 431,
                      Format("a header has at most %u bytes", config_.max_header_bytes));
      co_return 0;
    }
    auto [failed, size] =
        co_await client_->socket.async_read_some(buffer.prepare(16 * 1024), kAsTuple);
    if (failed) co_return 0;
    buffer.commit(size);
  }
}

Task<bool> Connection::ServeOne() {
  size_t size = co_await ReadHeader();
  if (size == 0) co_return false;
  auto parser = std::make_shared<RequestParser>();
  auto wrong = ParseRequestHeader(TextOf(client_->buffer).substr(0, size), parser.get());
  Request request = RequestOf(*parser, peer_);
  if (wrong) {
    co_await Refuse(request, 400, *wrong);
    co_return false;
  }
  client_->buffer.consume(size);
  ClearDeadline();
  Addressee to = AddresseeOf(request.headers);
  if (!to.wrong.empty()) {
    co_await Refuse(request, 400, to.wrong);
    co_return false;
  }
  if (!to.sandbox) to.sandbox = handlers_->signed_for(request);
  if (!to.sandbox) co_return co_await ServeControl(std::move(request), std::move(parser));
  auto shared = std::make_shared<Request>(std::move(request));
  co_return co_await ServeSandbox(std::move(*to.sandbox), std::move(shared), std::move(parser));
}

Task<bool> Connection::Continue(const RequestParser& parser) {
  if (!beast::iequals(parser.get()[http::field::expect], "100-continue")) co_return true;
  static constexpr char kContinue[] = "HTTP/1.1 100 Continue\r\n\r\n";
  auto [failed, size] = co_await asio::async_write(
      client_->socket, asio::buffer(kContinue, sizeof kContinue - 1), kAsTuple);
  co_return !failed;
}

Task<std::optional<Reply>> Connection::ReadWhole(RequestParser* parser, std::string* body) {
  auto too_long = Reply::Error(413, Format("a body has at most %u bytes", config_.max_body_bytes));
  auto length = parser->content_length();
  if (length && *length > config_.max_body_bytes) co_return too_long;
  if (parser->is_done()) co_return std::nullopt;
  if (!co_await Continue(*parser)) co_return Reply();
  SetDeadline(kBodyLimit);
  auto piece = std::make_unique<char[]>(kPiece);
  for (;;) {
    auto [failed, size] =
        co_await ReadBody(&client_->socket, &client_->buffer, parser, piece.get(), kPiece);
    if (failed) co_return Reply::Error(400, "the body is not HTTP/1.1: " + failed.message());
    if (size == 0) break;
    if (body->size() + size > config_.max_body_bytes) co_return too_long;
    body->append(piece.get(), size);
  }
  ClearDeadline();
  co_return std::nullopt;
}

Task<Reply> Connection::ReadToFile(const Request& request, RequestParser* parser,
                                   std::string path) {
  auto length = parser->content_length();
  auto too_long = Reply::Error(413, "an upload has at most 8 GiB");
  if (length && *length > kMaxUpload) co_return too_long;
  const std::string unfinished = path + ".part-" + request.id;
  auto file = OpenFile(unfinished, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (!file.ok()) co_return Reply::Error(500, file.error().message());
  struct Remove {
    ~Remove() { unlink(path.c_str()); }
    std::string path;
  } remove{unfinished};
  if (!co_await Continue(*parser)) co_return Reply::Error(400, "the client has gone");
  SetDeadline(kUploadLimit);
  auto piece = std::make_unique<char[]>(kPiece);
  uint64_t total = 0;
  for (;;) {
    auto [failed, size] =
        co_await ReadBody(&client_->socket, &client_->buffer, parser, piece.get(), kPiece);
    if (failed) co_return Reply::Error(400, "the body is not HTTP/1.1: " + failed.message());
    if (size == 0) break;
    total += size;
    if (total > kMaxUpload) co_return too_long;
    Status written =
        WriteAll(file->get(), {reinterpret_cast<uint8_t*>(piece.get()), size}, unfinished.c_str());
    if (!written.ok()) co_return Reply::Error(507, written.error().message());
  }
  ClearDeadline();
  if (rename(unfinished.c_str(), path.c_str()) < 0) {
    co_return Reply::Error(500, ErrnoError("%s", path.c_str()).message());
  }
  co_return handlers_->uploaded(request, path);
}

Task<bool> Connection::ServeControl(Request request, std::shared_ptr<RequestParser> parser) {
  bool keep = parser->keep_alive();
  uint64_t start = MonotonicNow();
  std::string path = handlers_->upload_path(request);
  std::optional<Reply> reply;
  if (!path.empty()) {
    reply = co_await ReadToFile(request, parser.get(), std::move(path));
  } else {
    reply = co_await ReadWhole(parser.get(), &request.body);
  }
  Request about;
  about.id = request.id;
  about.method = request.method;
  about.path = request.path;
  if (!reply) {
    reply = co_await handlers_->control(std::move(request));
  }
  // What was not read would be taken for the next request.
  if (!parser->is_done()) {
    co_await Refuse(about, reply->status, reply->body);
    co_return false;
  }
  auto level = about.path == "/health" ? spdlog::level::debug : spdlog::level::info;
  spdlog::log(level, "request={} peer={} method={} path={} status={} ms={:.3f}", about.id, peer_,
              about.method, about.path.substr(0, 256), reply->status,
              Milliseconds(start, MonotonicNow()));
  co_return co_await Answer(about, *reply, keep) && keep;
}

Task<bool> Connection::ServeSandbox(SandboxAddress address, std::shared_ptr<Request> request,
                                    std::shared_ptr<RequestParser> parser) {
  constexpr int kTries = 2;
  // By its signature alone: at the control plane's address.
  bool by_signature = !AddresseeOf(request->headers).sandbox;
  for (int i = 0; i < kTries; ++i) {
    auto idle = std::exchange(guest_, nullptr);
    auto opened = co_await handlers_->open(address, request, idle);
    if (closed_) co_return false;
    if (opened.guest == nullptr) {
      // Its body may be on its way.
      if (!parser->is_done()) {
        co_await Refuse(*request, opened.instead.status, opened.instead.body);
        co_return false;
      }
      co_return co_await Answer(*request, opened.instead, parser->keep_alive()) &&
          parser->keep_alive();
    }
    bool had_body = !parser->is_done();
    bool was_idle = opened.guest == idle;
    RelayOrder order = {client_, parser, opened.guest, std::move(opened.host), by_signature};
    guest_ = opened.guest;
    RelayResult result = co_await Relay(std::move(order));
    if (!result.keep_guest) guest_ = nullptr;
    if (result.answered) co_return result.keep_client;
    // One that had been idle may have been closed meanwhile: another is tried, unless a part of the
    // request is gone with it.
    if (!was_idle || had_body) break;
  }
  // A machine that ends in the midst of it ends the connection, too.
  co_return false;
}

Task<bool> Connection::Answer(const Request& request, const Reply& reply, bool keep) {
  std::string header = Format("HTTP/1.1 %u %s\r\n", reply.status, ReasonOf(reply.status));
  if (reply.status != 204) {
    uint64_t size = reply.file != nullptr ? reply.file_size : reply.body.size();
    header += Format("Content-Length: %llu\r\n", static_cast<unsigned long long>(size));
    if (!reply.content_type.empty()) header += "Content-Type: " + reply.content_type + "\r\n";
  }
  for (const auto& [name, value] : reply.headers) header += name + ": " + value + "\r\n";
  if (!request.id.empty()) header += "X-Request-Id: " + request.id + "\r\n";
  header += keep ? "\r\n" : "Connection: close\r\n\r\n";
  SetDeadline(kBodyLimit);
  bool has_body = reply.status != 204 && request.method != "HEAD";
  std::array<asio::const_buffer, 2> parts = {
      asio::buffer(header), asio::buffer(reply.body.data(), has_body ? reply.body.size() : 0)};
  auto [failed, size] = co_await asio::async_write(client_->socket, parts, kAsTuple);
  if (failed || reply.file == nullptr || request.method == "HEAD") co_return !failed;
  co_return co_await SendFile(reply.file, reply.file_size);
}

Task<bool> Connection::SendFile(std::shared_ptr<UniqueFd> file, uint64_t size) {
  auto piece = std::make_unique<char[]>(kPiece);
  for (uint64_t sent = 0; sent < size;) {
    ssize_t got = pread(file->get(), piece.get(), std::min<uint64_t>(kPiece, size - sent),
                        static_cast<off_t>(sent));
    if (got <= 0) co_return false;
    SetDeadline(kBodyLimit);
    auto part = asio::buffer(piece.get(), static_cast<size_t>(got));
    auto [failed, written] = co_await asio::async_write(client_->socket, part, kAsTuple);
    if (failed) co_return false;
    sent += written;
  }
  co_return true;
}

// What comes yet is taken for a moment: a connection that is closed with something unread takes the
// answer with it.
Task<void> Connection::Refuse(const Request& request, unsigned status, std::string message) {
  Reply reply = message.starts_with('{') ? Reply::Json(status, std::move(message))
                                         : Reply::Error(status, message);
  if (!co_await Answer(request, reply, false)) co_return;
  error_code ignored;
  client_->socket.shutdown(Socket::shutdown_send, ignored);
  SetDeadline(kLingerLimit);
  auto piece = std::make_unique<char[]>(kPiece);
  size_t left = 16 << 20;
  for (;;) {
    auto [failed, size] =
        co_await client_->socket.async_read_some(asio::buffer(piece.get(), kPiece), kAsTuple);
    if (failed || size >= left) co_return;
    left -= size;
  }
}

}  // namespace cube::api
