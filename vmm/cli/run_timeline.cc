#include "vmm/cli/run_timeline.h"

#include "base/monotonic.h"
#include "vmm/cli/machine_manifest.h"

namespace cube::vmm {
namespace {

void AddPhases(const RunTimeline& time, JsonWriter* json) {
  json->Key("milliseconds").BeginObject();
  json->Key("probe").Double(Milliseconds(time.start, time.probed));
  json->Key("create").Double(Milliseconds(time.probed, time.created));
  if (time.booted != 0) json->Key("boot").Double(Milliseconds(time.created, time.booted));
  // From the agent's first words, or, in a clone, from where it was parked.
  if (time.ready != 0) {
    json->Key("agent").Double(
        Milliseconds(time.booted != 0 ? time.booted : time.created, time.ready));
  }
  if (time.started != 0) json->Key("start").Double(Milliseconds(time.ready, time.started));
  if (time.exited != 0) json->Key("command").Double(Milliseconds(time.started, time.exited));
  json->Key("total").Double(Milliseconds(time.start, MonotonicNow()));
  json->EndObject();
}

void AddDevices(const Machine& machine, JsonWriter* json) {
  json->Key("devices").BeginObject();
  for (const auto& device : machine.virtio()) {
    json->Key(device->name()).BeginObject();
    std::string failure = device->failure();
    if (!failure.empty()) json->Key("failure").String(failure);
    device->Metrics([json](const char* name, uint64_t value) { json->Key(name).Uint(value); });
    json->EndObject();
  }
  json->EndObject();
}

}  // namespace

JsonWriter RunReport(int status, const std::string& reason, const RunTimeline& time,
                     Ring0Mode ring0, const Machine& machine) {
  JsonWriter json;
  json.BeginObject().Key("event").String("exit").Key("status").Int(status);
  if (!reason.empty()) json.Key("reason").String(reason);
  json.Key("ring0").String(Ring0Name(ring0));
  AddPhases(time, &json);
  json.Key("exits").Uint(machine.exits());
  json.Key("emulated_instructions").Uint(machine.Statistic("insn_emulation"));
  json.Key("assists").BeginObject();
  for (const auto& [name, count] : machine.Ring0Counts()) {
    if (count != 0) json.Key(name).Uint(count);
  }
  json.EndObject();
  AddDevices(machine, &json);
  json.EndObject();
  return json;
}

}  // namespace cube::vmm
