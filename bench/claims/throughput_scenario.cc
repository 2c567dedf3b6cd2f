#include "bench/claims/throughput_scenario.h"

#include "bench/claims/guest_command.h"
#include "bench/claims/stopwatch.h"

namespace cube::bench {
namespace {

constexpr char kGroup[] = "throughput";
constexpr double kMib = 64;
constexpr char kCount[] = "count=64";

struct Kind {
  const char* name;
  const char* note;
  std::vector<std::string> command;
};

// Past the guest's page cache, so that the device is what counts.
const Kind kKinds[] = {
    {"root disk, written",
     "dd oflag=direct bs=1M, 64 MiB, from exec to exit",
     {"/bin/dd", "if=/dev/zero", "of=/home/user/bench", "bs=1M", kCount, "oflag=direct",
      "conv=notrunc"}},
    {"root disk, read",
     "dd iflag=direct bs=1M, 64 MiB, from exec to exit",
     {"/bin/dd", "if=/home/user/bench", "of=/dev/null", "bs=1M", kCount, "iflag=direct"}},
};

}  // namespace

Status MeasureThroughput(const TrialOptions& options, TrialNode* node, Report* report) {
  CUBE_ASSIGN(TrialClient client, node->Connect());
  CUBE_ASSIGN(TrialSandbox sandbox, client.Create(TrialNode::kCold));
  // The blocks are there, so that a second writing is one in place.
  CUBE_ASSIGN(std::string ignored, RunInGuest(sandbox.vsock, kKinds[0].command));
  for (const Kind& kind : kKinds) {
    Measurement one = {kGroup, kind.name, "MiB/s", {}, kind.note, false, false};
    for (uint64_t round = 0; round < options.Rounds(5); ++round) {
      Stopwatch watch;
      CUBE_ASSIGN(ignored, RunInGuest(sandbox.vsock, kind.command));
      one.samples.push_back(kMib / (watch.Ms() / 1000));
    }
    report->measurements.push_back(std::move(one));
  }
  Measurement out = {kGroup,
                     "a program's output over vsock",
                     "MiB/s",
                     {},
                     "8 MiB of stdout by envd, as base64 in JSON",
                     false,
                     false};
  for (uint64_t round = 0; round < options.Rounds(3); ++round) {
    Stopwatch watch;
    CUBE_ASSIGN(std::string output,
                RunInGuest(sandbox.vsock, {"/usr/bin/head", "-c", "8388608", "/dev/zero"}));
    if (output.size() != 8388608) return Errorf("%zu bytes of output, not 8 MiB", output.size());
    out.samples.push_back(8 / (watch.Ms() / 1000));
  }
  report->measurements.push_back(std::move(out));
  return client.Kill(sandbox.id);
}

}  // namespace cube::bench
