#ifndef CUBE_BENCH_REPORT_PLOT_H_
#define CUBE_BENCH_REPORT_PLOT_H_

#include <string>
#include <string_view>
#include <vector>

#include "bench/report/report.h"

namespace cube::bench {

// A picture of lines over two axes.
struct Plot {
  struct Line {
    std::string name;
    std::vector<Curve::Point> points;  // x rises
    bool is_dashed = false;
  };
  std::string title, x_label, y_label;
  // The axis grows by factors; what is not above 0 is left out then.
  bool is_x_log = false, is_y_log = false;
  std::vector<Line> lines;
};

// The share of samples at or below each value, 0 to 1.
std::vector<Curve::Point> Cumulative(std::vector<double> samples);

// An <svg> element: no scripts, no styles from outside, colours that work on light and dark.
// Points that are no numbers or beyond 1e100 are left out, lines are thinned to what a picture can
// show.
std::string ToSvg(const Plot& plot);

// A number as people write it: "0.5", "12", "1,500", "2.5e+06".
std::string ShortNumber(double number);

// Text as it stands in HTML and in attributes.
std::string EscapeHtml(std::string_view text);

}  // namespace cube::bench

#endif  // CUBE_BENCH_REPORT_PLOT_H_
