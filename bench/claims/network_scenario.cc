#include "bench/claims/network_scenario.h"

#include <unistd.h>

#include <fstream>
#include <sstream>

#include "bench/claims/child.h"

namespace cube::bench {

Status MeasureNetwork(const TrialOptions& options, const std::string& folder, Report* report) {
  if (options.fabric.empty() || !HasProgram("nft") || geteuid() != 0) {
    report->warnings.push_back(
        "no program fabric, no nft or no root: the network was not measured");
    return OkStatus();
  }
  const std::string path = folder + "/fabric.json";
  const char* seconds = options.is_full ? "2" : "0.3";
  const char* rounds = options.is_full ? "5" : "3";
  CUBE_ASSIGN(ChildRun ignored, RunChildWell({options.fabric, seconds, rounds, path}));
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  CUBE_ASSIGN(Report measured, Report::Parse(text.str()));
  for (Measurement& each : measured.measurements) report->measurements.push_back(std::move(each));
  return OkStatus();
}

}  // namespace cube::bench
