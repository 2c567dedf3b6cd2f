#include "api/relay.h"

#include <sys/socket.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/rfc7230.hpp>

#include "base/result.h"

namespace cube::api {
namespace {

using boost::system::error_code;
using pool::kAsTuple;

constexpr size_t kPiece = 64 * 1024;
constexpr uint32_t kMaxResponseHeader = 128 * 1024;

// Fields that are of one connection and not of the message. A Connection that names the length or
// the host is not heeded: without them the next one would see another message than was meant.
template <typename Message>
bool IsOfConnection(const Message& message, http::field name, beast::string_view text) {
  switch (name) {
    case http::field::connection:
    case http::field::keep_alive:
    case http::field::proxy_connection:
    case http::field::te:
    case http::field::trailer:
    case http::field::transfer_encoding:
    case http::field::upgrade:
    case http::field::expect:
      return true;
    case http::field::content_length:
    case http::field::host:
      return false;
    default:
      break;
  }
  return http::token_list(message[http::field::connection]).exists(text);
}

// The two ends of an exchange and what its coroutines tell each other.
struct Exchange {
  Exchange(RelayOrder&& given, asio::io_context& loop)
      : order(std::move(given)),
        io(loop),
        body_sent(loop, asio::steady_timer::time_point::max()),
        watch_ended(loop, asio::steady_timer::time_point::max()) {}

  RelayOrder order;
  asio::io_context& io;
  asio::steady_timer body_sent;    // cancelled when it is
  asio::steady_timer watch_ended;  // likewise
  bool sending = false, watching = false;
  bool broken = false;  // a side is gone
  bool over = false;    // the response is
  void Break() {
    broken = true;
    error_code ignored;
    order.guest->socket.close(ignored);
  }
};

using Shared = std::shared_ptr<Exchange>;

// A piece of a body, in the framing of its message.
Task<error_code> WritePiece(Socket* to, const char* data, size_t size, bool chunked) {
  if (size == 0 && !chunked) co_return error_code();
  char line[32];
  std::array<asio::const_buffer, 3> parts = {asio::buffer(line, 0), asio::buffer(data, size),
                                             asio::buffer("\r\n", size == 0 ? 0 : 2)};
  if (chunked) {
    const char* format = size == 0 ? "0\r\n\r\n" : "%zx\r\n";
    int length = size == 0 ? 5 : 0;
    if (size == 0) {
      memcpy(line, format, 5);
    } else {
      length = snprintf(line, sizeof line, "%zx\r\n", size);
    }
    parts[0] = asio::buffer(line, static_cast<size_t>(length));
  } else {
    parts[2] = asio::buffer(line, 0);
  }
  auto [failed, written] = co_await asio::async_write(*to, parts, kAsTuple);
  co_return failed;
}

// One with a body is not: what the client sends would be the body's and the tunnel's at once.
bool IsUpgrade(const RequestParser& request) {
  return request.is_done() && request.get().version() == 11 &&
         request.get().count(http::field::upgrade) != 0 &&
         http::token_list(request.get()[http::field::connection]).exists("upgrade");
}

std::string RequestHeader(const RelayOrder& order, bool upgrade) {
  const auto& message = order.request->get();
  std::string text(message.method_string());
  text.append(" ").append(message.target()).append(" HTTP/1.1\r\n");
  for (const auto& field : message) {
    if (IsOfConnection(message, field.name(), field.name_string())) continue;
    if (field.name_string() == "e2b-traffic-access-token") continue;
    bool is_host = field.name() == http::field::host;
    text.append(field.name_string()).append(": ");
    if (is_host && !order.host.empty()) {
      text.append(order.host).append("\r\n");
    } else {
      text.append(field.value()).append("\r\n");
    }
  }
  if (order.request->chunked()) text += "Transfer-Encoding: chunked\r\n";
  if (upgrade) {
    text.append("Connection: Upgrade\r\nUpgrade: ").append(message[http::field::upgrade]);
    text += "\r\n";
  }
  return text + "\r\n";
}

// While the client has nothing to say, that it has gone would not be noticed.
Task<void> WatchClient(Shared exchange) {
  auto& client = *exchange->order.client;
  auto [failed] = co_await client.socket.async_wait(Socket::wait_read, kAsTuple);
  if (failed != asio::error::operation_aborted) {
    char byte;
    ssize_t n = failed ? 0 : recv(client.socket.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN)) exchange->Break();
  }
  exchange->watching = false;
  exchange->watch_ended.cancel();
}

// Its whole request is there. What is more is another request, and is looked at later.
void BeginWatch(const Shared& exchange) {
  if (exchange->over || exchange->order.client->buffer.size() != 0) return;
  exchange->watching = true;
  pool::Spawn(exchange->io, WatchClient(exchange));
}

Task<void> SendBody(Shared exchange) {
  auto& order = exchange->order;
  auto piece = std::make_unique<char[]>(kPiece);
  bool chunked = order.request->chunked();
  for (;;) {
    auto [failed, size] = co_await ReadBody(&order.client->socket, &order.client->buffer,
                                            order.request.get(), piece.get(), kPiece);
    if (failed) {
      // Half a body is not one: the guest learns of it by the connection's end.
      exchange->Break();
      break;
    }
    // A guest that takes no more may have answered already.
    if (co_await WritePiece(&order.guest->socket, piece.get(), size, chunked)) break;
    if (size == 0) {
      BeginWatch(exchange);
      break;
    }
  }
  exchange->sending = false;
  exchange->body_sent.cancel();
}

// Bytes of `from`, whatever they are, to `to`, until there are no more.
Task<void> Pump(Shared /*lives as long*/, Socket* from, beast::flat_buffer* first, Socket* to) {
  auto piece = std::make_unique<char[]>(kPiece);
  for (;;) {
    size_t size = asio::buffer_copy(asio::buffer(piece.get(), kPiece), first->data());
    error_code failed;
    if (size != 0) {
      first->consume(size);
    } else {
      std::tie(failed, size) =
          co_await from->async_read_some(asio::buffer(piece.get(), kPiece), kAsTuple);
    }
    if (failed) break;
    if (co_await WritePiece(to, piece.get(), size, false)) break;
  }
  error_code ignored;
  to->shutdown(Socket::shutdown_send, ignored);
}

Task<void> PumpToGuest(Shared exchange) {
  auto& order = exchange->order;
  co_await Pump(exchange, &order.client->socket, &order.client->buffer, &order.guest->socket);
  exchange->sending = false;
  exchange->body_sent.cancel();
}

std::string ResponseHeader(const ResponseParser& response, bool upgraded, bool chunked, bool keep,
                           bool keep_apart) {
  const auto& message = response.get();
  std::string text = Format("HTTP/1.1 %u ", message.result_int());
  text.append(message.reason()).append("\r\n");
  for (const auto& field : message) {
    if (IsOfConnection(message, field.name(), field.name_string())) continue;
    text.append(field.name_string()).append(": ").append(field.value()).append("\r\n");
  }
  if (keep_apart) text += "Content-Security-Policy: sandbox\r\nX-Content-Type-Options: nosniff\r\n";
  if (upgraded) {
    text.append("Connection: Upgrade\r\nUpgrade: ").append(message[http::field::upgrade]);
    return text + "\r\n\r\n";
  }
  if (chunked) text += "Transfer-Encoding: chunked\r\n";
  text += keep ? "Connection: keep-alive\r\n" : "Connection: close\r\n";
  return text + "\r\n";
}

// The header of the response that counts: those of 1xx but 101 are passed over, as what a client
// waits for by them has been done here.
Task<error_code> ReadResponseHeader(Shared exchange, std::unique_ptr<ResponseParser>* parser) {
  constexpr int kMaxInterim = 16;
  auto& guest = *exchange->order.guest;
  for (int i = 0; i < kMaxInterim; ++i) {
    *parser = std::make_unique<ResponseParser>();
    (*parser)->header_limit(kMaxResponseHeader);
    (*parser)->body_limit(boost::none);
    (*parser)->skip(exchange->order.request->get().method() == http::verb::head);
    auto [failed, size] =
        co_await http::async_read_header(guest.socket, guest.buffer, **parser, kAsTuple);
    if (failed) co_return failed;
    unsigned status = (*parser)->get().result_int();
    if (status >= 200 || status == 101) co_return error_code();
  }
  co_return http::make_error_code(http::error::bad_status);
}

// True if all of it has been passed on.
Task<bool> PassBody(Shared exchange, ResponseParser* response, bool chunked) {
  auto& order = exchange->order;
  auto piece = std::make_unique<char[]>(kPiece);
  for (;;) {
    auto [failed, size] = co_await ReadBody(&order.guest->socket, &order.guest->buffer, response,
                                            piece.get(), kPiece);
    if (failed) co_return false;
    if (co_await WritePiece(&order.client->socket, piece.get(), size, chunked)) co_return false;
    if (size == 0) co_return true;
  }
}

Task<RelayResult> Respond(Shared exchange, bool upgrade) {
  auto& order = exchange->order;
  RelayResult result;
  std::unique_ptr<ResponseParser> response;
  if (co_await ReadResponseHeader(exchange, &response)) co_return result;
  const auto& message = response->get();
  result.answered = true;
  result.status = message.result_int();
  bool upgraded = upgrade && result.status == 101;
  bool is_head = order.request->get().method() == http::verb::head;
  bool has_body = !is_head && result.status != 204 && result.status != 304 && !upgraded;
  bool is_new = order.request->get().version() == 11;
  bool chunked = has_body && is_new && (response->chunked() || response->need_eof());
  bool until_close = has_body && !chunked && !response->content_length();
  bool keep = order.request->keep_alive() && !until_close && !upgraded && result.status != 101 &&
              (!exchange->sending || order.request->is_done());
  std::string header = ResponseHeader(*response, upgraded, chunked, keep, order.keep_apart);
  auto [failed, written] =
      co_await asio::async_write(order.client->socket, asio::buffer(header), kAsTuple);
  if (failed) co_return result;
  if (upgraded) {
    exchange->sending = true;
    pool::Spawn(exchange->io, PumpToGuest(exchange));
    co_await Pump(exchange, &order.guest->socket, &order.guest->buffer, &order.client->socket);
    co_return result;
  }
  bool whole = !has_body || co_await PassBody(exchange, response.get(), chunked);
  result.keep_client = whole && keep;
  result.keep_guest = whole && response->keep_alive() && !response->need_eof();
  co_return result;
}

}  // namespace

Task<RelayResult> Relay(RelayOrder order) {
  auto& io = static_cast<asio::io_context&>(order.guest->socket.get_executor().context());
  auto exchange = std::make_shared<Exchange>(std::move(order), io);
  auto& given = exchange->order;
  bool upgrade = IsUpgrade(*given.request);
  std::string header = RequestHeader(given, upgrade);
  auto [failed, written] =
      co_await asio::async_write(given.guest->socket, asio::buffer(header), kAsTuple);
  if (failed) co_return RelayResult();
  if (beast::iequals(given.request->get()[http::field::expect], "100-continue")) {
    static constexpr char kContinue[] = "HTTP/1.1 100 Continue\r\n\r\n";
    co_await asio::async_write(given.client->socket, asio::buffer(kContinue, sizeof kContinue - 1),
                               kAsTuple);
  }
  if (!given.request->is_done()) {
    exchange->sending = true;
    pool::Spawn(io, SendBody(exchange));
  } else if (!upgrade) {
    BeginWatch(exchange);
  }
  RelayResult result = co_await Respond(exchange, upgrade);
  exchange->over = true;
  if (exchange->watching) {
    error_code ignored;
    given.client->socket.cancel(ignored);
    co_await exchange->watch_ended.async_wait(kAsTuple);
  }
  if (exchange->sending) {
    // An answer before the request's end, or a side of a tunnel that is over: so is the connection.
    result.keep_client = result.keep_guest = false;
    error_code ignored;
    given.guest->socket.close(ignored);
    given.client->socket.shutdown(Socket::shutdown_receive, ignored);
    given.client->socket.cancel(ignored);
    if (exchange->sending) co_await exchange->body_sent.async_wait(kAsTuple);
  }
  if (exchange->broken) result.keep_client = result.keep_guest = false;
  co_return result;
}

}  // namespace cube::api
