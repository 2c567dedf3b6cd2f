#ifndef CUBE_GUESTKERNEL_AGENT_AGENT_H_
#define CUBE_GUESTKERNEL_AGENT_AGENT_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "guestkernel/agent/console.h"
#include "guestkernel/agent/doorbell.h"
#include "guestkernel/agent/frame_reader.h"
#include "guestkernel/agent/frame_writer.h"
#include "guestkernel/agent/hosts_file.h"
#include "guestkernel/agent/identity.h"
#include "guestkernel/agent/input_pump.h"
#include "guestkernel/agent/loop/child_reaper.h"
#include "guestkernel/agent/loop/event_loop.h"
#include "guestkernel/agent/mailbox.h"
#include "guestkernel/agent/output_pump.h"
#include "guestkernel/agent/volumes.h"

namespace cube::agent {

// Serves the mailbox: starts the child the host asks for, carries its streams, reports its end. On
// the loop it is the one that is asked before it sleeps: the rings, which are memory, have no
// descriptor to wait for. It runs only when the host, the child or the kernel has news.
class Agent final : public EventLoop::Sleeper {
 public:
  // What the agent works with. All of it outlives the agent.
  struct Parts {
    Mailbox* mailbox;
    Doorbell* doorbell;
    Console* console;
    EventLoop* loop;
    ChildReaper* reaper;
    HostsFile* hosts;  // may be null
    // Is told each identity that the host has given, before it is told that it has been taken. May
    // be empty.
    std::function<void(const Identity&)> on_identity;
  };

  static Result<std::unique_ptr<Agent>> Create(Parts parts);

  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;

  // Parks: a template is frozen in this call, and its clones return from it. Then takes the
  // identity that the host has written, if it has, and says kReady.
  void Park();

  // Serves, and has the loop serve all others, until a child has been started and has ended and all
  // it wrote is in the rings, then sends kExit and returns. An error means that the kernel refuses
  // what the loop needs.
  Status Run();

  bool BeforeSleep() override;
  void AfterSleep() override { mailbox_->WakeUp(); }

 private:
  explicit Agent(Parts parts);

  Status WatchConsole();
  // True if a ring has changed in a way that Work() has something to do.
  bool HasWork();
  // Becomes who the host says, if that has changed. True if it has.
  bool TakeIdentity();
  // Says that it has. What is left to do of its identity is done before anything else.
  void BecomeReady();
  // Does everything that can be done without sleeping.
  Status Work();
  Status HandleFrame(const Frame& frame);
  Status HandleStart(const Frame& frame);
  void HandleSignal(const Frame& frame);
  void FailStart(int error, const std::string& text);
  void ChildEnded(int wait_status);

  Mailbox* mailbox_;
  Doorbell* doorbell_;
  Console* console_;
  EventLoop* loop_;
  ChildReaper* reaper_;
  HostsFile* hosts_;
  std::function<void(const Identity&)> on_identity_;
  FrameReader reader_;
  FrameWriter writer_;
  InputPump stdin_;
  OutputPump stdout_;
  OutputPump stderr_;
  std::optional<Freshness> freshness_;  // from Create() on
  uint32_t identity_generation_ = 0;
  std::string hostname_;  // by the identity; empty if it says none
  Volumes volumes_;
  uint32_t failure_ = 0;  // of mounting them: what kReady says
  // Variables (NAME=value) that every child gets unless its request says otherwise.
  std::vector<std::string> environment_;
  pid_t child_ = -1;                // while it runs
  std::optional<int> wait_status_;  // when it has ended
  bool exited_reported_ = false;    // kExited is queued or sent
  bool stdin_watched_ = false;
  bool notify_ = false;  // a ring has changed, the host has not been told
  Status status_;        // why the loop was stopped
};

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_AGENT_H_
