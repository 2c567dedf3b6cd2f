#ifndef CUBE_API_METRICS_SAMPLER_H_
#define CUBE_API_METRICS_SAMPLER_H_

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "pool/node.h"

namespace cube::api {

// What a sandbox used at some time.
struct SandboxSample {
  int64_t time_ms = 0;
  double cpu_percent = 0;                                        // of all its processors
  uint64_t memory_used = 0, memory_total = 0, memory_cache = 0;  // bytes
  uint64_t disk_used = 0, disk_total = 0;                        // bytes
};

// How many sandboxes ran at some time, and how fast they came in the five seconds before.
struct NodeSample {
  int64_t time_ms = 0;
  uint32_t running = 0;
  double creates_per_second = 0;
};

// Keeps samples of all sandboxes, half an hour back. Those of every five seconds are the host's
// view of the process, which wakes no guest; whoever asks gets the guest's own view as the last
// one. On one thread.
class MetricsSampler {
 public:
  static constexpr size_t kKept = 360, kNodeKept = 720;

  // `node` outlives it, and so does what Run() has begun.
  explicit MetricsSampler(pool::Node* node) : node_(node), timer_(node->context().io) {}

  void Start();
  void Stop();
  // Asks the guest, if it runs; the samples from `from_ms` to `to_ms`.
  pool::Task<std::vector<SandboxSample>> Read(std::shared_ptr<pool::Sandbox> sandbox,
                                              int64_t from_ms, int64_t to_ms);
  // The last one that is known, or one without times.
  SandboxSample Last(const std::string& id) const;
  // Of all together, an hour back.
  const std::deque<NodeSample>& node_samples() const { return node_samples_; }
  // All that are known, the oldest first; null if it never was looked at. Until the next round.
  const std::deque<SandboxSample>* Known(const std::string& id) const;

 private:
  struct History {
    std::deque<SandboxSample> samples;
    pid_t pid = 0;
    double cpu_seconds = 0;
    int64_t time_ms = 0;
    // What only the guest can tell.
    uint64_t memory_cache = 0, disk_used = 0, disk_total = 0;
  };

  pool::Task<void> Run();
  void LookAtAll();
  void Look(const pool::SandboxRecord& record);
  void Add(History* history, SandboxSample sample);

  pool::Node* node_;
  boost::asio::steady_timer timer_;
  bool stopped_ = false;
  std::map<std::string, History> histories_;
  std::deque<NodeSample> node_samples_;
  uint64_t creates_ = 0;  // when it last looked
};

}  // namespace cube::api

#endif  // CUBE_API_METRICS_SAMPLER_H_
