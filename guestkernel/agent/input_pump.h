#ifndef CUBE_GUESTKERNEL_AGENT_INPUT_PUMP_H_
#define CUBE_GUESTKERNEL_AGENT_INPUT_PUMP_H_

#include "base/ring.h"
#include "base/unique_fd.h"

namespace cube::agent {

// Carries bytes from a ring to the pipe that is a child's stdin, straight out of the ring.
class InputPump {
 public:
  explicit InputPump(RingConsumer ring) : ring_(ring) {}

  // Starts carrying to `pipe`, which does not block.
  void Open(UniqueFd pipe) { pipe_ = std::move(pipe); }
  // Takes no more from the ring.
  void Close();
  // Carries what it can. True if the host is to be told.
  bool Pump();

  // True if Pump() would find something to do.
  bool HasWork();
  // True while bytes wait for the pipe; PipeReady() says that it takes some again.
  bool pipe_full() const { return pipe_.valid() && pipe_full_; }
  void PipeReady() { pipe_full_ = false; }
  int pipe() const { return pipe_.get(); }

 private:
  RingConsumer ring_;
  UniqueFd pipe_;
  bool pipe_full_ = false;
};

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_INPUT_PUMP_H_
