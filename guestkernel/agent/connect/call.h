#ifndef CUBE_GUESTKERNEL_AGENT_CONNECT_CALL_H_
#define CUBE_GUESTKERNEL_AGENT_CONNECT_CALL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "guestkernel/agent/connect/envelope.h"
#include "guestkernel/agent/connect/message.h"
#include "guestkernel/agent/connect/rpc_error.h"
#include "guestkernel/agent/http/exchange.h"
#include "guestkernel/agent/loop/event_loop.h"

namespace cube::agent::connect {

// The time limit that the client names, Connect-Timeout-Ms, in nanoseconds; nothing if it names
// none or 0.
Outcome<std::optional<uint64_t>> TimeLimit(const http::Request& request);

// A call of the Connect protocol with one message each way, in JSON.
class UnaryCall final : public http::Handler {
 public:
  // Is given the message, once, and replies or fails by the call: at once, or later by what weak()
  // gives. Field errors of the message are its own to look for.
  using Method = std::function<void(UnaryCall* call, const Message& message)>;

  UnaryCall(const http::Request& request, http::Response* response, Method method);

  void Reply(std::string_view json);
  void Fail(const RpcError& error);

  const http::Request& request() const { return request_; }
  MemoryBudget* memory() const { return response_->memory(); }
  // Empty when the client has gone.
  std::weak_ptr<UnaryCall*> weak() const { return self_; }

  void OnBody(std::string_view bytes) override;
  void OnBodyEnd() override;

 private:
  const http::Request& request_;
  http::Response* response_;
  Method method_;
  std::string body_;
  MemoryBudget::Lease memory_;
  std::shared_ptr<UnaryCall*> self_;
};

// A call with a stream of messages back, or of messages there: what the two have in common. In both
// the response is a stream.
class StreamCall : public http::Handler {
 public:
  StreamCall(const http::Request& request, http::Response* response, EventLoop* loop);
  ~StreamCall() override;

 protected:
  void Send(std::string_view json);
  // Ends the stream, well or not. Later calls have no effect.
  void End();
  void Fail(const RpcError& error);

  // Sends `json` whenever nothing else has been sent for the client's Keepalive-Ping-Interval.
  void KeepAlive(std::string json);
  // Fails with deadline_exceeded after so long.
  void EndAfter(uint64_t nanoseconds);

  // Counts `bytes` of messages that are kept; fails and is false if there is no memory for them.
  bool Keep(size_t bytes);

  bool ended() const { return ended_; }
  EventLoop* loop() const { return loop_; }
  const http::Request& request() const { return request_; }
  http::Response* response() const { return response_; }

 private:
  void Start();
  void Finish(std::string_view end_of_stream);
  void WatchSilence(uint64_t nanoseconds);

  const http::Request& request_;
  http::Response* response_;
  EventLoop* loop_;
  MemoryBudget::Lease memory_;
  bool started_ = false;
  bool ended_ = false;
  std::string keep_alive_;
  uint64_t interval_ = 0;   // nanoseconds
  uint64_t last_sent_ = 0;  // CLOCK_MONOTONIC
  EventLoop::TimerId silence_ = EventLoop::kNoTimer;
  EventLoop::TimerId deadline_ = EventLoop::kNoTimer;
};

// One message there, a stream of them back.
class ServerStreamCall : public StreamCall {
 public:
  using StreamCall::StreamCall;

  void OnBody(std::string_view bytes) final;
  void OnBodyEnd() final;

 protected:
  // Called once with the client's message, whose field errors are its own to look for.
  virtual void Begin(const Message& message) = 0;

 private:
  EnvelopeReader reader_;
  std::optional<Message> message_;
};

// A stream of messages there, one back.
class ClientStreamCall : public StreamCall {
 public:
  using StreamCall::StreamCall;

  void OnBody(std::string_view bytes) final;
  void OnBodyEnd() final;

 protected:
  // Called for each message; what it does not take at once it asks to wait by Pause().
  virtual void OnMessage(const Message& message) = 0;
  // All messages have been given.
  virtual void OnMessagesEnd() = 0;

  void Pause();
  void Resume();

 private:
  void GiveMessages();
  // False if there is none, or none is wanted now.
  bool GiveMessage();

  EnvelopeReader reader_;
  bool giving_ = false;
  bool paused_ = false;
  bool body_ended_ = false;
};

// Answers what cannot be a call of this protocol: by a status if it is none, or by an error. Null
// if there is nothing against it. `stream`: it is to be one with a stream.
std::unique_ptr<http::Handler> RefuseCall(const http::Request& request, http::Response* response,
                                          bool stream);

}  // namespace cube::agent::connect

#endif  // CUBE_GUESTKERNEL_AGENT_CONNECT_CALL_H_
