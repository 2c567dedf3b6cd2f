#ifndef CUBE_GUESTKERNEL_AGENT_HTTP_CONNECTION_H_
#define CUBE_GUESTKERNEL_AGENT_HTTP_CONNECTION_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"
#include "guestkernel/agent/http/exchange.h"
#include "guestkernel/agent/http/request_parser.h"
#include "guestkernel/agent/loop/event_loop.h"

namespace cube::agent::http {

// What all connections of a server share.
struct Shared {
  EventLoop* loop;
  Route route;
  // Fields that every response has, each line ended by CRLF.
  std::string fixed_fields;
  // Where sockets are read to; nothing of it is kept between two calls.
  std::span<char> scratch;
  // How long a client may be silent between requests, or in the middle of one.
  uint64_t idle_nanoseconds;
  MemoryBudget* memory;
};

// An HTTP/1.1 connection (RFC 9112) over any stream socket, as its server: one request after the
// other, each with a handler of its own. A client that closes its end, or half of it, while its
// request is being answered has gone, and the handler with it. Of a slow client at most what its
// handler wrote is kept; of a fast one at most what one read gives.
class Connection final : public Response, public std::enable_shared_from_this<Connection> {
 public:
  // `shared` outlives the connection. `on_closed` is called once, from the loop, not from within
  // another call; it may destroy the connection.
  Connection(const Shared* shared, UniqueFd socket, std::function<void()> on_closed);
  ~Connection() override;

  // Begins to serve. An error leaves nothing to be done but to destroy it.
  cube::Status Open();

  void Send(int status, const Fields& fields, std::string_view body) override;
  void Start(int status, const Fields& fields, std::optional<uint64_t> length) override;
  void Write(std::string_view bytes) override;
  void Finish() override;
  void Abort() override;
  size_t unsent() const override { return out_.size() - sent_; }
  bool HasRoom() const override;
  MemoryBudget* memory() const override { return shared_->memory; }
  void PauseBody(bool pause) override;

 private:
  // What of the response the handler has given.
  enum class Reply { kNone, kStarted, kFinished };

  void OnEvents(uint32_t events);
  // Has Turn() run at the end of the loop's turn.
  void Schedule();
  // Sends, tells the handler, goes on to the next request and reads, as far as that is possible.
  void Turn();
  // One step of that; false if there is nothing to do until the next event.
  bool Step();
  void Flush();
  // True if bytes that arrive are of use now.
  bool WantsInput() const;
  void Read();
  // Parses what has been read. Bytes that cannot be taken yet are kept.
  void Parse(std::string_view input);
  void BeginExchange();
  void EndExchange();
  // Answers what is not a request and closes.
  void Refuse(int status);
  void AppendHead(int status, const Fields& fields, std::optional<uint64_t> length);
  // Closes our half, so that the client gets all that was sent, and waits for it to close its own.
  void Linger();
  void Close();
  void OnIdle();
  void CountMemory() { memory_.Count(out_.size() + unparsed_.size() + head_size_); }

  const Shared* shared_;
  UniqueFd socket_;
  std::function<void()> on_closed_;
  std::unique_ptr<RequestParser> parser_;  // from the first byte of a request to the last
  std::unique_ptr<Handler> handler_;       // from the head of a request to the end of its response
  std::string unparsed_;
  std::string out_;
  size_t sent_ = 0;       // of `out_`
  size_t head_size_ = 0;  // of the request at hand, about
  MemoryBudget::Lease memory_;
  Reply reply_ = Reply::kNone;
  bool has_head_ = false;    // the request's head is whole
  bool body_ended_ = false;  // and its body
  bool body_paused_ = false;
  bool chunked_ = false;      // the response is sent in chunks
  bool bodiless_ = false;     // the response has none, whatever is written
  bool close_after_ = false;  // no request follows this one
  bool lingering_ = false;    // our half is closed; what still comes is thrown away
  bool aborted_ = false;
  bool readable_ = false;      // the socket may have bytes
  bool writable_ = true;       // the socket may take bytes
  bool peer_leaving_ = false;  // the end follows the bytes that are there
  bool watches_writable_ = false;
  bool drained_told_ = true;
  bool in_turn_ = false;
  bool scheduled_ = false;
  bool closed_ = false;
  uint64_t last_activity_ = 0;  // CLOCK_MONOTONIC
  EventLoop::TimerId idle_timer_ = EventLoop::kNoTimer;
};

}  // namespace cube::agent::http

#endif  // CUBE_GUESTKERNEL_AGENT_HTTP_CONNECTION_H_
