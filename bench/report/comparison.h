#ifndef CUBE_BENCH_REPORT_COMPARISON_H_
#define CUBE_BENCH_REPORT_COMPARISON_H_

#include <string>
#include <vector>

#include "bench/report/report.h"
#include "bench/report/statistics.h"

namespace cube::bench {

enum class Change {
  kSame,     // the interval has 1 in it, or the difference is below the least that counts
  kBetter,   // surely
  kWorse,    // surely
  kMissing,  // one of the two reports does not have it
};

struct Compared {
  std::string group, name, unit;
  double before = 0, after = 0;  // medians
  Interval ratio;                // after / before
  Change change = Change::kSame;
};

// Every measurement of either report. A change counts when its 95 % interval is on one side of 1
// and its median differs by more than `least`, a share (0.05: 5 %): with many measurements some
// intervals miss 1 by chance.
std::vector<Compared> Compare(const Report& before, const Report& after, double least);

// Facts of the machines that differ: figures of different machines can hardly be compared.
std::vector<std::string> DifferencesOfMachines(const Report& before, const Report& after);

const char* ChangeName(Change change);

// A table of them; those that changed only, unless `all`.
std::string ComparisonAsText(const std::vector<Compared>& compared, bool all);

}  // namespace cube::bench

#endif  // CUBE_BENCH_REPORT_COMPARISON_H_
