#include "guestkernel/agent/connect/call.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/monotonic.h"
#include "base/result.h"
#include "guestkernel/agent/http/simple_handlers.h"

namespace cube::agent::connect {
namespace {

constexpr std::string_view kUnaryType = "application/json";
constexpr std::string_view kStreamType = "application/connect+json";
constexpr uint64_t kNanoseconds = 1'000'000'000;
constexpr uint64_t kDefaultInterval = 90;  // seconds
constexpr uint64_t kMaxInterval = 86'400;

std::optional<uint64_t> Number(std::string_view text, size_t most_digits) {
  uint64_t number = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || text.size() > most_digits) {
    return std::nullopt;
  }
  return number;
}

// The media type without its parameters.
std::string_view MediaType(const http::Request& request) {
  const std::string* type = request.Field("content-type");
  if (type == nullptr) return "";
  std::string_view text = *type;
  text = text.substr(0, text.find(';'));
  while (text.ends_with(' ')) text.remove_suffix(1);
  return text;
}

}  // namespace

Outcome<std::optional<uint64_t>> TimeLimit(const http::Request& request) {
  const std::string* text = request.Field("connect-timeout-ms");
  if (text == nullptr) return std::optional<uint64_t>();
  // The protocol allows ten digits.
  std::optional<uint64_t> milliseconds = Number(*text, 10);
  if (!milliseconds) {
    return RpcError{Code::kInvalidArgument,
                    "Connect-Timeout-Ms '" + *text + "' is not a number of at most 10 digits"};
  }
  if (*milliseconds == 0) return std::optional<uint64_t>();
  return std::optional<uint64_t>(*milliseconds * 1'000'000);
}

std::unique_ptr<http::Handler> RefuseCall(const http::Request& request, http::Response* response,
                                          bool stream) {
  if (request.method != "POST") {
    return http::Answer(response, 405, {{"Allow", "POST"}}, "");
  }
  const std::string_view wanted = stream ? kStreamType : kUnaryType;
  if (MediaType(request) != wanted) {
    return http::Answer(response, 415, {{"Accept-Post", wanted}}, "");
  }
  const std::string* encoding =
      request.Field(stream ? "connect-content-encoding" : "content-encoding");
  if (encoding == nullptr || *encoding == "identity" || encoding->empty()) return nullptr;
  // Of a stream it is an error only if a message is flagged as compressed.
  if (stream) return nullptr;
  const RpcError error = {Code::kUnimplemented, "unknown compression '" + *encoding + "'"};
  return http::Answer(response, HttpStatus(error.code), {{"Content-Type", kUnaryType}},
                      error.ToJson());
}

UnaryCall::UnaryCall(const http::Request& request, http::Response* response, Method method)
    : request_(request),
      response_(response),
      method_(std::move(method)),
      memory_(response->memory()),
      self_(std::make_shared<UnaryCall*>(this)) {}

void UnaryCall::Reply(std::string_view json) {
  response_->Send(200, {{"Content-Type", kUnaryType}}, json);
}

void UnaryCall::Fail(const RpcError& error) {
  response_->Send(HttpStatus(error.code), {{"Content-Type", kUnaryType}}, error.ToJson());
}

void UnaryCall::OnBody(std::string_view bytes) {
  if (body_.size() + bytes.size() > kMaxMessage) {
    Fail({Code::kResourceExhausted,
          Format("message of more than %zu bytes, which is the limit", kMaxMessage)});
    return;
  }
  if (!memory_.Keep(body_.size() + bytes.size())) {
    return Fail({Code::kResourceExhausted, response_->memory()->Refusal()});
  }
  body_ += bytes;
}

void UnaryCall::OnBodyEnd() {
  Outcome<Message> message = Message::Parse(body_);
  std::string().swap(body_);
  if (!message.ok()) return Fail(message.error());
  method_(this, *message);
}

StreamCall::StreamCall(const http::Request& request, http::Response* response, EventLoop* loop)
    : request_(request), response_(response), loop_(loop), memory_(response->memory()) {}

StreamCall::~StreamCall() {
  loop_->Cancel(silence_);
  loop_->Cancel(deadline_);
}

void StreamCall::Start() {
  if (std::exchange(started_, true)) return;
  response_->Start(200, {{"Content-Type", kStreamType}}, std::nullopt);
}

void StreamCall::Send(std::string_view json) {
  if (ended_) return;
  Start();
  last_sent_ = MonotonicNow();
  response_->Write(MakeEnvelope(0, json));
}

void StreamCall::Finish(std::string_view end_of_stream) {
  if (std::exchange(ended_, true)) return;
  Start();
  response_->Write(MakeEnvelope(kEnvelopeEnd, end_of_stream));
  response_->Finish();
}

void StreamCall::End() { Finish("{}"); }

void StreamCall::Fail(const RpcError& error) { Finish("{\"error\":" + error.ToJson() + "}"); }

bool StreamCall::Keep(size_t bytes) {
  if (memory_.Keep(bytes)) return true;
  Fail({Code::kResourceExhausted, response_->memory()->Refusal()});
  return false;
}

void StreamCall::KeepAlive(std::string json) {
  keep_alive_ = std::move(json);
  const std::string* text = request_.Field("keepalive-ping-interval");
  uint64_t seconds = text == nullptr ? 0 : Number(*text, 5).value_or(0);
  if (seconds == 0) seconds = kDefaultInterval;
  interval_ = std::min(seconds, kMaxInterval) * kNanoseconds;
  last_sent_ = MonotonicNow();
  WatchSilence(interval_);
}

void StreamCall::WatchSilence(uint64_t nanoseconds) {
  silence_ = loop_->After(nanoseconds, [this] {
    const uint64_t silent = MonotonicNow() - last_sent_;
    if (ended_) return;
    // A client that does not take what it has been sent has no use for more.
    if (silent >= interval_ && response_->unsent() == 0) {
      Send(keep_alive_);
      WatchSilence(interval_);
    } else {
      WatchSilence(silent >= interval_ ? interval_ : interval_ - silent);
    }
  });
}

void StreamCall::EndAfter(uint64_t nanoseconds) {
  deadline_ = loop_->After(nanoseconds, [this] {
    Fail({Code::kDeadlineExceeded, "the time limit of the call has passed"});
  });
}

void ServerStreamCall::OnBody(std::string_view bytes) {
  if (ended() || !Keep(reader_.size() + bytes.size())) return;
  reader_.Add(bytes);
  while (true) {
    Outcome<std::optional<std::string>> next = reader_.Next();
    if (!next.ok()) return Fail(next.error());
    if (!next->has_value()) return;
    if (message_) {
      return Fail({Code::kInvalidArgument, "a second message, where there is to be one"});
    }
    Outcome<Message> message = Message::Parse(**next);
    if (!message.ok()) return Fail(message.error());
    message_ = std::move(message).value();
  }
}

void ServerStreamCall::OnBodyEnd() {
  if (ended()) return;
  if (!reader_.empty()) return Fail({Code::kInvalidArgument, "the message is not whole"});
  if (!message_) return Fail({Code::kInvalidArgument, "no message, where there is to be one"});
  const Message message = *std::exchange(message_, std::nullopt);
  Begin(message);
}

void ClientStreamCall::OnBody(std::string_view bytes) {
  if (ended() || !Keep(reader_.size() + bytes.size())) return;
  reader_.Add(bytes);
  GiveMessages();
}

void ClientStreamCall::OnBodyEnd() {
  body_ended_ = true;
  GiveMessages();
}

void ClientStreamCall::Pause() {
  paused_ = true;
  response()->PauseBody(true);
}

void ClientStreamCall::Resume() {
  if (!std::exchange(paused_, false)) return;
  response()->PauseBody(false);
  // Within OnMessage() the loop that called it goes on.
  if (!giving_) GiveMessages();
}

void ClientStreamCall::GiveMessages() {
  giving_ = true;
  while (GiveMessage()) {
  }
  giving_ = false;
  (void)Keep(reader_.size());  // not more than before
}

bool ClientStreamCall::GiveMessage() {
  if (paused_ || ended()) return false;
  auto fail = [this](const RpcError& error) {
    Fail(error);
    return false;
  };
  Outcome<std::optional<std::string>> next = reader_.Next();
  if (!next.ok()) return fail(next.error());
  if (!next->has_value()) {
    if (!body_ended_) return false;
    if (!reader_.empty()) return fail({Code::kInvalidArgument, "the last message is not whole"});
    OnMessagesEnd();
    return false;
  }
  Outcome<Message> message = Message::Parse(**next);
  if (!message.ok()) return fail(message.error());
  OnMessage(*message);
  return true;
}

}  // namespace cube::agent::connect
