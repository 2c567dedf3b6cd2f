#include "pool/control_listener.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/write.hpp>
#include <cstring>
#include <deque>

#include "pool/request_fields.h"

namespace cube::pool {
namespace {

// No descriptor for a peer: those that are there go on, and it is looked at again.
constexpr milliseconds kAcceptPause(50);

bool AsksForEvents(const std::string& line) {
  if (line.find("events") == std::string::npos) return false;
  auto fields = RequestFields::Parse(line);
  if (!fields.ok()) return false;
  auto op = fields->String("op");
  return op.ok() && *op == "events" && fields->Finish().ok();
}

}  // namespace

ControlListener::~ControlListener() { Close(); }

void ControlListener::Close() {
  if (path_.empty()) return;
  boost::system::error_code ignored;
  acceptor_.close(ignored);
  unlink(path_.c_str());
  path_.clear();
}

Status ControlListener::Listen(const std::string& path) {
  if (path.size() >= sizeof sockaddr_un::sun_path) {
    return Errorf("%s: a socket's path has at most %zu bytes", path.c_str(),
                  sizeof sockaddr_un::sun_path - 1);
  }
  unlink(path.c_str());
  boost::system::error_code failed;
  acceptor_.open(asio::local::stream_protocol(), failed);
  mode_t old = umask(0177);
  if (!failed) acceptor_.bind(asio::local::stream_protocol::endpoint(path), failed);
  umask(old);
  if (!failed) acceptor_.listen(512, failed);
  if (failed) return Errorf("%s: %s", path.c_str(), failed.message().c_str());
  fcntl(acceptor_.native_handle(), F_SETFD, FD_CLOEXEC);
  path_ = path;
  Spawn(io_, Accept());
  return OkStatus();
}

Task<void> ControlListener::Accept() {
  asio::steady_timer pause(io_);
  for (;;) {
    auto socket = std::make_shared<Socket>(io_);
    auto [failed] = co_await acceptor_.async_accept(*socket, kAsTuple);
    if (failed == asio::error::operation_aborted || !acceptor_.is_open()) co_return;
    if (failed) {
      spdlog::warn("the control socket: {}", failed.message());
      co_await Sleep(pause, kAcceptPause);
      continue;
    }
    fcntl(socket->native_handle(), F_SETFD, FD_CLOEXEC);
    // One too many is closed at once.
    if (*connections_ < kMaxConnections) Spawn(io_, Serve(std::move(socket)));
  }
}

Task<void> ControlListener::Serve(std::shared_ptr<Socket> socket) {
  struct Counted {
    explicit Counted(std::shared_ptr<size_t> counter) : count(std::move(counter)) { ++*count; }
    ~Counted() { --*count; }
    std::shared_ptr<size_t> count;
  } counted(connections_);
  std::string received;
  for (;;) {
    auto buffer = asio::dynamic_buffer(received, kMaxLine);
    auto [failed, size] = co_await asio::async_read_until(*socket, buffer, '\n', kAsTuple);
    if (failed) {
      if (failed == asio::error::not_found) {
        Refusal refusal = Refuse(Fault::kInvalid, "a request has at most %zu bytes", kMaxLine);
        std::string answer = RefusalAnswer(refusal, "") + "\n";
        co_await asio::async_write(*socket, asio::buffer(answer), kAsTuple);
      }
      co_return;
    }
    std::string line = received.substr(0, size - 1);
    received.erase(0, size);
    if (AsksForEvents(line)) {
      co_await Stream(socket);
      co_return;
    }
    std::string answer = co_await api_->Carry(std::move(line));
    answer += '\n';
    auto [broken, written] = co_await asio::async_write(*socket, asio::buffer(answer), kAsTuple);
    if (broken) co_return;
  }
}

Task<void> ControlListener::Stream(std::shared_ptr<Socket> socket) {
  std::deque<std::string> lines = {"{\"ok\":true}"};
  bool too_slow = false;
  asio::steady_timer news(io_);
  uint64_t subscription = events_->Subscribe([&](const std::string& line) {
    if (lines.size() >= kMaxEvents) {
      too_slow = true;
    } else {
      lines.push_back(line);
    }
    news.cancel();
  });
  constexpr milliseconds kForEver = std::chrono::hours(24);
  bool open = true;
  while (open && !too_slow) {
    if (lines.empty()) {
      co_await Sleep(news, kForEver);
      continue;
    }
    std::string line = lines.front() + "\n";
    lines.pop_front();
    auto [broken, written] = co_await asio::async_write(*socket, asio::buffer(line), kAsTuple);
    open = !broken;
  }
  events_->Unsubscribe(subscription);
}

}  // namespace cube::pool
