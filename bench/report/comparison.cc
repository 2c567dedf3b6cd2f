#include "bench/report/comparison.h"

#include <cmath>

#include "bench/report/plot.h"
#include "bench/report/text_table.h"

namespace cube::bench {
namespace {

Compared CompareOne(const Measurement& before, const Measurement& after, double least) {
  Compared compared = {after.group, after.name, after.unit};
  compared.before = Summarise(before.samples).p50;
  compared.after = Summarise(after.samples).p50;
  compared.ratio = RatioInterval(before.samples, after.samples);
  if (before.samples.empty() || after.samples.empty() || before.unit != after.unit) {
    compared.change = Change::kMissing;
    return compared;
  }
  if (compared.before == 0) return compared;
  const bool is_sure = compared.ratio.low > 1 || compared.ratio.high < 1;
  const double by = compared.after / compared.before - 1;
  if (!is_sure || std::fabs(by) <= least) return compared;
  compared.change = (by < 0) == after.less_is_better ? Change::kBetter : Change::kWorse;
  return compared;
}

std::string ValueOf(const std::vector<Fact>& facts, const std::string& name) {
  for (const Fact& fact : facts) {
    if (fact.name == name) return fact.value;
  }
  return "";
}

}  // namespace

std::vector<Compared> Compare(const Report& before, const Report& after, double least) {
  std::vector<Compared> all;
  for (const Measurement& now : after.measurements) {
    const Measurement* old = before.Find(now.group, now.name);
    const Measurement none = {now.group, now.name, now.unit};
    all.push_back(CompareOne(old == nullptr ? none : *old, now, least));
  }
  for (const Measurement& old : before.measurements) {
    if (after.Find(old.group, old.name) != nullptr) continue;
    all.push_back(CompareOne(old, {old.group, old.name, old.unit}, least));
  }
  return all;
}

std::vector<std::string> DifferencesOfMachines(const Report& before, const Report& after) {
  std::vector<std::string> differences;
  for (const Fact& fact : after.machine) {
    std::string old = ValueOf(before.machine, fact.name);
    if (old != fact.value) {
      differences.push_back(fact.name + ": \"" + old + "\" before, \"" + fact.value + "\" after");
    }
  }
  return differences;
}

const char* ChangeName(Change change) {
  switch (change) {
    case Change::kSame:
      return "same";
    case Change::kBetter:
      return "better";
    case Change::kWorse:
      return "WORSE";
    case Change::kMissing:
      return "not in both";
  }
  __builtin_unreachable();
}

std::string ComparisonAsText(const std::vector<Compared>& compared, bool all) {
  std::vector<std::vector<std::string>> rows;
  for (const Compared& one : compared) {
    if (!all && one.change == Change::kSame) continue;
    rows.push_back({one.group + ": " + one.name + ", " + one.unit, ShortNumber(one.before),
                    ShortNumber(one.after),
                    ShortNumber(one.ratio.low) + " to " + ShortNumber(one.ratio.high),
                    ChangeName(one.change)});
  }
  return TextTable({"", "before", "after", "ratio, 95 % sure", ""}, rows);
}

}  // namespace cube::bench
