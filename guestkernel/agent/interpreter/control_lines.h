#ifndef CUBE_GUESTKERNEL_AGENT_INTERPRETER_CONTROL_LINES_H_
#define CUBE_GUESTKERNEL_AGENT_INTERPRETER_CONTROL_LINES_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace cube::agent::interpreter {

// Takes what a worker writes to its control socket apart: the two lines that are for the agent, and
// all others, which pass through as they are, in pieces of any size. A worker runs its user's code,
// so that anything may come; nothing but the start of a line is ever kept.
class ControlLines {
 public:
  class Sink {
   public:
    virtual ~Sink() = default;
    // The worker waits for requests; `pid` as it says, 0 if it is no process id.
    virtual void OnReady(int32_t pid) = 0;
    // All of an execution's events have come.
    virtual void OnEnd() = 0;
    // A piece of the events' text.
    virtual void OnEvents(std::string_view text) = 0;
  };

  void Feed(std::string_view bytes, Sink* sink);

  // True if the text passed on so far ends within a line.
  bool in_line() const { return in_line_; }

 private:
  void HandleOwnLine(Sink* sink);

  std::string held_;      // the start of a line that may be for the agent
  bool in_line_ = false;  // the rest of a line is to be passed on
};

}  // namespace cube::agent::interpreter

#endif  // CUBE_GUESTKERNEL_AGENT_INTERPRETER_CONTROL_LINES_H_
