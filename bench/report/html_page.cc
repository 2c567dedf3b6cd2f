#include "bench/report/html_page.h"

#include <algorithm>
#include <set>

#include "bench/report/plot.h"
#include "bench/report/statistics.h"

namespace cube::bench {
namespace {

constexpr char kHead[] = R"(<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark }
body { font: 15px/1.5 sans-serif; max-width: 72em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0 }
th, td { padding: .25em .7em; border-bottom: 1px solid #8886; text-align: left }
td.n { text-align: right; font-variant-numeric: tabular-nums }
.holds { color: #0a7d32; font-weight: bold }
.fails { color: #c22; font-weight: bold }
.warning { border-left: 4px solid #d55e00; padding-left: 1em }
.note { opacity: .75 }
svg { max-width: 100%; height: auto }
</style>
)";

using Row = std::vector<std::string>;

std::string Cell(const std::string& text, bool is_number = false) {
  return std::string(is_number ? "<td class=\"n\">" : "<td>") + EscapeHtml(text) + "</td>";
}

std::string Head(const Row& names) {
  std::string row = "<table><tr>";
  for (const std::string& name : names) row += "<th>" + EscapeHtml(name) + "</th>";
  return row + "</tr>\n";
}

std::string Facts(const std::vector<Fact>& facts) {
  if (facts.empty()) return "";
  std::string html = "<h2>Machine</h2>\n<table>\n";
  for (const Fact& fact : facts) {
    html += "<tr>" + Cell(fact.name) + Cell(fact.value) + "</tr>\n";
  }
  return html + "</table>\n";
}

std::string Claims(const std::vector<Claim>& claims) {
  if (claims.empty()) return "";
  std::string html = "<h2>Claims</h2>\n" + Head({"claim", "measured", "", ""});
  for (const Claim& claim : claims) {
    const char* style = claim.verdict == Verdict::kHolds   ? "holds"
                        : claim.verdict == Verdict::kFails ? "fails"
                                                           : "note";
    html += "<tr>" + Cell(claim.text) + Cell(claim.figure);
    html += Format("<td class=\"%s\">%s</td>", style, VerdictName(claim.verdict));
    html += Cell(claim.reason) + "</tr>\n";
  }
  return html + "</table>\n";
}

std::string Samples(const Measurement& one) {
  Summary summary = Summarise(one.samples);
  Interval interval = MedianInterval(one.samples);
  std::string html = "<tr>" + Cell(one.name + (one.is_peer ? " (peer)" : ""));
  html += Cell(std::to_string(summary.count), true);
  for (double each :
       {summary.p50, summary.p90, summary.p95, summary.p99, summary.least, summary.most}) {
    html += Cell(ShortNumber(each), true);
  }
  html += Cell(ShortNumber(interval.low) + " to " + ShortNumber(interval.high), true);
  return html + Cell(one.unit) + "<td class=\"note\">" + EscapeHtml(one.note) + "</td></tr>\n";
}

std::string Distributions(const std::string& group, const std::vector<const Measurement*>& of) {
  std::set<std::string> units;
  Plot plot;
  plot.title = group + ": distributions";
  plot.y_label = "share at or below";
  plot.is_x_log = true;
  for (const Measurement* one : of) {
    units.insert(one->unit);
    // Two samples are no distribution.
    if (one->samples.size() > 2) {
      plot.lines.push_back({one->name, Cumulative(one->samples), one->is_peer});
    }
  }
  if (units.size() != 1 || plot.lines.empty()) return "";
  plot.x_label = *units.begin();
  return ToSvg(plot);
}

std::string Measurements(const Report& report) {
  std::string html;
  std::set<std::string> done;
  for (const Measurement& first : report.measurements) {
    if (!done.insert(first.group).second) continue;
    std::vector<const Measurement*> of;
    for (const Measurement& one : report.measurements) {
      if (one.group == first.group) of.push_back(&one);
    }
    html += "<h2>" + EscapeHtml(first.group) + "</h2>\n";
    html += Head({"", "samples", "p50", "p90", "p95", "p99", "least", "most",
                  "p50 with 95 % confidence", "unit", ""});
    for (const Measurement* one : of) html += Samples(*one);
    html += "</table>\n" + Distributions(first.group, of);
  }
  return html;
}

std::string Curves(const Report& report) {
  std::string html;
  std::set<std::string> done;
  for (const Curve& first : report.curves) {
    if (!done.insert(first.group).second) continue;
    Plot plot;
    plot.title = first.group;
    plot.x_label = first.x_label;
    plot.y_label = first.y_label;
    for (const Curve& one : report.curves) {
      if (one.group != first.group) continue;
      plot.lines.push_back({one.name, one.points, one.is_peer});
    }
    html += ToSvg(plot);
  }
  return html.empty() ? "" : "<h2>Curves</h2>\n" + html;
}

std::string PublishedBy(const std::vector<Published>& published) {
  if (published.empty()) return "";
  std::string html = "<h2>Published by others, not measured here</h2>\n" +
                     Head({"who", "what", "figure", "hardware", "source", "date"});
  for (const Published& one : published) {
    html += "<tr>" + Cell(one.who) + Cell(one.what) + Cell(one.figure) + Cell(one.hardware) +
            Cell(one.source) + Cell(one.date) + "</tr>\n";
  }
  return html + "</table>\n";
}

}  // namespace

std::string HtmlPage(const Report& report) {
  const std::string title = EscapeHtml(report.title);
  std::string html = kHead;
  html += "<title>" + title + "</title></head>\n<body><h1>" + title + "</h1>\n";
  html += Format("<p class=\"note\">%s, %s s</p>\n", EscapeHtml(report.started).c_str(),
                 ShortNumber(report.seconds).c_str());
  for (const std::string& one : report.warnings) {
    html += "<p class=\"warning\">" + EscapeHtml(one) + "</p>\n";
  }
  html += Claims(report.claims) + Facts(report.machine) + Measurements(report) + Curves(report) +
          PublishedBy(report.published);
  return html + "</body></html>\n";
}

}  // namespace cube::bench
