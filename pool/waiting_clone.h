#ifndef CUBE_POOL_WAITING_CLONE_H_
#define CUBE_POOL_WAITING_CLONE_H_

#include <memory>
#include <string>

#include "pool/launcher.h"
#include "pool/process_handle.h"
#include "pool/zygote_request.h"

namespace cube::pool {

// A child of a zygote that is in its jail and waits for a word to become a machine. It is what a
// create that finds no parked clone need not wait for: a folder, cgroups, namespaces. Joining
// cgroups of version 1 alone takes a grace period of RCU, which on a busy host is tens of ms.
//
// It ends with the connection that this class has to it.
class WaitingClone {
 public:
  // `request`: Launcher::PrepareClone(); its id is to be forgotten after an error. `path`: the
  // zygote's socket.
  static Task<Outcome<std::shared_ptr<WaitingClone>>> Make(asio::io_context& io, std::string path,
                                                           CloneRequest request);

  const std::string& id() const { return id_; }
  const ProcessHandle& process() const { return process_; }
  // It becomes a machine that is parked: once. `self` lives until then.
  static Task<Outcome<Done>> Begin(std::shared_ptr<WaitingClone> self);

 private:
  WaitingClone(asio::io_context& io, std::string id) : io_(io), id_(std::move(id)) {}
  // That it waits, and who it is.
  Outcome<Done> Hear();

  asio::io_context& io_;
  std::string id_;
  ProcessHandle process_;
  ZygoteSocket channel_;
};

}  // namespace cube::pool

#endif  // CUBE_POOL_WAITING_CLONE_H_
