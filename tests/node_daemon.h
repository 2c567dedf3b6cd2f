#ifndef CUBE_TESTS_NODE_DAEMON_H_
#define CUBE_TESTS_NODE_DAEMON_H_

#include <sys/types.h>

#include <boost/json.hpp>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "pool/client_connection.h"
#include "pool/process_handle.h"
#include "tests/process.h"

namespace cube::testing {

// A `cubed` of a test, in a folder of its own with one template, "t", of 128 MiB.
class NodeDaemon {
 public:
  // Makes the folder and the template, which takes a second. `config`: TOML.
  explicit NodeDaemon(const std::string& config = "") : NodeDaemon(config, {}) {}
  // With further words for `cube-vmm template build`; with a folder that is there, if one is named.
  NodeDaemon(const std::string& config, const std::vector<std::string>& template_words,
             const std::string& home = "");
  ~NodeDaemon();
  NodeDaemon(const NodeDaemon&) = delete;
  NodeDaemon& operator=(const NodeDaemon&) = delete;

  // Starts it, and returns once it takes requests.
  void Start();
  // Of one that may not come to take requests: what `cube up` says.
  Finished TryToStart();
  // SIGKILL.
  void Crash();
  // SIGTERM.
  void Stop();
  // Waits until it has ended.
  void AwaitEnd();
  void Configure(const std::string& config);
  // From the next Start() on.
  void SetJail(bool jail) { jail_ = jail; }
  // In place of cube-vmm.
  void SetVmm(std::string program) { vmm_ = std::move(program); }

  const std::string& home() const { return home_; }
  pid_t pid() const { return process_.pid(); }
  // A connection of its own each time: from any thread.
  boost::json::object Ask(const boost::json::object& request);
  boost::json::object Ask(const std::string& op, const std::string& id = "");
  // The sandbox's id, or "" if there is none.
  std::string Create(const boost::json::object& more = {});
  std::string State(const std::string& id);
  // Processes of this node that run: machines and zygotes.
  std::vector<pid_t> Machines() const;
  // Folders of its cgroups, in whatever hierarchies.
  std::vector<std::string> Cgroups() const;
  // Waits until as many are left, without those that only wait in their jails; until none is for 0.
  void AwaitMachines(size_t count) const;
  // Waits until so many clones are parked.
  void AwaitParked(int64_t count);

 private:
  std::string home_, vmm_;
  bool jail_ = true;
  pool::ProcessHandle process_;
};

// What a template with the root disk $CUBE_ROOTFS, 512 MiB and an agent that can be reached is
// built with.
std::vector<std::string> DiskTemplateWords();

bool IsOk(const boost::json::object& answer);
// A string member, or "".
std::string Text(const boost::json::object& object, const char* member);
const boost::json::object& Inner(const boost::json::object& object, const char* member);

// What a node says happens, from when this was made.
class NodeEvents {
 public:
  explicit NodeEvents(const NodeDaemon& node);
  // Waits for an event of that sandbox with that state; its reason.
  std::string Await(const std::string& id, const std::string& state);
  // Waits for an event that is so.
  boost::json::object AwaitAny(const std::function<bool(const boost::json::object&)>& is_it);

 private:
  std::optional<pool::ClientConnection> connection_;
};

}  // namespace cube::testing

#endif  // CUBE_TESTS_NODE_DAEMON_H_
