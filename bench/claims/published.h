#ifndef CUBE_BENCH_CLAIMS_PUBLISHED_H_
#define CUBE_BENCH_CLAIMS_PUBLISHED_H_

#include <vector>

#include "bench/report/report.h"

namespace cube::bench {

// What other products' own pages say of them, with page, date and hardware. Nothing of it was
// measured here, and hardware differs by factors.
std::vector<Published> PublishedFigures();

}  // namespace cube::bench

#endif  // CUBE_BENCH_CLAIMS_PUBLISHED_H_
