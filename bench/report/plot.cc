#include "bench/report/plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace cube::bench {
namespace {

constexpr double kWidth = 640, kHeight = 360;
constexpr double kLeft = 64, kRight = 16, kTop = 36, kBottom = 48;
constexpr size_t kMaxPoints = 400;  // of a line
constexpr size_t kMaxLines = 24;
constexpr int kTicks = 6;
constexpr double kLineHeight = 15;
constexpr double kFarthest = 1e100;  // from zero, and that to zero: no picture has more
// Told apart by people who see few colours, too (Okabe and Ito).
constexpr std::array<const char*, 8> kColours = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                 "#e69f00", "#56b4e9", "#7f7f7f", "#b0a000"};

// From what is measured to where it is drawn.
class Axis {
 public:
  Axis(bool is_log, double from, double to) : is_log_(is_log), from_(from), to_(to) {}

  void Include(double value) {
    if (!Shows(value)) return;
    low_ = std::min(low_, value);
    high_ = std::max(high_, value);
  }
  // After all have been included: from zero, or from a power of ten.
  void Settle() {
    if (low_ > high_) {
      low_ = is_log_ ? 1 : 0;
      high_ = 1;
    }
    if (is_log_) {
      low_ = std::pow(10, std::floor(std::log10(low_)));
      high_ = std::pow(10, std::ceil(std::log10(high_)));
      if (high_ <= low_) high_ = low_ * 10;
      return;
    }
    low_ = std::min(low_, 0.0);
    if (high_ <= low_) high_ = low_ + 1;
    high_ = std::ceil(high_ / Step()) * Step();
  }
  bool Shows(double value) const {
    return std::fabs(value) <= kFarthest && (!is_log_ || value >= 1 / kFarthest);
  }
  double Place(double value) const {
    double share =
        is_log_ ? (std::log10(value) - std::log10(low_)) / (std::log10(high_) - std::log10(low_))
                : (value - low_) / (high_ - low_);
    return std::lerp(from_, to_, std::clamp(share, 0.0, 1.0));
  }
  std::vector<double> Ticks() const {
    std::vector<double> ticks;
    if (is_log_) {
      double decades = std::round(std::log10(high_) - std::log10(low_));
      double factor = std::pow(10, std::max(1.0, std::ceil(decades / kTicks)));
      double tick = low_;
      for (int i = 0; i <= kTicks && tick <= high_ * 1.001; ++i, tick *= factor) {
        ticks.push_back(tick);
      }
      return ticks;
    }
    for (int i = 0; i <= 2 * kTicks && i * Step() + low_ <= high_; ++i) {
      ticks.push_back(i * Step() + low_);
    }
    return ticks;
  }

 private:
  // 1, 2 or 5 times a power of ten.
  double Step() const {
    double rough = (high_ - low_) / kTicks;
    double power = std::pow(10, std::floor(std::log10(rough)));
    for (double factor : {1.0, 2.0, 5.0}) {
      if (rough <= factor * power) return factor * power;
    }
    return 10 * power;
  }

  bool is_log_;
  double from_, to_;
  double low_ = std::numeric_limits<double>::infinity();
  double high_ = -std::numeric_limits<double>::infinity();
};

std::string Text(double x, double y, const char* anchor, const std::string& text,
                 const char* more = "") {
  return Format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>%s</text>\n", x, y, anchor, more,
                EscapeHtml(text).c_str());
}

std::string Frame(const Plot& plot, const Axis& x, const Axis& y) {
  const double bottom = kHeight - kBottom, right = kWidth - kRight;
  std::string svg;
  for (double tick : x.Ticks()) {
    double place = x.Place(tick);
    svg += Format("<path d=\"M%.1f %.1fV%.1f\" stroke=\"currentColor\" opacity=\"0.12\"/>\n", place,
                  kTop, bottom);
    svg += Text(place, bottom + 16, "middle", ShortNumber(tick));
  }
  for (double tick : y.Ticks()) {
    double place = y.Place(tick);
    svg += Format("<path d=\"M%.1f %.1fH%.1f\" stroke=\"currentColor\" opacity=\"0.12\"/>\n", kLeft,
                  place, right);
    svg += Text(kLeft - 6, place + 4, "end", ShortNumber(tick));
  }
  svg += Format("<path d=\"M%.1f %.1fV%.1fH%.1f\" stroke=\"currentColor\" fill=\"none\"/>\n", kLeft,
                kTop, bottom, right);
  svg += Text(kWidth / 2, 18, "middle", plot.title, " font-weight=\"bold\"");
  svg += Text((kLeft + right) / 2, kHeight - 10, "middle", plot.x_label);
  svg += Text(16, (kTop + bottom) / 2, "middle", plot.y_label,
              Format(" transform=\"rotate(-90 16 %.1f)\"", (kTop + bottom) / 2).c_str());
  return svg;
}

std::string Path(const Plot::Line& line, const Axis& x, const Axis& y, const char* colour) {
  std::vector<Curve::Point> points;
  for (const Curve::Point& point : line.points) {
    if (x.Shows(point.x) && y.Shows(point.y)) points.push_back(point);
  }
  if (points.empty()) return "";
  const size_t step = (points.size() + kMaxPoints - 1) / kMaxPoints;
  std::string path, marks;
  const bool has_marks = points.size() <= 12;
  for (size_t i = 0; i < points.size(); i += step) {
    // The last one is always there.
    const Curve::Point& point = points[i + step >= points.size() ? points.size() - 1 : i];
    double px = x.Place(point.x), py = y.Place(point.y);
    path += Format("%c%.1f %.1f", path.empty() ? 'M' : 'L', px, py);
    if (has_marks) {
      marks += Format("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", px, py, colour);
    }
  }
  return Format("<path d=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"%s/>\n", path.c_str(),
                colour, line.is_dashed ? " stroke-dasharray=\"6 4\"" : "") +
         marks;
}

}  // namespace

std::string EscapeHtml(std::string_view text) {
  std::string escaped;
  for (char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

std::string ShortNumber(double number) {
  if (std::fabs(number) >= 1000 && std::fabs(number) < 1e6) {
    std::string digits;
    for (long rest = std::lround(std::fabs(number)); rest > 0; rest /= 1000) {
      std::string group = Format(rest >= 1000 ? "%03ld" : "%ld", rest % 1000);
      digits = digits.empty() ? group : group + "," + digits;
    }
    return number < 0 ? "-" + digits : digits;
  }
  return Format("%.3g", number);
}

std::vector<Curve::Point> Cumulative(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  std::vector<Curve::Point> points;
  for (size_t i = 0; i < samples.size(); ++i) {
    points.push_back(
        {samples[i], static_cast<double>(i + 1) / static_cast<double>(samples.size())});
  }
  return points;
}

std::string ToSvg(const Plot& plot) {
  Axis x(plot.is_x_log, kLeft, kWidth - kRight);
  Axis y(plot.is_y_log, kHeight - kBottom, kTop);
  const size_t count = std::min(plot.lines.size(), kMaxLines);
  for (size_t i = 0; i < count; ++i) {
    for (const Curve::Point& point : plot.lines[i].points) {
      // What one axis does not show the other need not make room for.
      if (!x.Shows(point.x) || !y.Shows(point.y)) continue;
      x.Include(point.x);
      y.Include(point.y);
    }
  }
  x.Settle();
  y.Settle();
  const double height = kHeight + kLineHeight * static_cast<double>(count) + 8;
  std::string svg = Format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
      "font-family=\"sans-serif\" font-size=\"12\" fill=\"currentColor\" role=\"img\">\n",
      kWidth, height, kWidth);
  svg += Frame(plot, x, y);
  for (size_t i = 0; i < count; ++i) {
    const char* colour = kColours[i % kColours.size()];
    svg += Path(plot.lines[i], x, y, colour);
    double place = kHeight + kLineHeight * static_cast<double>(i);
    svg += Format("<path d=\"M%.1f %.1fh24\" stroke=\"%s\" stroke-width=\"2\"%s/>\n", kLeft,
                  place + 4, colour, plot.lines[i].is_dashed ? " stroke-dasharray=\"6 4\"" : "");
    svg += Text(kLeft + 32, place + 8, "start", plot.lines[i].name);
  }
  return svg + "</svg>\n";
}

}  // namespace cube::bench
