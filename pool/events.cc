#include "pool/events.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <vector>

#include "base/json_writer.h"

namespace cube::pool {
namespace {

JsonWriter Begin(const char* event) {
  JsonWriter json;
  json.BeginObject().Key("time_ms").Int(WallClockMs()).Key("event").String(event);
  return json;
}

}  // namespace

int64_t WallClockMs() {
  using std::chrono::duration_cast;
  using std::chrono::milliseconds;
  return duration_cast<milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

uint64_t Events::Subscribe(Listener listener) {
  listeners_.emplace(next_, std::move(listener));
  return next_++;
}

void Events::Unsubscribe(uint64_t subscription) { listeners_.erase(subscription); }

void Events::Tell(const std::string& line) {
  spdlog::debug("event {}", line);
  // A listener that is told may leave.
  std::vector<uint64_t> all;
  for (const auto& [subscription, listener] : listeners_) all.push_back(subscription);
  for (uint64_t subscription : all) {
    auto found = listeners_.find(subscription);
    if (found != listeners_.end()) found->second(line);
  }
}

void Events::Sandbox(const std::string& id, const char* state, const std::string& reason) {
  JsonWriter json = Begin("sandbox");
  json.Key("id").String(id).Key("state").String(state);
  if (!reason.empty()) json.Key("reason").String(reason);
  Tell(json.EndObject().text());
}

void Events::Template(const std::string& name, const char* change) {
  JsonWriter json = Begin("template");
  Tell(json.Key("name").String(name).Key("change").String(change).EndObject().text());
}

void Events::Zygote(const std::string& name, const char* change, const std::string& reason) {
  JsonWriter json = Begin("zygote");
  json.Key("template").String(name).Key("change").String(change);
  if (!reason.empty()) json.Key("reason").String(reason);
  Tell(json.EndObject().text());
}

void Events::Node(const char* change) {
  JsonWriter json = Begin("node");
  Tell(json.Key("change").String(change).EndObject().text());
}

}  // namespace cube::pool
