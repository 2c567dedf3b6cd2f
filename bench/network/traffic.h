#ifndef CUBE_BENCH_NETWORK_TRAFFIC_H_
#define CUBE_BENCH_NETWORK_TRAFFIC_H_

#include "bench/network/scene.h"

namespace cube::net {

// A guest on a veth in place of a TAP: it has no process between, which would cost more than all
// that is compared.
testing::NetNamespace MakeGuest();

// Traffic of the guest's as the first of `count` sandboxes, which are there, through the fabric and
// through nftables in turn. Each of `rounds` takes six times `seconds`. Adds to the report, and
// prints lines of a table whose head is PrintTrafficHead()'s.
void PrintTrafficHead();
void MeasureTraffic(Fabric* fabric, const testing::NetNamespace& world,
                    const testing::NetNamespace& guest, uint32_t count, double seconds, int rounds,
                    bench::Report* report);

// What the kernel says that the programs take. Not while they are compared with others: its
// counting costs as much as a fifth of what it counts.
void PrintStatistics(Fabric* fabric, const testing::NetNamespace& world,
                     const testing::NetNamespace& guest);

}  // namespace cube::net

#endif  // CUBE_BENCH_NETWORK_TRAFFIC_H_
