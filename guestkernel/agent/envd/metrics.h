#ifndef CUBE_GUESTKERNEL_AGENT_ENVD_METRICS_H_
#define CUBE_GUESTKERNEL_AGENT_ENVD_METRICS_H_

#include <cstdint>
#include <string>

namespace cube::agent::envd {

// What the machine makes use of. The share of processors is that since the time before.
class Metrics {
 public:
  // As GET /metrics has it; sizes are in bytes unless their name says otherwise.
  std::string Json();

 private:
  uint64_t busy_ = 0;  // clock ticks of all processors since the machine's start, at the last call
  uint64_t total_ = 0;
};

}  // namespace cube::agent::envd

#endif  // CUBE_GUESTKERNEL_AGENT_ENVD_METRICS_H_
