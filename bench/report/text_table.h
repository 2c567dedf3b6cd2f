#ifndef CUBE_BENCH_REPORT_TEXT_TABLE_H_
#define CUBE_BENCH_REPORT_TEXT_TABLE_H_

#include <string>
#include <vector>

#include "bench/report/report.h"

namespace cube::bench {

// Rows of a Markdown table, which is also one for a terminal: columns are as wide as their widest
// cell, all but the first are set to the right. Rows are as long as `head`.
std::string TextTable(const std::vector<std::string>& head,
                      const std::vector<std::vector<std::string>>& rows);

// The whole report in tables: warnings, claims with verdicts, machine, measurements, curves.
std::string ReportAsText(const Report& report);

}  // namespace cube::bench

#endif  // CUBE_BENCH_REPORT_TEXT_TABLE_H_
