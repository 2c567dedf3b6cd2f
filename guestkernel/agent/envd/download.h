#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_DOWNLOAD_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_DOWNLOAD_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/unique_fd.h"
#include "guestkernel/agent/envd/context.h"
#include "guestkernel/agent/http/exchange.h"

namespace cube::agent::envd {

// GET /files: sends a file, as fast as the client takes it.
class Download final : public http::Handler {
 public:
  // Whoever makes it has seen to it that the client may. What it cannot do it answers itself.
  Download(const http::Request& request, http::Response* response, Context* context);

  void OnBody(std::string_view) override {}
  void OnBodyEnd() override {}
  void OnDrained() override { Send(); }

 private:
  connect::Outcome<bool> Begin(const http::Request& request);
  // Writes the next piece, and ends after the last.
  void Send();

  Context* context_;
  http::Response* response_;
  UniqueFd file_;
  bool sized_ = true;  // the response says how long it is
  uint64_t left_ = 0;  // of that
};

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_DOWNLOAD_H_
