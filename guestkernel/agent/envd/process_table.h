#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_PROCESS_TABLE_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_PROCESS_TABLE_H_

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>

#include "base/unique_fd.h"
#include "guestkernel/agent/connect/message.h"
#include "guestkernel/agent/envd/process.h"

namespace cube::agent::envd {

// The processes that clients have started: those that run, and for a while those that have just
// ended, so that a client that comes late learns how.
class ProcessTable {
 public:
  // How many that have ended are kept, and for how long.
  static constexpr size_t kMaxEnded = 64;
  static constexpr uint64_t kEndedNanoseconds = 60'000'000'000;

  // `context` outlives the table.
  explicit ProcessTable(Context* context) : context_(context) {}

  connect::Outcome<std::shared_ptr<Process>> Start(ProcessRequest request, const User& user);

  // The process that `selector`, a message with a pid or a tag, names; with `ended` also one that
  // runs no more.
  connect::Outcome<std::shared_ptr<Process>> Find(const connect::Message& selector,
                                                  bool ended) const;

  const std::map<pid_t, std::shared_ptr<Process>>& running() const { return running_; }

 private:
  struct Ended {
    std::shared_ptr<Process> process;
    uint64_t when;  // CLOCK_MONOTONIC
  };

  void OnEnd(pid_t pid);

  Context* context_;
  UniqueFd nothing_;  // /dev/null, once a process has needed it
  std::map<pid_t, std::shared_ptr<Process>> running_;
  std::deque<Ended> ended_;  // the last to end is the last
};

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_PROCESS_TABLE_H_
