// What the network fabric costs, in network namespaces of its own: attaching a sandbox, changing a
// policy, judging a packet, and carrying traffic beside nftables. Needs root and nft. Prints
// tables; a third argument is a file for the samples, as a report.
//
//   bazel run //bench:fabric [-- SECONDS ROUNDS [FILE]]
#include <cstdlib>
#include <fstream>

#include "bench/network/tables.h"
#include "bench/network/traffic.h"

namespace cube::net {
namespace {

int Main(double seconds, int rounds, const char* file) {
  bench::Report report;
  testing::NetNamespace world = SetUpWorld();
  PrintTablesHead();
  for (bool ipv6 : {false, true}) {
    auto fabric = Must(Fabric::Open(Options(ipv6)));
    for (uint32_t count : {10, 100, 1000}) MeasureTables(fabric.get(), count, &report);
  }
  auto fabric = Must(Fabric::Open(Options()));
  testing::NetNamespace guest = MakeGuest();
  PrintTrafficHead();
  for (uint32_t count : {1, 1000}) {
    MakeSandboxes(fabric.get(), count);
    MeasureTraffic(fabric.get(), world, guest, count, seconds, rounds, &report);
  }
  PrintStatistics(fabric.get(), world, guest);
  if (file == nullptr) return 0;
  std::ofstream out(file, std::ios::binary);
  out << report.ToJson();
  out.close();
  return out ? 0 : 1;
}

}  // namespace
}  // namespace cube::net

int main(int argc, char** argv) {
  return cube::net::Main(argc > 1 ? atof(argv[1]) : 1, argc > 2 ? atoi(argv[2]) : 10,
                         argc > 3 ? argv[3] : nullptr);
}
