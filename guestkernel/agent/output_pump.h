#ifndef CUBE_GUESTKERNEL_AGENT_OUTPUT_PUMP_H_
#define CUBE_GUESTKERNEL_AGENT_OUTPUT_PUMP_H_

#include "base/ring.h"
#include "base/unique_fd.h"

namespace cube::agent {

// Carries bytes from the pipe that is a child's stdout or stderr to a ring, straight into the ring.
// When the ring is full the pipe is left to fill, and with it the child to wait.
class OutputPump {
 public:
  explicit OutputPump(RingProducer ring) : ring_(ring) {}

  // Starts carrying from `pipe`, which does not block.
  void Open(UniqueFd pipe) { pipe_ = std::move(pipe); }
  // Says that the pipe has bytes or has been closed.
  void PipeReady() { pipe_ready_ = true; }
  // The child is gone: carry what the pipe holds now, then end the ring. Other processes may still
  // have the pipe open; what they write later is nobody's output.
  void Drain();
  // Carries what it can. True if the host is to be told.
  bool Pump();

  // True if Pump() would find something to do.
  bool HasWork();
  // True when the ring has been ended.
  bool ended() const { return ended_; }
  int pipe() const { return pipe_.get(); }

 private:
  void End();

  RingProducer ring_;
  UniqueFd pipe_;
  bool pipe_ready_ = false;
  bool draining_ = false;
  bool ended_ = false;
};

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_OUTPUT_PUMP_H_
