#ifndef CUBE_BENCH_NETWORK_SCENE_H_
#define CUBE_BENCH_NETWORK_SCENE_H_

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "bench/report/report.h"
#include "net/fabric.h"
#include "net/testing/network.h"

namespace cube::net {

inline constexpr char kWorld[] = "192.0.2.80";
inline constexpr char kWorld6[] = "2001:db8:80::80";
inline constexpr uint32_t kRules = 100;  // of each sandbox

// Ends the process with the error, if there is one: a benchmark has nothing to go on with.
void Must(const Status& status);
template <typename T>
T Must(Result<T> result) {
  if (!result.ok()) Must(Status(result.error()));
  return std::move(result).value();
}

// Adds samples to `report` as what was measured of so many sandboxes.
void Keep(bench::Report* report, uint32_t count, const std::string& name, const char* unit,
          const std::vector<double>& samples, bool less_is_better = true, bool is_peer = false);

// A policy of kRules rules, of other networks for each `seed`: half of them allow, half deny; as
// many again of IPv6 if `ipv6`.
Policy Rules(uint32_t seed, bool ipv6 = false);

// This process goes into a network namespace of its own with an uplink "up". Returns the world
// behind it, which has kWorld.
testing::NetNamespace SetUpWorld();

// Of a fabric in it that pins nothing.
FabricOptions Options(bool ipv6 = false);

// Has the fabric have so many sandboxes, "s0" and on, with Rules() of their number.
void MakeSandboxes(Fabric* fabric, uint32_t count);

}  // namespace cube::net

#endif  // CUBE_BENCH_NETWORK_SCENE_H_
