#ifndef CUBE_BENCH_REPORT_HTML_PAGE_H_
#define CUBE_BENCH_REPORT_HTML_PAGE_H_

#include <string>

#include "bench/report/report.h"

namespace cube::bench {

// The report as one HTML file with its pictures in it: claims, machine, a table of each group of
// measurements with a picture of their distributions where they are of one unit, the curves, and
// what others have published. No scripts, nothing from elsewhere.
std::string HtmlPage(const Report& report);

}  // namespace cube::bench

#endif  // CUBE_BENCH_REPORT_HTML_PAGE_H_
