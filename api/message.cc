#include "api/message.h"

#include <strings.h>

#include "base/json_writer.h"

namespace cube::api {

const std::string* Headers::Find(std::string_view name) const {
  for (const auto& [key, value] : all_) {
    if (key.size() == name.size() && strncasecmp(key.data(), name.data(), name.size()) == 0) {
      return &value;
    }
  }
  return nullptr;
}

Reply Reply::Error(unsigned status, std::string_view message) {
  JsonWriter json;
  json.BeginObject().Key("code").Uint(status).Key("message").String(message).EndObject();
  return Json(status, json.text());
}

unsigned StatusOf(pool::Fault fault) {
  switch (fault) {
    case pool::Fault::kInvalid:
      return 400;
    case pool::Fault::kNotFound:
      return 404;
    case pool::Fault::kConflict:
      return 409;
    case pool::Fault::kNoCapacity:
    case pool::Fault::kDraining:
      return 503;
    case pool::Fault::kInternal:
      return 500;
  }
  return 500;
}

Reply ReplyOf(const pool::Refusal& refusal) {
  return Reply::Error(StatusOf(refusal.fault), refusal.message);
}

}  // namespace cube::api
