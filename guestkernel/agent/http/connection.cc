#include "guestkernel/agent/http/connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/monotonic.h"

namespace cube::agent::http {
namespace {

constexpr std::string_view kLineEnd = "\r\n";
constexpr std::string_view kLastChunk = "0\r\n\r\n";
constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
// After so many steps the others of the loop have a turn.
constexpr int kStepsATurn = 16;
// A buffer that has grown larger is given back between two requests.
constexpr size_t kKeptBuffer = 4096;
constexpr uint64_t kLingerNanoseconds = 5'000'000'000;

}  // namespace

Connection::Connection(const Shared* shared, UniqueFd socket, std::function<void()> on_closed)
    : shared_(shared),
      socket_(std::move(socket)),
      on_closed_(std::move(on_closed)),
      memory_(shared->memory) {}

Connection::~Connection() {
  shared_->loop->Cancel(idle_timer_);
  handler_.reset();
  if (socket_.valid()) shared_->loop->Remove(socket_.get());
}

cube::Status Connection::Open() {
  last_activity_ = MonotonicNow();
  // Whoever holds the connection keeps it until it is closed, and it leaves the loop then.
  CUBE_TRY(shared_->loop->Add(socket_.get(), EPOLLIN | EPOLLRDHUP | EPOLLET,
                              [this](uint32_t events) { OnEvents(events); }));
  idle_timer_ = shared_->loop->After(shared_->idle_nanoseconds, [this] { OnIdle(); });
  return OkStatus();
}

void Connection::OnEvents(uint32_t events) {
  last_activity_ = MonotonicNow();
  if (events & EPOLLIN) readable_ = true;
  if (events & EPOLLOUT) writable_ = true;
  if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
    peer_leaving_ = true;
    readable_ = true;
  }
  // Both directions are gone, and with them all that an answer could be sent by.
  if (events & (EPOLLHUP | EPOLLERR)) aborted_ = true;
  Schedule();
}

void Connection::Schedule() {
  if (scheduled_ || in_turn_ || closed_) return;
  scheduled_ = true;
  shared_->loop->Defer([weak = weak_from_this()] {
    if (std::shared_ptr<Connection> self = weak.lock()) self->Turn();
  });
}

void Connection::Turn() {
  scheduled_ = false;
  if (closed_) return;
  in_turn_ = true;
  int steps = 0;
  while (Step() && ++steps < kStepsATurn) {
  }
  in_turn_ = false;
  CountMemory();
  if (steps == kStepsATurn) Schedule();
}

bool Connection::Step() {
  if (closed_) return false;
  // While a request is being answered its client has nothing to say but that it leaves.
  if (aborted_ || (peer_leaving_ && body_ended_ && reply_ != Reply::kFinished)) {
    Close();
    return false;
  }
  Flush();
  if (closed_) return false;
  if (unsent() == 0) {
    if (!std::exchange(drained_told_, true) && handler_ != nullptr && reply_ != Reply::kFinished) {
      handler_->OnDrained();
      return true;
    }
    if (reply_ == Reply::kFinished && !lingering_) {
      handler_.reset();
      // A client that waits for leave to send its body does not get it any more.
      if (body_ended_ || close_after_) {
        EndExchange();
        return !closed_;
      }
    }
  }
  if (!WantsInput()) return unsent() > 0 && writable_;
  if (!unparsed_.empty() && !lingering_ && (parser_ == nullptr || !readable_)) {
    std::string kept = std::exchange(unparsed_, {});
    const size_t size = kept.size();
    Parse(kept);
    if (unparsed_.size() < size || !WantsInput()) return true;
  }
  if (!readable_) return unsent() > 0 && writable_;
  Read();
  return !closed_;
}

void Connection::Flush() {
  while (unsent() > 0 && writable_) {
    const ssize_t n =
        send(socket_.get(), out_.data() + sent_, unsent(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno != EAGAIN) {
      Close();
      return;
    }
    if (n > 0) sent_ += static_cast<size_t>(n);
    // A socket that takes less than it is given is full: no second call to find that out.
    if (unsent() > 0) writable_ = false;
  }
  if (unsent() == 0) {
    out_.clear();
    sent_ = 0;
  } else if (!watches_writable_) {
    watches_writable_ = true;
    // Reported at once should there be space again already.
    cube::Status watched =
        shared_->loop->Modify(socket_.get(), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
    if (!watched.ok()) Close();
  }
}

bool Connection::WantsInput() const {
  if (lingering_) return true;
  if (!has_head_) return unsent() == 0;
  return !body_ended_ && !body_paused_;
}

void Connection::Read() {
  const std::span<char> scratch = shared_->scratch;
  const ssize_t n = recv(socket_.get(), scratch.data(), scratch.size(), MSG_DONTWAIT);
  if (n < 0 && errno == EINTR) return;
  if (n < 0 && errno == EAGAIN) {
    readable_ = false;
    return;
  }
  if (n <= 0) {
    Close();
    return;
  }
  const size_t size = static_cast<size_t>(n);
  // A socket gives all it has if there is room; the end, if it has been told of, comes after.
  if (size < scratch.size() && !peer_leaving_) readable_ = false;
  if (lingering_) return;
  if (unparsed_.empty()) {
    Parse({scratch.data(), size});
    return;
  }
  std::string all = std::exchange(unparsed_, {});
  all.append(scratch.data(), size);
  Parse(all);
}

void Connection::Parse(std::string_view input) {
  const RequestParser::Body give_body = [this](std::string_view bytes) {
    if (handler_ != nullptr && reply_ != Reply::kFinished) handler_->OnBody(bytes);
  };
  while (WantsInput()) {
    if (parser_ == nullptr) {
      if (input.empty()) break;
      parser_ = std::make_unique<RequestParser>();
    }
    const RequestParser::Step step = parser_->Parse(&input, give_body);
    if (step == RequestParser::Step::kNeedMore) break;
    if (step == RequestParser::Step::kTooLarge) return Refuse(431);
    if (step == RequestParser::Step::kBad) return Refuse(400);
    if (step == RequestParser::Step::kHead) {
      BeginExchange();
      continue;
    }
    body_ended_ = true;
    if (handler_ != nullptr && reply_ != Reply::kFinished) handler_->OnBodyEnd();
    break;
  }
  unparsed_.assign(input);
}

void Connection::BeginExchange() {
  has_head_ = true;
  const Request& request = parser_->request();
  close_after_ = !request.keep_alive;
  bodiless_ = request.method == "HEAD";
  for (const auto& [name, value] : request.fields) head_size_ += name.size() + value.size();
  handler_ = shared_->route(request, this);
  if (!request.expects_continue) return;
  if (reply_ == Reply::kNone) {
    out_ += kContinue;
  } else {
    close_after_ = true;  // the body may come or not: there is no telling where the next request is
  }
}

void Connection::EndExchange() {
  handler_.reset();
  parser_.reset();
  head_size_ = 0;
  if (close_after_) {
    if (body_ended_) return Close();
    return Linger();
  }
  has_head_ = false;
  body_ended_ = false;
  body_paused_ = false;
  reply_ = Reply::kNone;
  if (out_.capacity() > kKeptBuffer) std::string().swap(out_);
  if (unparsed_.empty()) std::string().swap(unparsed_);
}

void Connection::Refuse(int status) {
  handler_.reset();
  unparsed_.clear();
  close_after_ = true;
  // In the middle of a response there is no place for another.
  if (reply_ != Reply::kNone) return Close();
  has_head_ = true;
  body_ended_ = false;
  body_paused_ = true;  // nothing that follows can be understood
  bodiless_ = false;
  Send(status, {{"Content-Type", "text/plain"}}, ReasonPhrase(status));
}

void Connection::AppendHead(int status, const Fields& fields, std::optional<uint64_t> length) {
  out_ += Format("HTTP/1.1 %d ", status);
  out_ += ReasonPhrase(status);
  out_ += kLineEnd;
  out_ += shared_->fixed_fields;
  for (const auto& [name, value] : fields) {
    out_ += name;
    out_ += ": ";
    out_ += value;
    out_ += kLineEnd;
  }
  chunked_ = false;
  if (status == 204) {
    bodiless_ = true;
  } else if (length) {
    out_ += Format("Content-Length: %llu\r\n", static_cast<unsigned long long>(*length));
  } else if (parser_ != nullptr && parser_->request().old_version) {
    close_after_ = true;  // whose closing says where the body ends
  } else {
    chunked_ = true;
    out_ += "Transfer-Encoding: chunked\r\n";
  }
  if (close_after_) out_ += "Connection: close\r\n";
  out_ += kLineEnd;
}

void Connection::Send(int status, const Fields& fields, std::string_view body) {
  Start(status, fields, body.size());
  Write(body);
  Finish();
}

void Connection::Start(int status, const Fields& fields, std::optional<uint64_t> length) {
  if (reply_ != Reply::kNone) return;
  reply_ = Reply::kStarted;
  AppendHead(status, fields, length);
  Schedule();
}

void Connection::Write(std::string_view bytes) {
  if (reply_ != Reply::kStarted || bodiless_ || bytes.empty()) return;
  if (chunked_) out_ += Format("%zx\r\n", bytes.size());
  out_ += bytes;
  if (chunked_) out_ += kLineEnd;
  CountMemory();
  drained_told_ = false;
  Schedule();
}

bool Connection::HasRoom() const { return unsent() < (shared_->memory->tight() ? 1 : kMaxUnsent); }

void Connection::Finish() {
  if (reply_ != Reply::kStarted) return;
  reply_ = Reply::kFinished;
  if (chunked_ && !bodiless_) out_ += kLastChunk;
  Schedule();
}

void Connection::Abort() {
  aborted_ = true;
  Schedule();
}

void Connection::PauseBody(bool pause) {
  body_paused_ = pause;
  Schedule();
}

void Connection::Linger() {
  if (lingering_) return;
  lingering_ = true;
  if (peer_leaving_ || shutdown(socket_.get(), SHUT_WR) < 0) return Close();
  shared_->loop->Cancel(idle_timer_);
  idle_timer_ = shared_->loop->After(kLingerNanoseconds, [this] { Close(); });
}

void Connection::Close() {
  if (std::exchange(closed_, true)) return;
  handler_.reset();
  shared_->loop->Cancel(idle_timer_);
  shared_->loop->Remove(socket_.get());
  socket_.Reset();
  std::string().swap(out_);
  std::string().swap(unparsed_);
  sent_ = head_size_ = 0;
  CountMemory();
  shared_->loop->Defer([self = shared_from_this()] { self->on_closed_(); });
}

void Connection::OnIdle() {
  // Whoever waits for an answer may wait for as long as it takes.
  const uint64_t now = MonotonicNow();
  const bool answering = handler_ != nullptr && body_ended_;
  const uint64_t silent = answering ? 0 : now - last_activity_;
  if (silent >= shared_->idle_nanoseconds) return Close();
  idle_timer_ = shared_->loop->After(shared_->idle_nanoseconds - silent, [this] { OnIdle(); });
}

}  // namespace cube::agent::http
