#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_COMPOSE_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_COMPOSE_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/unique_fd.h"
#include "guestkernel/agent/envd/context.h"
#include "guestkernel/agent/envd/file_target.h"
#include "guestkernel/agent/envd/watcher_table.h"
#include "guestkernel/agent/http/exchange.h"

namespace cube::agent::envd {

// POST /files/compose: joins files to one, within the kernel and some mebibytes at a time.
class Compose final : public http::Handler {
 public:
  Compose(http::Response* response, Context* context, WatcherTable* watchers)
      : context_(context), watchers_(watchers), response_(response), memory_(context->memory) {}
  ~Compose() override { context_->loop->Cancel(next_); }

  void OnBody(std::string_view bytes) override;
  void OnBodyEnd() override;

 private:
  connect::Outcome<bool> Begin();
  // Copies a piece; goes on in the loop's next turn.
  void Copy();
  connect::Outcome<bool> CopyPiece();
  void Fail(const connect::RpcError& error);

  Context* context_;
  WatcherTable* watchers_;
  http::Response* response_;
  std::string body_;
  MemoryBudget::Lease memory_;
  std::vector<UniqueFd> sources_;
  size_t source_ = 0;  // that is being copied
  std::optional<FileTarget> file_;
  EventLoop::TimerId next_ = EventLoop::kNoTimer;
  bool failed_ = false;
};

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_COMPOSE_H_
