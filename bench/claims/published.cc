#include "bench/claims/published.h"

namespace cube::bench {
namespace {

constexpr char kCubeSandbox[] = "CubeSandbox";
constexpr char kPvmHost[] =
    "AMD EPYC 9K65, 16 cores, 32 GiB, PVM kernel; sandbox of 2 vCPUs, 2 GiB";
constexpr char kPvmPost[] =
    "github.com/TencentCloud/CubeSandbox "
    "docs/blog/posts/2026-06-03-cubesandbox-perf-benchmark-pvm.md";
constexpr char kForkdHost[] = "Core i7-12700, 20 threads, 30 GiB, bare metal";
constexpr char kForkdReadme[] = "github.com/deeplethe/forkd README.md";
constexpr char kZerobootReadme[] = "github.com/adammiribyan/zeroboot README.md";
constexpr char kFirecracker[] = "github.com/firecracker-microvm/firecracker SPECIFICATION.md";

}  // namespace

std::vector<Published> PublishedFigures() {
  return {
      {kCubeSandbox, "create, one at a time, p50 / p99", "64.5 / 80.2 ms", kPvmHost, kPvmPost,
       "2026-06-03"},
      {kCubeSandbox, "create, 10 at once, p50 / p99", "168.5 / 286.1 ms", kPvmHost, kPvmPost,
       "2026-06-03"},
      {kCubeSandbox, "create, 20 at once, p50 / p99", "356.2 / 673.8 ms", kPvmHost, kPvmPost,
       "2026-06-03"},
      {kCubeSandbox, "memory of an idle instance, MemAvailable", "27 to 34 MB", kPvmHost, kPvmPost,
       "2026-06-03"},
      {kCubeSandbox, "snapshot of an idle instance, mean", "41.4 ms", kPvmHost, kPvmPost,
       "2026-06-03"},
      {kCubeSandbox, "100 at once", "1,056 ms", kForkdHost, kForkdReadme, "2026-05"},
      {"forkd", "100 at once, each with a line of numpy", "101 ms", kForkdHost, kForkdReadme,
       "2026-05"},
      {"forkd", "memory of an instance", "0.12 MiB", kForkdHost, kForkdReadme, "2026-05"},
      {"zeroboot", "spawn, p50 / p99", "0.79 / 1.74 ms", "not said", kZerobootReadme, "2026"},
      {"zeroboot", "memory of an instance", "265 KB", "not said", kZerobootReadme, "2026"},
      {"E2B", "spawn, p50", "about 150 ms", "not said, measured by zeroboot", kZerobootReadme,
       "2026"},
      {"Firecracker", "boot to init, at most", "125 ms", "i3.metal", kFirecracker, "2026"},
      {"Firecracker", "memory of the VMM, at most", "5 MiB", "i3.metal", kFirecracker, "2026"},
  };
}

}  // namespace cube::bench
