#include "api/tls_end.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>

namespace cube::api {
namespace {

namespace ssl = asio::ssl;
using boost::system::error_code;
using pool::kAsTuple;

constexpr size_t kPiece = 16 * 1024;
constexpr pool::milliseconds kHandshakeLimit(10'000);
constexpr pool::milliseconds kFinishLimit(5'000);

using Shared = std::shared_ptr<TlsEnd::Session>;

}  // namespace

struct TlsEnd::Session {
  Session(asio::ip::tcp::socket client, ssl::context& context, asio::io_context& io)
      : stream(std::move(client), context),
        plain(io),
        ended(io, asio::steady_timer::time_point::max()) {}
  ssl::stream<asio::ip::tcp::socket> stream;
  Socket plain;
  asio::steady_timer ended;  // cancelled when it has
  bool closed = false;
  void Close() {
    closed = true;
    error_code ignored;
    stream.lowest_layer().close(ignored);
    plain.close(ignored);
    ended.cancel();
  }
};

namespace {

Task<void> Decrypt(Shared session, std::shared_ptr<void> /*lives as long*/) {
  auto piece = std::make_unique<char[]>(kPiece);
  for (;;) {
    auto [failed, size] =
        co_await session->stream.async_read_some(asio::buffer(piece.get(), kPiece), kAsTuple);
    if (failed) break;
    auto [broken, written] =
        co_await asio::async_write(session->plain, asio::buffer(piece.get(), size), kAsTuple);
    if (broken) break;
  }
  error_code ignored;
  session->plain.shutdown(Socket::shutdown_send, ignored);
}

Task<void> Encrypt(Shared session, std::shared_ptr<void> /*lives as long*/) {
  auto piece = std::make_unique<char[]>(kPiece);
  for (;;) {
    auto [failed, size] =
        co_await session->plain.async_read_some(asio::buffer(piece.get(), kPiece), kAsTuple);
    if (failed) {
      // The client is told that this is the end, and says so too; Finish() does not wait for ever.
      co_await session->stream.async_shutdown(kAsTuple);
      break;
    }
    auto [broken, written] =
        co_await asio::async_write(session->stream, asio::buffer(piece.get(), size), kAsTuple);
    if (broken) break;
  }
  session->Close();
}

}  // namespace

struct TlsEnd::Context {
  ssl::context context{ssl::context::tls_server};
};

TlsEnd::TlsEnd(asio::io_context& io, std::shared_ptr<Context> context)
    : io_(io), context_(std::move(context)) {}
TlsEnd::~TlsEnd() = default;

Result<std::unique_ptr<TlsEnd>> TlsEnd::Create(asio::io_context& io, const std::string& certificate,
                                               const std::string& key) {
  auto context = std::make_shared<Context>();
  error_code failed;
  context->context.set_options(ssl::context::default_workarounds | ssl::context::no_tlsv1 |
                                   ssl::context::no_tlsv1_1 | ssl::context::no_sslv3,
                               failed);
  context->context.use_certificate_chain_file(certificate, failed);
  if (failed) return Errorf("%s: %s", certificate.c_str(), failed.message().c_str());
  context->context.use_private_key_file(key, ssl::context::pem, failed);
  if (failed) return Errorf("%s: %s", key.c_str(), failed.message().c_str());
  if (SSL_CTX_check_private_key(context->context.native_handle()) != 1) {
    ERR_clear_error();
    return Errorf("%s is not the key of %s", key.c_str(), certificate.c_str());
  }
  return std::unique_ptr<TlsEnd>(new TlsEnd(io, std::move(context)));
}

Task<std::optional<TlsEnd::Client>> TlsEnd::Accept(asio::ip::tcp::socket client) {
  auto context = context_;
  auto session = std::make_shared<Session>(std::move(client), context->context, io_);
  asio::steady_timer timer(io_, kHandshakeLimit);
  timer.async_wait([weak = std::weak_ptr(session)](error_code cancelled) {
    auto late = weak.lock();
    if (!cancelled && late != nullptr) late->Close();
  });
  auto [failed] = co_await session->stream.async_handshake(ssl::stream_base::server, kAsTuple);
  timer.cancel();
  if (failed) co_return std::nullopt;
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) co_return std::nullopt;
  Socket outer(io_);
  error_code bad;
  session->plain.assign(asio::local::stream_protocol(), ends[0], bad);
  outer.assign(asio::local::stream_protocol(), ends[1], bad);
  pool::Spawn(io_, Decrypt(session, context));
  pool::Spawn(io_, Encrypt(session, context));
  co_return Client{std::move(outer), std::move(session)};
}

Task<void> TlsEnd::Finish(std::shared_ptr<Session> session) {
  if (!session->closed) {
    session->ended.expires_after(kFinishLimit);
    co_await session->ended.async_wait(kAsTuple);
  }
  session->Close();
}

}  // namespace cube::api
