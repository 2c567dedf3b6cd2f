#include "api/sandbox_notes.h"

#include <boost/json.hpp>

#include "base/json_writer.h"

namespace cube::api {
namespace {

namespace json = boost::json;

std::string TextOf(const json::object& object, const char* name) {
  const json::value* value = object.if_contains(name);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : "";
}

}  // namespace

std::string SandboxNotes::Text() const {
  JsonWriter out;
  out.BeginObject().Key("template").String(template_id);
  if (!alias.empty()) out.Key("alias").String(alias);
  if (auto_resume) out.Key("auto_resume").Bool(true);
  if (allow_internet_access) out.Key("internet").Bool(*allow_internet_access);
  if (!network.empty()) out.Key("network").String(network);
  if (!traffic_token.empty()) out.Key("traffic_token").String(traffic_token);
  if (!mask_host.empty()) out.Key("mask_host").String(mask_host);
  return out.EndObject().text();
}

SandboxNotes SandboxNotes::Parse(const std::string& text) {
  SandboxNotes notes;
  if (text.empty()) return notes;
  json::error_code failed;
  json::value value = json::parse(text, failed);
  if (failed || !value.is_object()) return notes;
  const json::object& object = value.get_object();
  notes.template_id = TextOf(object, "template");
  notes.alias = TextOf(object, "alias");
  notes.network = TextOf(object, "network");
  notes.traffic_token = TextOf(object, "traffic_token");
  notes.mask_host = TextOf(object, "mask_host");
  const json::value* flag = object.if_contains("auto_resume");
  notes.auto_resume = flag != nullptr && flag->is_bool() && flag->get_bool();
  flag = object.if_contains("internet");
  if (flag != nullptr && flag->is_bool()) notes.allow_internet_access = flag->get_bool();
  return notes;
}

}  // namespace cube::api
