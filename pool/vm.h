#ifndef CUBE_POOL_VM_H_
#define CUBE_POOL_VM_H_

#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/json/object.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "pool/async.h"
#include "pool/outcome.h"
#include "pool/process_handle.h"

namespace cube::pool {

// A process of cube-vmm that has a machine: its control socket (vmm/cli/sandbox_control.h) and its
// pidfd. Letting it go does not end the process.
class Vm : public std::enable_shared_from_this<Vm> {
 public:
  // Connects to the socket at `path`; the process is the one that listens there.
  static Outcome<std::shared_ptr<Vm>> Connect(asio::io_context& io, const std::string& id,
                                              const std::string& path);
  // Of a process whose control socket is connected already.
  static std::shared_ptr<Vm> Make(asio::io_context& io, const std::string& id,
                                  ProcessHandle process, UniqueFd socket);

  const std::string& id() const { return id_; }
  const ProcessHandle& process() const { return process_; }
  bool Alive() const { return process_.Alive(); }

  // A request and its answer, or why there is none; "ok":false is a refusal with its text. One at a
  // time: the caller has a lock. After an error of the connection no more can be asked.
  // `descriptors` go with it. What the machine says would not go better a second time is kInvalid,
  // all else kInternal.
  Task<Outcome<boost::json::object>> Ask(std::string request, milliseconds limit,
                                         std::vector<UniqueFd> descriptors = {});
  // The two halves of Ask().
  Status Post(const std::string& request, const std::vector<UniqueFd>& descriptors = {});
  Task<Outcome<boost::json::object>> Answer(milliseconds limit);

  // Called once, when the process has ended.
  void OnExit(std::function<void()> exited);
  // SIGKILL, and waits until it has ended.
  Task<void> Kill();

 private:
  Vm(asio::io_context& io, std::string id, ProcessHandle process, UniqueFd socket);
  void Watch();

  asio::io_context& io_;
  std::string id_;
  ProcessHandle process_;
  asio::local::stream_protocol::socket socket_;
  asio::posix::stream_descriptor watched_;
  std::string received_;
  std::function<void()> exited_;
};

// Waits until the process has ended, at most so long: whether it has.
Task<bool> AwaitExit(asio::io_context& io, int pidfd, milliseconds limit);

}  // namespace cube::pool

#endif  // CUBE_POOL_VM_H_
