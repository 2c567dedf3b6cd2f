#ifndef CUBE_POOL_PLAIN_LAUNCHER_H_
#define CUBE_POOL_PLAIN_LAUNCHER_H_

#include <memory>
#include <string>
#include <vector>

#include "pool/launcher.h"

namespace cube::pool {

// Processes as they are: of the daemon's own user, in its namespaces, without limits. For debugging
// (--no-jail). Their $CUBE_HOME is a folder of the node's own, by which they are found again; a
// `cube-vmm run` of a user is in another and left alone.
class PlainLauncher : public Launcher {
 public:
  // `program`: cube-vmm. `folder`: the node's, which is made.
  static Result<std::unique_ptr<PlainLauncher>> Create(asio::io_context& io, std::string program,
                                                       std::string folder);

  Task<Outcome<ProcessHandle>> StartZygote(ZygoteSpec spec) override;
  Task<Outcome<ProcessHandle>> Restore(RestoreSpec spec) override;
  void ForgetZygote(const std::string& name) override;
  Outcome<CloneRequest> PrepareClone(const std::string& zygote) override;
  bool CanFork() const override { return true; }
  Outcome<Done> Confine(const std::string& id, const ProcessHandle& process,
                        const Limits& limits) override;
  void Rest(const std::string&) override {}
  void Forget(const std::string& id) override;
  bool IsForgetting() const override { return false; }
  void Close() override {}
  std::string WhyEnded(const std::string&, const ProcessHandle&) const override { return ""; }
  Outcome<UniqueFd> OpenVolume(const std::string& id, const std::string& folder) const override;
  std::string WritePath(const std::string&, const std::string& path) const override { return path; }
  Outcome<Done> Collect(const std::string&, const std::string&, const std::string&) override {
    return Done();
  }
  Task<Outcome<Done>> Show(const ProcessHandle&, std::string) override { co_return Done(); }
  std::string ZygoteSocket(const std::string& name) const override {
    return folder_ + "/" + name + ".sock";
  }
  std::string ControlPath(const std::string& id) const override { return RunFile(id, ".sock"); }
  std::string LogPath(const std::string& id) const override { return RunFile(id, ".log"); }
  std::string VsockPath(const std::string& id) const override { return RunFile(id, ".vsock"); }
  std::vector<ProcessHandle> FindAll() const override;
  std::vector<std::string> FindIds() const override;
  std::vector<std::string> FindZygotes() const override;

 private:
  PlainLauncher(asio::io_context& io, std::string program, std::string folder)
      : io_(io), program_(std::move(program)), folder_(std::move(folder)) {}

  std::string RunFile(const std::string& id, const char* suffix) const {
    return folder_ + "/run/" + id + suffix;
  }
  // Starts the program and waits until it has said an object with the member `word`.
  Task<Outcome<ProcessHandle>> StartAndAwait(std::vector<std::string> arguments, std::string word);

  asio::io_context& io_;
  std::string program_;
  std::string folder_;
};

}  // namespace cube::pool

#endif  // CUBE_POOL_PLAIN_LAUNCHER_H_
