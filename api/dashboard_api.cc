#include "api/dashboard_api.h"

#include <algorithm>

#include "api/dashboard/files.h"
#include "base/json_writer.h"
#include "pool/control_answers.h"
#include "pool/events.h"
#include "pool/node_network.h"

namespace cube::api {
namespace {

using Shared = std::shared_ptr<Call>;

// Of each sandbox, five minutes; a page that is open asks for what is new.
constexpr size_t kMostSamples = 60;

// Nothing but what the program has itself: no other host, no script within the page, no frame
// around it. xterm.js writes its colours and sizes into a <style>.
constexpr char kPolicy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; style-src-elem 'self' "
    "'unsafe-inline'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'";

Reply FileReply(std::string_view name) {
  for (const DashboardFile& file : DashboardFiles()) {
    if (file.name != name) continue;
    Reply reply = Reply::Json(200, std::string(file.bytes));
    reply.content_type = file.type;
    reply.headers = {{"Content-Security-Policy", kPolicy},
                     {"X-Content-Type-Options", "nosniff"},
                     {"Referrer-Policy", "no-referrer"},
                     {"Cache-Control", "no-cache"}};
    return reply;
  }
  return Reply::Error(404, "the dashboard has no such file");
}

// {"ID":[[ms, percent of its processors, bytes of memory], ...]}
std::string SamplesOf(const pool::Node& node, const MetricsSampler& sampler, int64_t since_ms) {
  JsonWriter json;
  json.BeginObject();
  for (const auto& [id, sandbox] : node.sandboxes()) {
    const auto* samples = sampler.Known(id);
    if (samples == nullptr) continue;
    json.Key(id).BeginArray();
    size_t first = samples->size() - std::min(samples->size(), kMostSamples);
    for (size_t i = first; i < samples->size(); ++i) {
      const SandboxSample& sample = (*samples)[i];
      if (sample.time_ms <= since_ms) continue;
      json.BeginArray().Int(sample.time_ms).Double(sample.cpu_percent);
      json.Uint(sample.memory_used).EndArray();
    }
    json.EndArray();
  }
  return json.EndObject().text();
}

// Of those sandboxes that have a network, what has gone in and out so far.
std::string NetworksOf(pool::NodeNetwork* network) {
  JsonWriter json;
  json.BeginArray();
  if (network == nullptr) return json.EndArray().text();
  for (const auto& [id, slot] : network->fabric().sandboxes()) {
    net::Traffic traffic = network->fabric().TrafficOf(slot);
    json.BeginObject().Key("id").String(id).Key("bytes_in").Uint(traffic.bytes_in);
    json.Key("bytes_out").Uint(traffic.bytes_out).EndObject();
  }
  return json.EndArray().text();
}

// The members of a control answer behind its "ok".
std::string Members(const std::string& answer) {
  constexpr std::string_view kOk = "{\"ok\":true,";
  return answer.substr(kOk.size(), answer.size() - kOk.size() - 1);
}

}  // namespace

Answer DashboardApi::Status(const Call& call) const {
  POOL_ASSIGN(std::optional<int64_t> since, call.QueryWhole("since", 0, INT64_MAX));
  std::string text = Format("{\"now_ms\":%lld,", static_cast<long long>(pool::WallClockMs()));
  text += "\"node\":" + pool::NodeAnswer(*node_, "") + ",";
  text += Members(pool::SandboxListAnswer(*node_, "")) + ",";
  text += Members(pool::PoolAnswer(*node_)) + ",";
  text += Members(pool::TemplateListAnswer(*node_)) + ",";
  text += "\"networks\":" + NetworksOf(node_->context().network.get()) + ",";
  text += "\"samples\":" + SamplesOf(*node_, *sampler_, since.value_or(0)) + "}";
  return Reply::Json(200, std::move(text));
}

void DashboardApi::AddTo(Router* router) {
  router->Add(
      "GET", "/", [](Shared) -> Task<Answer> { co_return FileReply("index.html"); },
      Access::kPublic);
  router->Add(
      "GET", "/dashboard/{file}",
      [](Shared call) -> Task<Answer> { co_return FileReply(call->path.at("file")); },
      Access::kPublic);
  router->Add("GET", "/cube/status",
              [this](Shared call) -> Task<Answer> { co_return Status(*call); });
}

}  // namespace cube::api
