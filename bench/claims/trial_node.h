#ifndef CUBE_BENCH_CLAIMS_TRIAL_NODE_H_
#define CUBE_BENCH_CLAIMS_TRIAL_NODE_H_

#include <boost/json/object.hpp>
#include <memory>
#include <string>

#include "base/result.h"
#include "bench/claims/trial_options.h"
#include "pool/client_connection.h"
#include "pool/process_handle.h"

namespace cube::bench {

struct TrialSandbox {
  std::string id;
  std::string vsock;
  pid_t pid = 0;
  bool was_parked = false;
};

// One client of a node, with a connection of its own. One thread.
class TrialClient {
 public:
  static Result<TrialClient> Open(const std::string& socket);

  // The answer, or the error in it.
  Result<boost::json::object> Ask(const boost::json::object& request);
  Result<TrialSandbox> Create(const std::string& template_name);
  Status Kill(const std::string& id);
  // An operation that needs nothing but the sandbox.
  Status Do(const char* operation, const std::string& id);

 private:
  explicit TrialClient(pool::ClientConnection connection) : connection_(std::move(connection)) {}

  pool::ClientConnection connection_;
};

// A node of the run's own: a folder, a template in two names, and cubed, each from its step on. All
// of it ends with this.
class TrialNode {
 public:
  // The template's name with a pool, and without one.
  static constexpr char kWarm[] = "warm";
  static constexpr char kCold[] = "cold";

  // Makes the folder and builds the templates.
  static Result<std::unique_ptr<TrialNode>> Make(const TrialOptions& options);
  ~TrialNode();
  TrialNode(const TrialNode&) = delete;
  TrialNode& operator=(const TrialNode&) = delete;

  // Starts cubed with a pool of `pool_size`. Once.
  Status Start(uint64_t pool_size);
  Result<TrialClient> Connect() const { return TrialClient::Open(folder_ + "/cubed.sock"); }
  // Where its HTTP endpoint listens.
  Result<std::string> HttpAddress() const;
  // Waits until the pool is full; an error if it does not fill within two minutes.
  Status AwaitPool() const;
  // Another size for the pool. Does not wait for it.
  Status ResizePool(uint64_t size);
  pid_t pid() const { return process_.pid(); }
  const std::string& folder() const { return folder_; }
  // How long the template took to build.
  double build_ms() const { return build_ms_; }

 private:
  TrialNode(TrialOptions options, std::string folder)
      : options_(std::move(options)), folder_(std::move(folder)) {}
  Status BuildTemplates();
  Status Configure(uint64_t pool_size) const;
  Status StartDaemon();

  TrialOptions options_;
  std::string folder_;
  pool::ProcessHandle process_;
  double build_ms_ = 0;
};

}  // namespace cube::bench

#endif  // CUBE_BENCH_CLAIMS_TRIAL_NODE_H_
