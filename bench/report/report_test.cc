#include "bench/report/report.h"

#include <gtest/gtest.h>

namespace cube::bench {
namespace {

Report Example() {
  Report report;
  report.title = "a \"run\"\n<b>";
  report.started = "2026-01-02T03:04:05Z";
  report.seconds = 12.5;
  report.machine = {{"cpu", "one"}, {"memory", "24 GiB"}};
  report.claims = {{"create in 60 ms", "1.5 ms", Verdict::kHolds, ""},
                   {"5 MB", "", Verdict::kNotMeasured, "no memory"}};
  report.measurements = {{"create", "warm", "ms", {1, 2.5, 1e-3}, "", true, false},
                         {"create", "another's", "1/s", {}, "a note", false, true}};
  report.curves = {{"memory", "PSS", "sandboxes", "KiB", {{1, 900}, {10, 800.5}}, false}};
  report.published = {{"somebody", "create", "60 ms", "bare metal", "a page", "2026-01"}};
  report.warnings = {"load 7"};
  return report;
}

TEST(ReportTest, BackFromJson) {
  auto parsed = Report::Parse(Example().ToJson());
  ASSERT_TRUE(parsed.ok()) << parsed.error().message();
  EXPECT_EQ(*parsed, Example());
}

TEST(ReportTest, Find) {
  Report report = Example();
  ASSERT_NE(report.Find("create", "warm"), nullptr);
  EXPECT_EQ(report.Find("create", "warm")->samples.size(), 3u);
  EXPECT_EQ(report.Find("memory", "warm"), nullptr);
}

std::string ErrorOf(const std::string& text) {
  auto parsed = Report::Parse(text);
  return parsed.ok() ? "" : parsed.error().message();
}

TEST(ReportTest, WhatIsNoReport) {
  EXPECT_EQ(ErrorOf("[]"), "a report is a JSON object");
  EXPECT_EQ(ErrorOf("{}"), "\"version\" is 0, this program reads 1");
  EXPECT_EQ(ErrorOf(R"({"version":2})"), "\"version\" is 2, this program reads 1");
  EXPECT_EQ(ErrorOf(R"({"version":1,"title":3})"), "\"title\" is no string");
  EXPECT_EQ(ErrorOf(R"({"version":1,"machine":{}})"), "\"machine\" is no list");
  EXPECT_EQ(ErrorOf(R"({"version":1,"machine":[1]})"), "\"machine\" has what is no object");
  EXPECT_EQ(ErrorOf(R"({"version":1,"claims":[{}]})"), "\"claims\" 1: \"verdict\" is none");
  EXPECT_EQ(ErrorOf(R"({"version":1,"measurements":[{},{"samples":["1"]}]})"),
            "\"measurements\" 2: \"samples\" has what is no finite number");
  EXPECT_EQ(ErrorOf(R"({"version":1,"measurements":[{"samples":[1e999]}]})"),
            "\"measurements\" 1: \"samples\" has what is no finite number");
  EXPECT_EQ(ErrorOf(R"({"version":1,"curves":[{"x":[1,2],"y":[1]}]})"),
            "\"curves\" 1: \"y\" is not as long as \"x\"");
  EXPECT_EQ(ErrorOf(R"({"version":1,"curves":[{"x":[2,1],"y":[1,1]}]})"),
            "\"curves\" 1: \"x\" does not rise");
  EXPECT_EQ(ErrorOf(R"({"version":1,"warnings":[1]})"), "\"warnings\" has what is no string");
  EXPECT_NE(ErrorOf(std::string(100, '[')), "");
  EXPECT_EQ(ErrorOf(R"({"version":1,"of another version":[1]})"), "");
}

TEST(ReportTest, TooManyEntries) {
  std::string list = "{}";
  for (int i = 0; i < 10'000; ++i) list += ",{}";
  EXPECT_EQ(ErrorOf(R"({"version":1,"machine":[)" + list + "]}"),
            "\"machine\" has 10001 entries, at most 10000 are read");
}

}  // namespace
}  // namespace cube::bench
