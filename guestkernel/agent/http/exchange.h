#ifndef CUBE_GUESTKERNEL_AGENT_HTTP_EXCHANGE_H_
#define CUBE_GUESTKERNEL_AGENT_HTTP_EXCHANGE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "guestkernel/agent/http/request.h"
#include "guestkernel/agent/loop/memory_budget.h"

namespace cube::agent::http {

// The response half of one exchange, which the connection lends its handler. What is written leaves
// at the end of the loop's turn. Calls after Finish() or Send() have no effect.
class Response {
 public:
  using Fields = std::vector<std::pair<std::string_view, std::string_view>>;

  virtual ~Response() = default;

  // A response in one piece.
  virtual void Send(int status, const Fields& fields, std::string_view body) = 0;

  // A response in pieces: Start(), any number of Write(), Finish(). Without a length the body is
  // sent in chunks, one for each Write().
  virtual void Start(int status, const Fields& fields, std::optional<uint64_t> length) = 0;
  virtual void Write(std::string_view bytes) = 0;
  virtual void Finish() = 0;
  // Gives a response up that was started and cannot be ended rightly: the connection is closed, so
  // that the client sees it.
  virtual void Abort() = 0;

  // Bytes written that the socket has not taken yet. When it has taken all, OnDrained() is called.
  virtual size_t unsent() const = 0;
  // False if so much is unsent that the client had better take that first: more than kMaxUnsent, or
  // anything at all where memory is short.
  virtual bool HasRoom() const = 0;
  static constexpr size_t kMaxUnsent = 256 * 1024;
  // What the handler keeps of its request has to be counted here. Outlives the handler.
  virtual MemoryBudget* memory() const = 0;

  // Stops the request's body from being read, and lets it go on.
  virtual void PauseBody(bool pause) = 0;
};

// The request half: what becomes of a request is up to one of these, made when its head is whole.
// It is destroyed when its response has been written, or before that if the client has gone.
class Handler {
 public:
  virtual ~Handler() = default;

  // A piece of the body. Not called once the response has been finished.
  virtual void OnBody(std::string_view bytes) = 0;
  // The body is whole.
  virtual void OnBodyEnd() = 0;
  // The socket has taken all that was written.
  virtual void OnDrained() {}
};

// Makes the handler of a request. It never gives nothing. Request and Response outlive the handler.
using Route = std::function<std::unique_ptr<Handler>(const Request&, Response*)>;

// The text that goes with a status, RFC 9110 section 15.
std::string_view ReasonPhrase(int status);

}  // namespace cube::agent::http

#endif  // CUBE_GUESTKERNEL_AGENT_HTTP_EXCHANGE_H_
