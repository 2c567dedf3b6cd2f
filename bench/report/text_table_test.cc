#include "bench/report/text_table.h"

#include <gtest/gtest.h>

namespace cube::bench {
namespace {

TEST(TextTableTest, ColumnsAreAligned) {
  EXPECT_EQ(TextTable({"name", "n"}, {{"a", "1"}, {"longer", "23456"}, {"µs"}}),
            "| name   |     n |\n"
            "| ------ | ----- |\n"
            "| a      |     1 |\n"
            "| longer | 23456 |\n"
            "| µs     |       |\n");
}

TEST(TextTableTest, AReport) {
  Report report;
  report.title = "title";
  report.warnings = {"noise"};
  report.machine = {{"cpu", "one"}};
  report.measurements = {{"create", "warm", "ms", {1, 3}, "of a pool", true, false}};
  report.curves = {{"memory", "PSS", "sandboxes", "KiB", {{1, 1200}}, false},
                   {"memory", "slab", "sandboxes", "KiB", {{1, 77}}, false},
                   {"memory", "others", "sandboxes", "KiB", {{2, 5}}, true}};
  report.claims = {{"60 ms", "2 ms", Verdict::kHolds, ""}};
  report.published = {{"somebody", "create", "60 ms", "metal", "page", "2026"}};
  std::string text = ReportAsText(report);
  for (const char* each : {"title\n", "warning: noise\n", "| cpu ", "| warm, ms ",
                           "warm: of a pool", "| memory, sandboxes |     1 |\n",
                           "| PSS, KiB          | 1,200 |\n| slab, KiB         |    77 |\n",
                           "| others (peer), KiB |   5 |\n", "holds |", "| somebody: create "}) {
    EXPECT_NE(text.find(each), std::string::npos) << each << "\n" << text;
  }
}

}  // namespace
}  // namespace cube::bench
