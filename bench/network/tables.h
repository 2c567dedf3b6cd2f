#ifndef CUBE_BENCH_NETWORK_TABLES_H_
#define CUBE_BENCH_NETWORK_TABLES_H_

#include "bench/network/scene.h"

namespace cube::net {

// Attaching a sandbox, changing a policy, judging a packet, each among `count` sandboxes, which are
// made. Adds to the report, and prints lines of a table whose head is PrintTablesHead()'s.
void PrintTablesHead();
void MeasureTables(Fabric* fabric, uint32_t count, bench::Report* report);

}  // namespace cube::net

#endif  // CUBE_BENCH_NETWORK_TABLES_H_
