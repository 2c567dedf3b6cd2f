#include "bench/report/plot.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace cube::bench {
namespace {

size_t Count(const std::string& text, const std::string& what) {
  size_t count = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

Plot Example() {
  Plot plot;
  plot.title = "a < b";
  plot.x_label = "ms";
  plot.lines = {{"one", {{1, 10}, {10, 20}, {100, 30}}, false}, {"two", {{2, 5}, {50, 25}}, true}};
  return plot;
}

TEST(PlotTest, Numbers) {
  EXPECT_EQ(ShortNumber(0.5), "0.5");
  EXPECT_EQ(ShortNumber(12), "12");
  EXPECT_EQ(ShortNumber(1500), "1,500");
  EXPECT_EQ(ShortNumber(-123456), "-123,456");
  EXPECT_EQ(ShortNumber(2.5e6), "2.5e+06");
}

TEST(PlotTest, Shares) {
  auto points = Cumulative({3, 1, 2, 2});
  ASSERT_EQ(points.size(), 4u);
  EXPECT_EQ(points[0], (Curve::Point{1, 0.25}));
  EXPECT_EQ(points[3], (Curve::Point{3, 1}));
}

TEST(PlotTest, LinesMarksAndNames) {
  std::string svg = ToSvg(Example());
  EXPECT_EQ(Count(svg, "<circle"), 5u);
  EXPECT_EQ(Count(svg, "stroke-dasharray"), 2u);
  EXPECT_NE(svg.find("a &lt; b"), std::string::npos);
  EXPECT_NE(svg.find(">two</text>"), std::string::npos);
  EXPECT_EQ(svg.substr(svg.size() - 7), "</svg>\n");
}

// On a logarithmic axis 10 is as far from 1 as 100 from 10.
TEST(PlotTest, Logarithms) {
  Plot plot = Example();
  plot.is_x_log = true;
  plot.lines.resize(1);
  std::string svg = ToSvg(plot);
  size_t at = svg.find("<circle");
  double x[3];
  for (double& each : x) {
    ASSERT_EQ(sscanf(svg.c_str() + at, "<circle cx=\"%lf\"", &each), 1);
    at = svg.find("<circle", at + 1);
  }
  EXPECT_NEAR(x[1] - x[0], x[2] - x[1], 0.2);
}

TEST(PlotTest, LongLinesAreThinnedAndEndWhereTheyEnd) {
  Plot plot;
  plot.lines.resize(1);
  for (int i = 0; i <= 100'000; ++i) plot.lines[0].points.push_back({double(i), double(i)});
  std::string svg = ToSvg(plot);
  EXPECT_LT(svg.size(), 20'000u);
  // Top right of the frame.
  EXPECT_NE(svg.find("L624.0 36.0\""), std::string::npos);
}

TEST(PlotTest, WhatCannotBeDrawn) {
  const double kInfinity = std::numeric_limits<double>::infinity();
  const double kMost = std::numeric_limits<double>::max();
  for (bool is_log : {false, true}) {
    Plot plot;
    plot.is_x_log = plot.is_y_log = is_log;
    plot.lines = {{"none", {}, false},
                  {"odd", {{-1, 0}, {0, NAN}, {kInfinity, 1}}, false},
                  {"far", {{-kMost, -kMost}, {5e-324, 5e-324}, {kMost, kMost}}, false}};
    std::string svg = ToSvg(plot);
    EXPECT_EQ(svg.find("nan"), std::string::npos) << svg;
    EXPECT_EQ(svg.find("inf"), std::string::npos) << svg;
    EXPECT_LT(svg.size(), 20'000u);
  }
}

}  // namespace
}  // namespace cube::bench
