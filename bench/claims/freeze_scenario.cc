#include "bench/claims/freeze_scenario.h"

#include <boost/json.hpp>
#include <functional>

#include "bench/claims/guest_command.h"
#include "bench/claims/stopwatch.h"
#include "bench/report/statistics.h"

namespace cube::bench {
namespace {

namespace json = boost::json;

constexpr uint64_t kForks = 10;

std::string TextAt(const json::object& answer, const char* outer, const char* name) {
  const json::value* value = answer.if_contains(outer);
  const json::object* object = value == nullptr ? nullptr : value->if_object();
  const json::value* text = object == nullptr ? nullptr : object->if_contains(name);
  return text != nullptr && text->is_string() ? std::string(text->get_string()) : "";
}

class Freezes {
 public:
  Freezes(TrialClient* client, uint64_t mib, uint64_t rounds, Report* report)
      : client_(client), mib_(mib), rounds_(rounds), report_(report) {}

  Status Measure() {
    CUBE_ASSIGN(sandbox_, client_->Create(TrialNode::kCold));
    if (mib_ != 0) {
      CUBE_ASSIGN(std::string ignored,
                  RunInGuest(sandbox_.vsock,
                             {"/bin/dd", "if=/dev/urandom", "of=/dev/shm/bench", "bs=1M",
                              Format("count=%llu", static_cast<unsigned long long>(mib_))}));
    }
    CUBE_TRY(Forks());
    CUBE_TRY(Snapshots());
    CUBE_TRY(Pauses());
    return client_->Kill(sandbox_.id);
  }

 private:
  Status Forks() {
    return Time("fork of 10", [this](double* ms) -> Status {
      Stopwatch watch;
      CUBE_ASSIGN(json::object answer,
                  client_->Ask({{"op", "sandbox.fork"}, {"id", sandbox_.id}, {"count", kForks}}));
      *ms = watch.Ms();
      const json::value* clones = answer.if_contains("sandboxes");
      if (clones == nullptr || !clones->is_array()) return Errorf("a fork without clones");
      for (const json::value& each : clones->get_array()) {
        const json::value* id = each.is_object() ? each.get_object().if_contains("id") : nullptr;
        if (id == nullptr || !id->is_string()) return Errorf("a clone without an id");
        CUBE_TRY(client_->Kill(std::string(id->get_string())));
      }
      return OkStatus();
    });
  }

  // Each is rolled back to and deleted.
  Status Snapshots() {
    std::vector<double> rollbacks;
    CUBE_TRY(Time("snapshot", [&](double* ms) -> Status {
      Stopwatch watch;
      CUBE_ASSIGN(json::object answer,
                  client_->Ask({{"op", "sandbox.snapshot"}, {"id", sandbox_.id}}));
      *ms = watch.Ms();
      const std::string id = TextAt(answer, "snapshot", "id");
      watch = Stopwatch();
      CUBE_ASSIGN(answer, client_->Ask(
                              {{"op", "sandbox.rollback"}, {"id", sandbox_.id}, {"snapshot", id}}));
      rollbacks.push_back(watch.Ms());
      CUBE_ASSIGN(answer, client_->Ask({{"op", "snapshot.delete"}, {"id", id}}));
      return OkStatus();
    }));
    Add("rollback", std::move(rollbacks));
    return OkStatus();
  }

  // The first of them writes all that was written, the next what has changed since.
  Status Pauses() {
    std::vector<double> resumes;
    CUBE_TRY(Time("pause", [&](double* ms) -> Status {
      Stopwatch watch;
      CUBE_TRY(client_->Do("sandbox.pause", sandbox_.id));
      *ms = watch.Ms();
      watch = Stopwatch();
      CUBE_TRY(client_->Do("sandbox.resume", sandbox_.id));
      resumes.push_back(watch.Ms());
      return OkStatus();
    }));
    Add("resume", std::move(resumes));
    return OkStatus();
  }

  Status Time(const char* name, const std::function<Status(double*)>& once) {
    std::vector<double> samples;
    for (uint64_t round = 0; round < rounds_; ++round) {
      double ms = 0;
      Status status = once(&ms);
      if (!status.ok()) {
        return Errorf("%s, round %llu, %llu MiB: %s", name, static_cast<unsigned long long>(round),
                      static_cast<unsigned long long>(mib_), status.error().message().c_str());
      }
      samples.push_back(ms);
    }
    Add(name, std::move(samples));
    return OkStatus();
  }

  void Add(const std::string& name, std::vector<double> samples) {
    const auto x = static_cast<double>(mib_);
    // A first pause or snapshot is the one that has it all.
    const double y =
        name == "pause" || name == "snapshot" ? samples.front() : Summarise(samples).p50;
    Curve* curve = nullptr;
    for (Curve& each : report_->curves) {
      if (each.group == kFreezeGroup && each.name == name) curve = &each;
    }
    if (curve == nullptr) {
      report_->curves.push_back({kFreezeGroup, name, "MiB written", "ms", {}, false});
      curve = &report_->curves.back();
    }
    curve->points.push_back({x, y});
    report_->measurements.push_back(
        {kFreezeGroup, Format("%s, %llu MiB", name.c_str(), static_cast<unsigned long long>(mib_)),
         "ms", std::move(samples)});
  }

  TrialClient* client_;
  uint64_t mib_, rounds_;
  Report* report_;
  TrialSandbox sandbox_;
};

}  // namespace

Status MeasureFreezes(const TrialOptions& options, TrialNode* node, Report* report) {
  CUBE_ASSIGN(TrialClient client, node->Connect());
  std::vector<uint64_t> sizes = {0, 10, 50, 100};
  if (options.is_full) sizes.insert(sizes.end(), {200, 500});
  for (uint64_t mib : sizes) {
    // /dev/shm is half of the memory.
    if (mib * 2 > options.memory_mib) break;
    CUBE_TRY(Freezes(&client, mib, options.Rounds(5), report).Measure());
  }
  return OkStatus();
}

}  // namespace cube::bench
