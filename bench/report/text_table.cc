#include "bench/report/text_table.h"

#include <algorithm>
#include <set>

#include "bench/report/plot.h"
#include "bench/report/statistics.h"

namespace cube::bench {
namespace {

using Row = std::vector<std::string>;

// In characters as UTF-8 counts them.
size_t Width(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

std::string Line(const Row& row, const std::vector<size_t>& widths) {
  std::string line = "|";
  for (size_t i = 0; i < widths.size(); ++i) {
    const std::string cell = i < row.size() ? row[i] : "";
    const std::string space(widths[i] - std::min(widths[i], Width(cell)), ' ');
    line += i == 0 ? " " + cell + space + " |" : " " + space + cell + " |";
  }
  return line + "\n";
}

Row RowOf(const Measurement& one) {
  Summary summary = Summarise(one.samples);
  Interval interval = MedianInterval(one.samples);
  Row row = {one.name + (one.is_peer ? " (peer)" : "") + ", " + one.unit,
             std::to_string(summary.count)};
  for (double each : {summary.p50, summary.p90, summary.p95, summary.p99, summary.most}) {
    row.push_back(ShortNumber(each));
  }
  row.push_back(ShortNumber(interval.low) + " to " + ShortNumber(interval.high));
  return row;
}

std::string Measurements(const Report& report) {
  std::string text;
  std::set<std::string> done;
  for (const Measurement& first : report.measurements) {
    if (!done.insert(first.group).second) continue;
    std::vector<Row> rows;
    std::string notes;
    for (const Measurement& one : report.measurements) {
      if (one.group != first.group) continue;
      rows.push_back(RowOf(one));
      if (!one.note.empty()) notes += one.name + ": " + one.note + "\n";
    }
    text += "\n" + TextTable({first.group, "samples", "p50", "p90", "p95", "p99", "most",
                              "p50, 95 % sure"},
                             rows);
    text += notes;
  }
  return text;
}

std::vector<double> PlacesOf(const Curve& curve) {
  std::vector<double> places;
  for (const Curve::Point& point : curve.points) places.push_back(point.x);
  return places;
}

// Curves of a group with the same places share a table.
std::string Curves(const Report& report) {
  std::string text;
  std::set<std::pair<std::string, std::vector<double>>> done;
  for (const Curve& first : report.curves) {
    const std::vector<double> places = PlacesOf(first);
    if (!done.insert({first.group, places}).second) continue;
    Row head = {first.group + ", " + first.x_label};
    for (double place : places) head.push_back(ShortNumber(place));
    std::vector<Row> rows;
    for (const Curve& one : report.curves) {
      if (one.group != first.group || PlacesOf(one) != places) continue;
      rows.push_back({one.name + (one.is_peer ? " (peer), " : ", ") + one.y_label});
      for (const Curve::Point& point : one.points) rows.back().push_back(ShortNumber(point.y));
    }
    text += "\n" + TextTable(head, rows);
  }
  return text;
}

}  // namespace

std::string TextTable(const Row& head, const std::vector<Row>& rows) {
  std::vector<size_t> widths;
  for (const std::string& cell : head) widths.push_back(std::max<size_t>(Width(cell), 3));
  for (const Row& row : rows) {
    for (size_t i = 0; i < std::min(row.size(), widths.size()); ++i) {
      widths[i] = std::max(widths[i], Width(row[i]));
    }
  }
  Row rule;
  for (size_t width : widths) rule.push_back(std::string(width, '-'));
  std::string text = Line(head, widths) + Line(rule, widths);
  for (const Row& row : rows) text += Line(row, widths);
  return text;
}

std::string ReportAsText(const Report& report) {
  std::string text = report.title + "\n";
  for (const std::string& one : report.warnings) text += "warning: " + one + "\n";
  std::vector<Row> rows;
  for (const Fact& fact : report.machine) rows.push_back({fact.name, fact.value});
  if (!rows.empty()) text += "\n" + TextTable({"machine", ""}, rows);
  text += Measurements(report) + Curves(report);
  rows.clear();
  for (const Claim& claim : report.claims) {
    rows.push_back({claim.text, claim.figure, VerdictName(claim.verdict), claim.reason});
  }
  if (!rows.empty()) text += "\n" + TextTable({"claim", "measured", "verdict", ""}, rows);
  rows.clear();
  for (const Published& one : report.published) {
    rows.push_back({one.who + ": " + one.what, one.figure, one.hardware, one.source, one.date});
  }
  if (!rows.empty()) {
    text += "\n" + TextTable({"published by others", "figure", "hardware", "source", "date"}, rows);
  }
  return text;
}

}  // namespace cube::bench
