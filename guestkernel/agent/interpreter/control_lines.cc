#include "guestkernel/agent/interpreter/control_lines.h"

#include <algorithm>
#include <charconv>

namespace cube::agent::interpreter {
namespace {

constexpr std::string_view kEnd = "{\"type\":\"end_of_execution\"}";
constexpr std::string_view kReady = "{\"type\":\"ready\",\"pid\":";
// Longer lines are not the agent's.
constexpr size_t kMaxOwn = 64;

bool MayBecome(std::string_view start, std::string_view line) {
  return start.substr(0, line.size()) == line.substr(0, start.size());
}

// Whether a line that starts so may be one for the agent.
bool MayBeOwn(std::string_view start) {
  return start.size() <= kMaxOwn && (MayBecome(start, kEnd) || MayBecome(start, kReady));
}

}  // namespace

void ControlLines::Feed(std::string_view bytes, Sink* sink) {
  while (!bytes.empty()) {
    size_t newline = bytes.find('\n');
    if (in_line_) {
      size_t size = newline == std::string_view::npos ? bytes.size() : newline + 1;
      in_line_ = newline == std::string_view::npos;
      sink->OnEvents(bytes.substr(0, size));
      bytes.remove_prefix(size);
      continue;
    }
    if (held_.empty() && newline != std::string_view::npos &&
        !MayBeOwn(bytes.substr(0, std::min(newline, kMaxOwn)))) {
      sink->OnEvents(bytes.substr(0, newline + 1));  // all of it at once, as nearly always
      bytes.remove_prefix(newline + 1);
      continue;
    }
    // Enough to tell, no more: a line of many megabytes is not to be looked at here.
    size_t size = std::min({bytes.size(), newline, kMaxOwn + 1});
    held_ += bytes.substr(0, size);
    bytes.remove_prefix(size);
    if (!MayBeOwn(held_)) {
      in_line_ = true;
      sink->OnEvents(held_);
      held_.clear();
    } else if (!bytes.empty()) {
      bytes.remove_prefix(1);  // the line is whole
      HandleOwnLine(sink);
    }
  }
}

void ControlLines::HandleOwnLine(Sink* sink) {
  std::string line;
  line.swap(held_);
  if (line == kEnd) {
    sink->OnEnd();
  } else if (line.starts_with(kReady)) {
    int32_t pid = 0;
    std::from_chars(line.data() + kReady.size(), line.data() + line.size(), pid);
    sink->OnReady(pid > 1 ? pid : 0);
  }
  // What is left is an empty line or half of one, which is no event.
}

}  // namespace cube::agent::interpreter
