#include "api/sandbox_answers.h"

#include <boost/json.hpp>

#include "api/date_text.h"

namespace cube::api {
namespace {

namespace json = boost::json;
using pool::SandboxState;

void AddValue(const json::value& value, JsonWriter* out) {
  switch (value.kind()) {
    case json::kind::object:
      out->BeginObject();
      for (const auto& [key, item] : value.get_object()) {
        out->Key(key);
        AddValue(item, out);
      }
      out->EndObject();
      break;
    case json::kind::array:
      out->BeginArray();
      for (const json::value& item : value.get_array()) AddValue(item, out);
      out->EndArray();
      break;
    case json::kind::string:
      out->String(value.get_string());
      break;
    case json::kind::bool_:
      out->Bool(value.get_bool());
      break;
    case json::kind::int64:
      out->Int(value.get_int64());
      break;
    case json::kind::uint64:
      out->Uint(value.get_uint64());
      break;
    case json::kind::double_:
      out->Double(value.get_double());
      break;
    case json::kind::null:
      out->Null();
      break;
  }
}

const std::string& TemplateOf(const pool::SandboxRecord& record, const SandboxNotes& notes) {
  return notes.template_id.empty() ? record.template_name : notes.template_id;
}

}  // namespace

bool IsShown(SandboxState state) {
  return state != SandboxState::kCreating && state != SandboxState::kKilling &&
         state != SandboxState::kDead;
}

bool IsPaused(SandboxState state) {
  return state == SandboxState::kPausing || state == SandboxState::kPaused ||
         state == SandboxState::kResuming;
}

void AddText(const std::string& json_text, JsonWriter* out) {
  json::error_code failed;
  json::value value = json::parse(json_text, failed);
  if (failed) {
    out->Null();
  } else {
    AddValue(value, out);
  }
}

void AddSandbox(const pool::SandboxRecord& record, const SandboxNotes& notes,
                const std::string& domain, JsonWriter* out) {
  out->BeginObject().Key("sandboxID").String(record.id);
  out->Key("templateID").String(TemplateOf(record, notes)).Key("clientID").String(kClientId);
  out->Key("envdVersion").String(kEnvdVersion);
  if (!notes.alias.empty()) out->Key("alias").String(notes.alias);
  if (!record.token.empty()) out->Key("envdAccessToken").String(record.token);
  if (!notes.traffic_token.empty()) out->Key("trafficAccessToken").String(notes.traffic_token);
  out->Key("domain");
  if (domain.empty()) {
    out->Null();
  } else {
    out->String(domain);
  }
  out->EndObject();
}

void AddListed(const pool::SandboxRecord& record, const SandboxNotes& notes, bool detail,
               const std::string& domain, JsonWriter* out) {
  out->BeginObject().Key("sandboxID").String(record.id);
  out->Key("templateID").String(TemplateOf(record, notes)).Key("clientID").String(kClientId);
  out->Key("envdVersion").String(kEnvdVersion);
  if (!notes.alias.empty()) out->Key("alias").String(notes.alias);
  out->Key("startedAt").String(DateText(record.created_ms));
  out->Key("endAt").String(DateText(record.deadline_ms));
  out->Key("state").String(IsPaused(record.state) ? "paused" : "running");
  out->Key("cpuCount").Uint(record.cpus).Key("memoryMB").Uint(record.memory_mib);
  out->Key("diskSizeMB").Uint(0).Key("metadata").BeginObject();
  for (const auto& [key, value] : record.metadata) out->Key(key).String(value);
  out->EndObject().Key("volumeMounts").BeginArray();
  for (const pool::VolumeMount& mount : record.volumes) {
    out->BeginObject().Key("name").String(mount.name).Key("path").String(mount.path).EndObject();
  }
  out->EndArray();
  if (detail) {
    if (!record.token.empty()) out->Key("envdAccessToken").String(record.token);
    out->Key("domain");
    if (domain.empty()) {
      out->Null();
    } else {
      out->String(domain);
    }
    out->Key("allowInternetAccess");
    if (notes.allow_internet_access) {
      out->Bool(*notes.allow_internet_access);
    } else {
      out->Null();
    }
    if (!notes.network.empty()) {
      out->Key("network");
      AddText(notes.network, out);
    }
    out->Key("lifecycle").BeginObject().Key("onTimeout");
    out->String(record.on_timeout == pool::OnTimeout::kPause ? "pause" : "kill");
    out->Key("autoResume").Bool(notes.auto_resume).EndObject();
  }
  out->EndObject();
}

}  // namespace cube::api
