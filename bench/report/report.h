#ifndef CUBE_BENCH_REPORT_REPORT_H_
#define CUBE_BENCH_REPORT_REPORT_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace cube::bench {

// A thing that was done again and again.
struct Measurement {
  std::string group;  // what it stands beside: "create", "memory", ...
  std::string name;   // unique in its group
  std::string unit;   // "ms", "KiB", "MiB/s", "1/s"
  std::vector<double> samples;
  std::string note;
  // The least is the best, as for times; else the most.
  bool less_is_better = true;
  // It belongs to something else than Cube, measured in the same run.
  bool is_peer = false;

  bool operator==(const Measurement&) const = default;
};

// A figure that depends on another. Curves of one group share a picture.
struct Curve {
  struct Point {
    double x = 0, y = 0;
    bool operator==(const Point&) const = default;
  };
  std::string group, name;
  std::string x_label, y_label;
  std::vector<Point> points;  // x rises
  bool is_peer = false;

  bool operator==(const Curve&) const = default;
};

enum class Verdict { kHolds, kFails, kNotMeasured };

struct Claim {
  std::string text;
  std::string figure;  // what was measured, with its unit
  Verdict verdict = Verdict::kNotMeasured;
  std::string reason;  // why it fails or was not measured

  bool operator==(const Claim&) const = default;
};

// What others say of their products: read, not measured.
struct Published {
  std::string who, what, figure, hardware, source, date;

  bool operator==(const Published&) const = default;
};

struct Fact {
  std::string name, value;

  bool operator==(const Fact&) const = default;
};

// All that a run of benchmarks says. Times are in UTC.
struct Report {
  // Of what ToJson() writes.
  static constexpr int kVersion = 1;
  static constexpr size_t kMaxBytes = 64u << 20;

  std::string title;
  std::string started;  // ISO 8601
  double seconds = 0;   // that it took
  std::vector<Fact> machine;
  std::vector<Claim> claims;
  std::vector<Measurement> measurements;
  std::vector<Curve> curves;
  std::vector<Published> published;
  // What makes the figures doubtful: noise, something that could not be run.
  std::vector<std::string> warnings;

  // The measurement of that name, or nullptr.
  const Measurement* Find(std::string_view group, std::string_view name) const;

  std::string ToJson() const;
  // `text` may be anything. Errors name the field. Samples that are no finite numbers, and
  // unknown versions, are refused; fields unknown to this version are passed over.
  static Result<Report> Parse(std::string_view text);

  bool operator==(const Report&) const = default;
};

const char* VerdictName(Verdict verdict);

}  // namespace cube::bench

#endif  // CUBE_BENCH_REPORT_REPORT_H_
