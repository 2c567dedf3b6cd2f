// What workers, which run their users' code, write: control sockets and output, in pieces.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "guestkernel/agent/interpreter/control_lines.h"
#include "guestkernel/agent/interpreter/output_text.h"

namespace {

using cube::agent::interpreter::ControlLines;
using cube::agent::interpreter::OutputText;

struct Sink : ControlLines::Sink {
  void OnReady(int32_t pid) override {
    if (pid < 0 || pid == 1) abort();
  }
  void OnEnd() override {}
  void OnEvents(std::string_view bytes) override { size += bytes.size(); }
  size_t size = 0;
};

void CheckEvent(const std::string& event) {
  if (event.empty()) return;
  if (event.back() != '\n') abort();
  for (char c : event.substr(0, event.size() - 1)) {
    if (c < ' ' || c > '~') abort();
  }
}

}  // namespace

// The first byte is the size of the pieces.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const size_t piece = data[0] + 1u;
  const std::string_view all(reinterpret_cast<const char*>(data) + 1, size - 1);
  Sink sink;
  ControlLines lines;
  OutputText text("stdout");
  for (size_t at = 0; at < all.size(); at += piece) {
    lines.Feed(all.substr(at, piece), &sink);
    CheckEvent(text.Event(all.substr(at, piece), 1));
  }
  CheckEvent(text.Rest(1));
  if (sink.size > all.size()) abort();
  return 0;
}
