#include "guestkernel/agent/forward/relay.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <system_error>
#include <utility>

namespace cube::agent {
namespace {

constexpr std::string_view kConnect = "CONNECT ";
constexpr int kAddresses = 2;
// Of what one side sends, where memory is short.
constexpr size_t kSmallPiece = 4096;
// After so many pieces the others of the loop have a turn.
constexpr int kPiecesATurn = 16;

// Starts to connect to one of this machine's own addresses. -1 and errno if that fails at once.
int ConnectTo(int fd, int address, uint16_t port) {
  if (address == 0) {
    sockaddr_in in = {};
    in.sin_family = AF_INET;
    in.sin_port = htons(port);
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return connect(fd, reinterpret_cast<sockaddr*>(&in), sizeof in);
  }
  sockaddr_in6 in6 = {};
  in6.sin6_family = AF_INET6;
  in6.sin6_port = htons(port);
  in6.sin6_addr = in6addr_loopback;
  return connect(fd, reinterpret_cast<sockaddr*>(&in6), sizeof in6);
}

}  // namespace

Relay::Relay(EventLoop* loop, MemoryBudget* memory, std::span<char> scratch, UniqueFd client,
             std::function<void()> on_closed)
    : loop_(loop),
      budget_(memory),
      scratch_(scratch),
      on_closed_(std::move(on_closed)),
      memory_(memory) {
  client_.fd = std::move(client);
}

Relay::~Relay() {
  loop_->Cancel(deadline_);
  for (Side* side : {&client_, &server_}) {
    if (side->fd.valid()) loop_->Remove(side->fd.get());
  }
}

Status Relay::Open() {
  CUBE_TRY(Watch(&client_, EPOLLIN | EPOLLRDHUP | EPOLLET));
  deadline_ = loop_->After(kLineNanoseconds, [this] { Close(); });
  return OkStatus();
}

Status Relay::Watch(Side* side, uint32_t events) {
  return loop_->Add(side->fd.get(), events,
                    [this, side](uint32_t happened) { OnEvents(side, happened); });
}

void Relay::OnEvents(Side* side, uint32_t events) {
  if (events & EPOLLIN) side->readable = true;
  if (events & EPOLLOUT) side->writable = true;
  if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) side->readable = side->ending = true;
  if (side == &server_ && state_ == State::kConnecting) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(side->fd.get(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error == 0) {
      OnConnected();
    } else {
      if (error_ == 0) error_ = error;
      if (!TryNext()) Refuse(strerror(error_));
    }
  }
  Schedule();
}

void Relay::Schedule() {
  if (scheduled_ || state_ == State::kClosed) return;
  scheduled_ = true;
  loop_->Defer([weak = weak_from_this()] {
    if (std::shared_ptr<Relay> self = weak.lock()) self->Turn();
  });
}

void Relay::Turn() {
  scheduled_ = false;
  if (state_ == State::kLine) ReadLine();
  if (state_ == State::kConnecting) {
    // A client that gives up meanwhile is found out when there is something to tell it.
    return;
  }
  if (state_ == State::kRefused) {
    if (!Flush(&client_) || client_.out.empty()) Close();
    return;
  }
  if (state_ != State::kRelaying) return;
  for (int i = 0; i < kPiecesATurn; ++i) {
    const bool there = Carry(&client_, &server_);
    const bool back = state_ == State::kRelaying && Carry(&server_, &client_);
    if (state_ != State::kRelaying) return;
    if (client_.shut && server_.shut) return Close();
    if (!there && !back) return;
  }
  Schedule();
}

void Relay::ReadLine() {
  if (!client_.readable) return;
  const ssize_t n = recv(client_.fd.get(), scratch_.data(), scratch_.size(), MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) return Close();
  // What follows the line is for the server.
  const std::string_view bytes(scratch_.data(), static_cast<size_t>(n));
  const size_t end = bytes.find('\n');
  line_ += bytes.substr(0, end);
  if (line_.size() > kMaxLine) return Refuse("the first line is too long");
  if (end == std::string_view::npos) return;
  server_.out = bytes.substr(end + 1);
  // A full read may have left some.
  if (bytes.size() < scratch_.size() && !client_.ending) client_.readable = false;
  Connect(line_);
}

void Relay::Connect(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  uint16_t port = 0;
  if (line.starts_with(kConnect)) {
    line.remove_prefix(kConnect.size());
    auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), port);
    if (error != std::errc() || end != line.data() + line.size()) port = 0;
  }
  if (port == 0) return Refuse("the first line has to be CONNECT and a port of 1 to 65535");
  port_ = port;
  state_ = State::kConnecting;
  if (!TryNext()) Refuse(strerror(error_));
}

bool Relay::TryNext() {
  while (next_address_ < kAddresses) {
    if (server_.fd.valid()) {
      loop_->Remove(server_.fd.get());
      server_.fd.Reset();
    }
    const int address = next_address_++;
    server_.fd = UniqueFd(
        socket(address == 0 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!server_.fd.valid()) continue;
    const int result = ConnectTo(server_.fd.get(), address, port_);
    if (result < 0 && errno != EINPROGRESS) {
      // That of the first is the one to tell: a machine may have no IPv6.
      if (error_ == 0) error_ = errno;
      continue;
    }
    const bool connected = result == 0;
    server_.watches_writable = !connected;
    server_.readable = server_.ending = false;
    const uint32_t events = EPOLLIN | EPOLLRDHUP | EPOLLET;
    if (!Watch(&server_, connected ? events : events | EPOLLOUT).ok()) continue;
    if (connected) OnConnected();
    return true;
  }
  return false;
}

void Relay::OnConnected() {
  loop_->Cancel(deadline_);
  // Whatever sizes the client writes in are to stay.
  const int on = 1;
  setsockopt(server_.fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  state_ = State::kRelaying;
  client_.out = "OK\n";
  Schedule();
}

void Relay::Refuse(const std::string& why) {
  state_ = State::kRefused;
  client_.out = "ERROR " + (port_ == 0 ? "" : Format("port %u: ", port_)) + why + "\n";
  Schedule();
}

std::optional<size_t> Relay::SendTo(Side* side, std::string_view bytes) {
  size_t sent = 0;
  while (sent < bytes.size() && side->writable) {
    const ssize_t n =
        send(side->fd.get(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno != EAGAIN) return std::nullopt;
    if (n > 0) sent += static_cast<size_t>(n);
    // A socket that takes less than it is given is full.
    if (sent < bytes.size()) side->writable = false;
  }
  if (sent == bytes.size() || side->watches_writable) return sent;
  side->watches_writable = true;
  if (!loop_->Modify(side->fd.get(), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET).ok()) {
    return std::nullopt;
  }
  return sent;
}

bool Relay::Flush(Side* side) {
  if (side->out.empty()) return true;
  std::optional<size_t> sent = SendTo(side, std::string_view(side->out).substr(side->sent));
  if (!sent) return false;
  side->sent += *sent;
  if (side->sent == side->out.size()) {
    std::string().swap(side->out);
    side->sent = 0;
  }
  memory_.Count(client_.out.size() + server_.out.size());
  return true;
}

bool Relay::Carry(Side* from, Side* to) {
  if (!Flush(to)) {
    Close();
    return false;
  }
  if (!to->out.empty() || to->shut) return false;
  if (from->ended) {
    to->shut = true;
    shutdown(to->fd.get(), SHUT_WR);
    return false;
  }
  if (!from->readable) return false;
  const size_t wanted = budget_->tight() ? kSmallPiece : scratch_.size();
  const ssize_t n = recv(from->fd.get(), scratch_.data(), wanted, MSG_DONTWAIT);
  if (n < 0 && errno == EINTR) return true;
  if (n < 0 && errno == EAGAIN) {
    from->readable = false;
    return false;
  }
  if (n < 0) {
    Close();
    return false;
  }
  if (n == 0) {
    from->ended = true;
    return true;
  }
  const size_t size = static_cast<size_t>(n);
  if (size < wanted && !from->ending) from->readable = false;
  const std::string_view bytes(scratch_.data(), size);
  std::optional<size_t> sent = SendTo(to, bytes);
  if (!sent) {
    Close();
    return false;
  }
  to->out = bytes.substr(*sent);
  memory_.Count(client_.out.size() + server_.out.size());
  return true;
}

void Relay::Close() {
  if (std::exchange(state_, State::kClosed) == State::kClosed) return;
  loop_->Cancel(deadline_);
  for (Side* side : {&client_, &server_}) {
    if (!side->fd.valid()) continue;
    loop_->Remove(side->fd.get());
    side->fd.Reset();
    std::string().swap(side->out);
  }
  memory_.Count(0);
  loop_->Defer([self = shared_from_this()] { self->on_closed_(); });
}

}  // namespace cube::agent
