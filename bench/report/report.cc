#include "bench/report/report.h"

#include <boost/json.hpp>
#include <cmath>
#include <limits>

namespace cube::bench {
namespace {

namespace json = boost::json;

constexpr size_t kMaxEntries = 10'000;     // of a list of objects
constexpr size_t kMaxSamples = 1'000'000;  // of all measurements and curves
constexpr size_t kMaxDepth = 8;

constexpr Verdict kVerdicts[] = {Verdict::kHolds, Verdict::kFails, Verdict::kNotMeasured};

// Reads an object's fields, and remembers the first that is not what it has to be.
class Fields {
 public:
  Fields(const json::object& object, std::string where, std::string* error)
      : object_(object), where_(std::move(where)), error_(error) {}

  // Missing ones stay as they are.
  void Read(const char* name, std::string* to) {
    const json::value* value = object_.if_contains(name);
    if (value == nullptr) return;
    const json::string* text = value->if_string();
    if (text == nullptr) return Blame(name, "is no string");
    to->assign(text->data(), text->size());
  }
  void Read(const char* name, bool* to) {
    const json::value* value = object_.if_contains(name);
    if (value == nullptr) return;
    if (!value->is_bool()) return Blame(name, "is neither true nor false");
    *to = value->get_bool();
  }
  void Read(const char* name, double* to) {
    const json::value* value = object_.if_contains(name);
    if (value == nullptr) return;
    auto number = Number(*value);
    if (!number) return Blame(name, "is no finite number");
    *to = *number;
  }
  const json::array* List(const char* name, size_t most) {
    const json::value* value = object_.if_contains(name);
    if (value == nullptr) return nullptr;
    const json::array* list = value->if_array();
    if (list == nullptr) {
      Blame(name, "is no list");
    } else if (list->size() > most) {
      Blame(name, Format("has %zu entries, at most %zu are read", list->size(), most));
      list = nullptr;
    }
    return list;
  }
  void Blame(const char* name, const std::string& what) {
    if (error_->empty()) *error_ = Format("%s\"%.64s\" %s", where_.c_str(), name, what.c_str());
  }

  static std::optional<double> Number(const json::value& value) {
    json::error_code failed;
    double number = value.to_number<double>(failed);
    if (failed || !std::isfinite(number)) return std::nullopt;
    return number;
  }

 private:
  const json::object& object_;
  std::string where_;
  std::string* error_;
};

class Reader {
 public:
  explicit Reader(Report* report) : report_(report) {}

  // The first error, or "".
  std::string Read(const json::object& object) {
    Fields fields(object, "", &error_);
    double version = 0;
    fields.Read("version", &version);
    if (version != Report::kVersion) {
      return Format("\"version\" is %g, this program reads %d", version, Report::kVersion);
    }
    fields.Read("title", &report_->title);
    fields.Read("started", &report_->started);
    fields.Read("seconds", &report_->seconds);
    Each(&fields, "machine", &report_->machine);
    Each(&fields, "claims", &report_->claims);
    Each(&fields, "measurements", &report_->measurements);
    Each(&fields, "curves", &report_->curves);
    Each(&fields, "published", &report_->published);
    if (const json::array* list = fields.List("warnings", kMaxEntries)) {
      for (const json::value& one : *list) {
        if (!one.is_string()) return "\"warnings\" has what is no string";
        report_->warnings.emplace_back(one.get_string());
      }
    }
    return error_;
  }

 private:
  template <typename T>
  void Each(Fields* fields, const char* name, std::vector<T>* to) {
    const json::array* list = fields->List(name, kMaxEntries);
    if (list == nullptr) return;
    for (const json::value& one : *list) {
      const json::object* object = one.if_object();
      if (object == nullptr) return fields->Blame(name, "has what is no object");
      Fields inner(*object, Format("\"%s\" %zu: ", name, to->size() + 1), &error_);
      One(&inner, &to->emplace_back());
      if (!error_.empty()) return;
    }
  }

  void One(Fields* fields, Fact* fact) {
    fields->Read("name", &fact->name);
    fields->Read("value", &fact->value);
  }
  void One(Fields* fields, Claim* claim) {
    fields->Read("text", &claim->text);
    fields->Read("figure", &claim->figure);
    fields->Read("reason", &claim->reason);
    std::string verdict;
    fields->Read("verdict", &verdict);
    for (Verdict each : kVerdicts) {
      if (verdict == VerdictName(each)) {
        claim->verdict = each;
        return;
      }
    }
    fields->Blame("verdict", "is none");
  }
  void One(Fields* fields, Published* published) {
    fields->Read("who", &published->who);
    fields->Read("what", &published->what);
    fields->Read("figure", &published->figure);
    fields->Read("hardware", &published->hardware);
    fields->Read("source", &published->source);
    fields->Read("date", &published->date);
  }
  void One(Fields* fields, Measurement* measurement) {
    fields->Read("group", &measurement->group);
    fields->Read("name", &measurement->name);
    fields->Read("unit", &measurement->unit);
    fields->Read("note", &measurement->note);
    fields->Read("less_is_better", &measurement->less_is_better);
    fields->Read("is_peer", &measurement->is_peer);
    Numbers(fields, "samples", &measurement->samples);
  }
  void One(Fields* fields, Curve* curve) {
    fields->Read("group", &curve->group);
    fields->Read("name", &curve->name);
    fields->Read("x_label", &curve->x_label);
    fields->Read("y_label", &curve->y_label);
    fields->Read("is_peer", &curve->is_peer);
    std::vector<double> x, y;
    Numbers(fields, "x", &x);
    Numbers(fields, "y", &y);
    if (x.size() != y.size()) return fields->Blame("y", "is not as long as \"x\"");
    for (size_t i = 0; i < x.size(); ++i) {
      if (i > 0 && x[i] < x[i - 1]) return fields->Blame("x", "does not rise");
      curve->points.push_back({x[i], y[i]});
    }
  }

  void Numbers(Fields* fields, const char* name, std::vector<double>* to) {
    const json::array* list = fields->List(name, kMaxSamples - numbers_);
    if (list == nullptr) return;
    numbers_ += list->size();
    for (const json::value& one : *list) {
      auto number = Fields::Number(one);
      if (!number) return fields->Blame(name, "has what is no finite number");
      to->push_back(*number);
    }
  }

  Report* report_;
  size_t numbers_ = 0;
  std::string error_;
};

json::array Numbers(const std::vector<double>& from) {
  return json::array(from.begin(), from.end());
}

json::object ToObject(const Measurement& one) {
  return {{"group", one.group},
          {"name", one.name},
          {"unit", one.unit},
          {"note", one.note},
          {"less_is_better", one.less_is_better},
          {"is_peer", one.is_peer},
          {"samples", Numbers(one.samples)}};
}

json::object ToObject(const Curve& one) {
  json::array x, y;
  for (const Curve::Point& point : one.points) {
    x.push_back(point.x);
    y.push_back(point.y);
  }
  return {{"group", one.group},     {"name", one.name},       {"x_label", one.x_label},
          {"y_label", one.y_label}, {"is_peer", one.is_peer}, {"x", std::move(x)},
          {"y", std::move(y)}};
}

json::object ToObject(const Claim& one) {
  return {{"text", one.text},
          {"figure", one.figure},
          {"verdict", VerdictName(one.verdict)},
          {"reason", one.reason}};
}

json::object ToObject(const Published& one) {
  return {{"who", one.who},           {"what", one.what},     {"figure", one.figure},
          {"hardware", one.hardware}, {"source", one.source}, {"date", one.date}};
}

json::object ToObject(const Fact& one) { return {{"name", one.name}, {"value", one.value}}; }

template <typename T>
json::array ToArray(const std::vector<T>& from) {
  json::array list;
  for (const T& one : from) list.push_back(ToObject(one));
  return list;
}

}  // namespace

const char* VerdictName(Verdict verdict) {
  switch (verdict) {
    case Verdict::kHolds:
      return "holds";
    case Verdict::kFails:
      return "fails";
    case Verdict::kNotMeasured:
      return "not measured";
  }
  __builtin_unreachable();
}

const Measurement* Report::Find(std::string_view group, std::string_view name) const {
  for (const Measurement& one : measurements) {
    if (one.group == group && one.name == name) return &one;
  }
  return nullptr;
}

std::string Report::ToJson() const {
  json::array doubts;
  for (const std::string& one : warnings) doubts.emplace_back(one);
  json::object object = {{"version", kVersion},
                         {"title", title},
                         {"started", started},
                         {"seconds", seconds},
                         {"machine", ToArray(machine)},
                         {"claims", ToArray(claims)},
                         {"measurements", ToArray(measurements)},
                         {"curves", ToArray(curves)},
                         {"published", ToArray(published)},
                         {"warnings", std::move(doubts)}};
  return json::serialize(object) + "\n";
}

Result<Report> Report::Parse(std::string_view text) {
  if (text.size() > kMaxBytes) {
    return Errorf("a report of %zu bytes: at most %zu are read", text.size(), kMaxBytes);
  }
  json::parse_options options;
  options.max_depth = kMaxDepth;
  json::error_code failed;
  json::value value = json::parse(json::string_view(text.data(), text.size()), failed, {}, options);
  if (failed) return Errorf("no JSON: %s", failed.message().c_str());
  const json::object* object = value.if_object();
  if (object == nullptr) return Errorf("a report is a JSON object");
  Report report;
  std::string error = Reader(&report).Read(*object);
  if (!error.empty()) return Error(std::move(error));
  return report;
}

}  // namespace cube::bench
