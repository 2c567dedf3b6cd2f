#ifndef CUBE_GUESTKERNEL_AGENT_AGENT_H_
#define CUBE_GUESTKERNEL_AGENT_AGENT_H_

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "guestkernel/agent/console.h"
#include "guestkernel/agent/doorbell.h"
#include "guestkernel/agent/frame_reader.h"
#include "guestkernel/agent/frame_writer.h"
#include "guestkernel/agent/hosts_file.h"
#include "guestkernel/agent/identity.h"
#include "guestkernel/agent/input_pump.h"
#include "guestkernel/agent/mailbox.h"
#include "guestkernel/agent/output_pump.h"

namespace cube::agent {

// Serves the mailbox: starts the child the host asks for, carries its streams, reports its end. One
// thread, one epoll, no timers: it runs only when the host, the child or the kernel has news.
class Agent {
 public:
  // All of them outlive the agent; `hosts` may be null. Blocks SIGCHLD, which the agent takes
  // through a descriptor, and SIGPIPE; other threads of the process, if any, have to block both.
  static Result<Agent> Create(Mailbox* mailbox, Doorbell* doorbell, Console* console,
                              HostsFile* hosts);

  // Parks: a template is frozen in this call, and its clones return from it. Then takes the
  // identity that the host has written, if it has, and says kReady.
  void Park();

  // Serves until a child has been started and has ended and all it wrote is in the rings, then
  // sends kExit and returns. An error means that the kernel refuses what the loop needs.
  Status Run();

 private:
  enum Source : uint32_t { kConsole, kSignals, kStdin, kStdout, kStderr };

  Agent(Mailbox* mailbox, Doorbell* doorbell, Console* console, HostsFile* hosts);

  Status Watch(int fd, uint32_t events, Source source);
  // Sleeps until there is news and notes what it is.
  Status Sleep();
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
  Status ReapChildren();

  Mailbox* mailbox_;
  Doorbell* doorbell_;
  Console* console_;
  HostsFile* hosts_;
  UniqueFd epoll_;
  UniqueFd signals_;
  FrameReader reader_;
  FrameWriter writer_;
  InputPump stdin_;
  OutputPump stdout_;
  OutputPump stderr_;
  std::optional<Freshness> freshness_;  // from Create() on
  uint32_t identity_generation_ = 0;
  std::string hostname_;  // by the identity; empty if it says none
  // Variables (NAME=value) that every child gets unless its request says otherwise.
  std::vector<std::string> environment_;
  pid_t child_ = -1;                // while it runs
  std::optional<int> wait_status_;  // when it has ended
  bool exited_reported_ = false;    // kExited is queued or sent
  bool child_ended_news_ = false;   // SIGCHLD has come
  bool stdin_watched_ = false;
  bool notify_ = false;  // a ring has changed, the host has not been told
};

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_AGENT_H_
