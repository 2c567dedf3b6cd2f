#include "bench/claims/api_scenario.h"

#include <algorithm>
#include <boost/json.hpp>
#include <vector>

#include "bench/claims/host.h"
#include "bench/claims/http_connection.h"
#include "bench/claims/stopwatch.h"
#include "bench/claims/together.h"
#include "bench/report/statistics.h"

namespace cube::bench {
namespace {

namespace json = boost::json;

constexpr char kJson[] = "Host: localhost\r\nContent-Type: application/json\r\n";
constexpr char kPlain[] = "Host: localhost\r\n";
constexpr int kEnvdPort = 49983;
constexpr uint64_t kWarmUp = 3;
constexpr uint64_t kLive = 300;
// What a live sandbox has to have room for.
constexpr int64_t kRoomKib = 8 * 1024;
constexpr uint64_t kHealths = 4000;

Measurement Named(const char* name, const char* unit, const char* note = "") {
  return {kApiGroup, name, unit, {}, note, true, false};
}

Status Expect(const HttpAnswer& answer, unsigned status, const char* what) {
  if (answer.status == status) return OkStatus();
  return Errorf("%s: status %u, not %u: %.300s", what, answer.status, status, answer.body.c_str());
}

// The id of the sandbox.
Result<std::string> Create(HttpConnection* http) {
  CUBE_ASSIGN(HttpAnswer answer,
              http->Ask("POST", "/sandboxes", kJson, "{\"templateID\":\"warm\",\"timeout\":3600}"));
  CUBE_TRY(Expect(answer, 201, "POST /sandboxes"));
  json::error_code failed;
  json::value value = json::parse(answer.body, failed);
  const json::value* id =
      failed || !value.is_object() ? nullptr : value.get_object().if_contains("sandboxID");
  if (id == nullptr || !id->is_string()) return Errorf("POST /sandboxes: no sandboxID");
  return std::string(id->get_string());
}

Status Kill(HttpConnection* http, const std::string& id) {
  CUBE_ASSIGN(HttpAnswer answer, http->Ask("DELETE", "/sandboxes/" + id, kPlain));
  return Expect(answer, 204, "DELETE /sandboxes");
}

class ApiTrial {
 public:
  ApiTrial(const TrialOptions& options, TrialNode* node, TrialClient client, std::string address,
           HttpConnection http, Report* report)
      : options_(options),
        node_(node),
        client_(std::move(client)),
        address_(std::move(address)),
        http_(std::move(http)),
        report_(report) {}

  Status Creates() {
    Measurement over = Named(kApiCreate, "ms", "until 201 has been read");
    Measurement socket = Named("the same by the control socket", "ms");
    for (uint64_t round = 0; round < kWarmUp + options_.Rounds(40); ++round) {
      CUBE_TRY(node_->AwaitPool());
      Stopwatch watch;
      CUBE_ASSIGN(std::string id, Create(&http_));
      const double http_ms = watch.Ms();
      CUBE_TRY(Kill(&http_, id));
      CUBE_TRY(node_->AwaitPool());
      watch = Stopwatch();
      CUBE_ASSIGN(TrialSandbox sandbox, client_.Create(TrialNode::kWarm));
      const double socket_ms = watch.Ms();
      CUBE_TRY(client_.Kill(sandbox.id));
      if (round < kWarmUp) continue;
      over.samples.push_back(http_ms);
      socket.samples.push_back(socket_ms);
    }
    Keep(std::move(over));
    Keep(std::move(socket));
    return OkStatus();
  }

  Status AtOnce(uint64_t count) {
    Measurement all = Named("", "ms");
    all.name =
        Format("%llu creates at once, until the last 201", static_cast<unsigned long long>(count));
    for (uint64_t round = 0; round < options_.Rounds(3); ++round) {
      CUBE_TRY(node_->AwaitPool());
      std::vector<std::string> ids;
      double last_ms = 0;
      Together together(count);
      Stopwatch watch;
      for (uint64_t i = 0; i < count; ++i) {
        together.Add([this] { return HttpConnection::OpenTcp(address_); },
                     [&](HttpConnection* http) -> Status {
                       CUBE_ASSIGN(std::string id, Create(http));
                       std::lock_guard<std::mutex> guard(*together.mutex());
                       last_ms = std::max(last_ms, watch.Ms());
                       ids.push_back(id);
                       return OkStatus();
                     });
      }
      watch = Stopwatch();
      together.LetGo();
      CUBE_TRY(together.Join());
      all.samples.push_back(last_ms);
      for (const std::string& id : ids) CUBE_TRY(Kill(&http_, id));
    }
    Keep(std::move(all));
    return OkStatus();
  }

  // envd's own least request.
  Status Proxy() {
    CUBE_ASSIGN(TrialSandbox sandbox, client_.Create(TrialNode::kCold));
    CUBE_ASSIGN(HttpConnection straight, HttpConnection::OpenGuestPort(sandbox.vsock, kEnvdPort));
    const std::string host = Format("Host: %d-%s.cube\r\n", kEnvdPort, sandbox.id.c_str());
    Measurement proxy = Named("GET /health of a sandbox, by the proxy", "ms");
    Measurement socket = Named("the same over its socket", "ms");
    for (uint64_t round = 0; round < 20 + options_.Rounds(200); ++round) {
      Stopwatch watch;
      CUBE_ASSIGN(HttpAnswer answer, http_.Ask("GET", "/health", host));
      const double proxy_ms = watch.Ms();
      CUBE_TRY(Expect(answer, 204, "GET /health by the proxy"));
      watch = Stopwatch();
      CUBE_ASSIGN(answer, straight.Ask("GET", "/health", kPlain));
      const double socket_ms = watch.Ms();
      CUBE_TRY(Expect(answer, 204, "GET /health over the socket"));
      if (round < 20) continue;
      proxy.samples.push_back(proxy_ms);
      socket.samples.push_back(socket_ms);
    }
    Keep(std::move(proxy));
    Keep(std::move(socket));
    return client_.Kill(sandbox.id);
  }

  Status Health() {
    Measurement rate = Named(kApiHealth, "1/s", "by the processor time it took");
    Measurement each = Named("GET /health, one after another", "ms");
    rate.less_is_better = false;
    for (uint64_t round = 0; round < options_.Rounds(3); ++round) {
      const double before = ProcessorMs(node_->pid());
      for (uint64_t i = 0; i < kHealths; ++i) {
        Stopwatch watch;
        CUBE_ASSIGN(HttpAnswer answer, http_.Ask("GET", "/health", kPlain));
        each.samples.push_back(watch.Ms());
        if (answer.status / 100 != 2) CUBE_TRY(Expect(answer, 204, "GET /health"));
      }
      const double took = ProcessorMs(node_->pid()) - before;
      if (took > 0) rate.samples.push_back(static_cast<double>(kHealths) / (took / 1000));
    }
    Keep(std::move(rate));
    Keep(std::move(each));
    return OkStatus();
  }

  Status List() {
    const auto room = static_cast<uint64_t>(MemoryOfHost()["MemAvailable"] / kRoomKib);
    const uint64_t count = std::min(kLive, room);
    std::vector<std::string> ids;
    for (uint64_t i = 0; i < count; ++i) {
      CUBE_ASSIGN(TrialSandbox sandbox, client_.Create(TrialNode::kCold));
      ids.push_back(sandbox.id);
    }
    Measurement list = Named("", "ms", "one page of 100");
    list.name = Format("GET /v2/sandboxes, %llu live", static_cast<unsigned long long>(count));
    Measurement all = Named("", "ms", "all in one answer");
    all.name = count == kLive
                   ? kApiList
                   : Format("GET /sandboxes, %llu live", static_cast<unsigned long long>(count));
    for (uint64_t round = 0; round < 3 + options_.Rounds(20); ++round) {
      Stopwatch watch;
      CUBE_ASSIGN(HttpAnswer answer, http_.Ask("GET", "/v2/sandboxes?limit=100", kPlain));
      const double page_ms = watch.Ms();
      CUBE_TRY(Expect(answer, 200, "GET /v2/sandboxes"));
      watch = Stopwatch();
      CUBE_ASSIGN(answer, http_.Ask("GET", "/sandboxes", kPlain));
      const double all_ms = watch.Ms();
      CUBE_TRY(Expect(answer, 200, "GET /sandboxes"));
      if (round < 3) continue;
      list.samples.push_back(page_ms);
      all.samples.push_back(all_ms);
    }
    Keep(std::move(list));
    Keep(std::move(all));
    for (const std::string& id : ids) CUBE_TRY(client_.Kill(id));
    return OkStatus();
  }

 private:
  void Keep(Measurement one) { report_->measurements.push_back(std::move(one)); }

  const TrialOptions& options_;
  TrialNode* node_;
  TrialClient client_;
  std::string address_;
  HttpConnection http_;
  Report* report_;
};

}  // namespace

Status MeasureApi(const TrialOptions& options, TrialNode* node, Report* report) {
  CUBE_ASSIGN(TrialClient client, node->Connect());
  CUBE_ASSIGN(std::string address, node->HttpAddress());
  CUBE_ASSIGN(HttpConnection http, HttpConnection::OpenTcp(address));
  ApiTrial trial(options, node, std::move(client), address, std::move(http), report);
  CUBE_TRY(trial.Creates());
  CUBE_TRY(trial.AtOnce(20));
  CUBE_TRY(trial.AtOnce(50));
  CUBE_TRY(trial.Proxy());
  CUBE_TRY(trial.Health());
  return trial.List();
}

}  // namespace cube::bench
