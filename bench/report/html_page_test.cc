#include "bench/report/html_page.h"

#include <gtest/gtest.h>

namespace cube::bench {
namespace {

bool Has(const std::string& page, const std::string& what) {
  return page.find(what) != std::string::npos;
}

TEST(HtmlPageTest, AllOfAReport) {
  Report report;
  report.title = "<script>alert(1)</script>";
  report.started = "2026-01-02T03:04:05Z";
  report.machine = {{"cpu", "A & B"}};
  report.claims = {{"create in 60 ms", "2 ms", Verdict::kHolds, ""},
                   {"5 MB", "6 MB", Verdict::kFails, "the page cache"}};
  report.measurements = {{"create", "warm", "ms", {1, 2, 3, 4}, "a note", true, false},
                         {"create", "process", "ms", {1, 1, 1}, "", true, true},
                         {"memory", "own", "KiB", {900}, "", true, false}};
  report.curves = {{"memory of one", "PSS", "sandboxes", "KiB", {{1, 900}, {100, 800}}, false}};
  report.published = {{"somebody", "create", "60 ms", "bare metal", "a page", "2026"}};
  report.warnings = {"the load was 7"};
  std::string page = HtmlPage(report);
  EXPECT_FALSE(Has(page, "<script"));
  EXPECT_TRUE(Has(page, "<h1>&lt;script&gt;alert(1)&lt;/script&gt;</h1>"));
  EXPECT_TRUE(Has(page, "A &amp; B"));
  EXPECT_TRUE(Has(page, "<td class=\"holds\">holds</td>"));
  EXPECT_TRUE(Has(page, "<td class=\"fails\">fails</td><td>the page cache</td>"));
  EXPECT_TRUE(Has(page, "process (peer)"));
  EXPECT_TRUE(Has(page, "create: distributions"));
  EXPECT_TRUE(Has(page, "memory of one"));
  // One sample is no distribution.
  EXPECT_FALSE(Has(page, "memory: distributions"));
  EXPECT_TRUE(Has(page, "Published by others"));
  EXPECT_TRUE(Has(page, "the load was 7"));
  // It asks for nothing from elsewhere; the name of SVG is no address that is fetched.
  EXPECT_FALSE(Has(page, "src="));
  EXPECT_FALSE(Has(page, "href="));
}

TEST(HtmlPageTest, Nothing) {
  std::string page = HtmlPage({});
  EXPECT_FALSE(Has(page, "<table"));
  EXPECT_TRUE(Has(page, "</html>"));
}

}  // namespace
}  // namespace cube::bench
