#ifndef CUBE_VMM_CLI_GUEST_SESSION_H_
#define CUBE_VMM_CLI_GUEST_SESSION_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/control_abi.h"
#include "base/result.h"
#include "base/ring.h"
#include "vmm/cli/output_sink.h"
#include "vmm/event_loop.h"

namespace cube::vmm {

// What the agent is to run.
struct GuestCommand {
  std::vector<std::string> arguments;
  std::vector<std::string> environment;  // NAME=value
  std::string directory;
  std::string user;  // "" or NAME or NUMBER, perhaps with :GROUP
  bool on_console = false;
  uint16_t rows = 0, columns = 0;
};

// The host's side of one command in the guest: tells the agent to start it and moves bytes between
// the mailbox's rings and descriptors of the host, both ways with back-pressure. Everything happens
// on the event loop's thread.
class GuestSession {
 public:
  struct Callbacks {
    // Output, in the order it came. Returns how much was taken; the rest is offered again when
    // Pump() is called, and after 0 the caller must see to that.
    std::function<size_t(abi::RingId stream, std::span<const uint8_t>)> output;
    // True once nobody can take that stream's output any more.
    std::function<bool(abi::RingId stream)> output_closed;
    std::function<void()> wake_agent;
    std::function<void(uint32_t pid)> started;
    // The command could not be started: errno and the agent's line.
    std::function<void(uint32_t error, const std::string& text)> start_failed;
  };

  // `mailbox` stays mapped while this lives. `input` is read for the command's stdin, or -1.
  GuestSession(EventLoop* loop, std::span<uint8_t> mailbox, int input, Callbacks callbacks);
  ~GuestSession();

  // Queues the start of `command`. An error if it is larger than the contract allows.
  Status Start(const GuestCommand& command);
  // Goes on with a command that runs already: the machine was restored with it.
  Status Attach() {
    started_ = true;
    return Pump();
  }
  // Moves what can be moved. An error if the guest broke the contract.
  Status Pump();
  // True when neither a request nor a frame of the guest's is half under way: another session can
  // go on from here, over a copy of the mailbox.
  bool Idle() const { return requests_.empty() && frame_.empty(); }
  // True when nothing the guest has written is left in the rings.
  bool OutputDrained();

 private:
  Status PumpControl();
  Status HandleFrame(abi::FrameType type, std::span<const uint8_t> payload);
  Status PumpOutput(abi::RingId stream, RingConsumer* ring);
  void PumpRequests();
  void PumpInput();
  void ReadInput();
  void WatchInput(bool wanted);

  EventLoop* loop_;
  int input_;
  Callbacks callbacks_;
  RingProducer to_guest_;
  RingConsumer from_guest_;
  RingProducer stdin_;
  RingConsumer stdout_;
  RingConsumer stderr_;
  std::string requests_;  // frames that did not fit the ring yet
  std::string frame_;     // of the one being received
  bool input_done_ = false;
  bool input_waitable_ = true;
  bool input_watched_ = false;
  bool started_ = false;
  bool wake_ = false;
  bool output_gone_[2] = {false, false};
};

}  // namespace cube::vmm

#endif  // CUBE_VMM_CLI_GUEST_SESSION_H_
